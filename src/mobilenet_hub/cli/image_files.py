"""What IMAGES on a command line stands for: files, folders, globs, and - for a list on standard input.

Imports the standard library only.
"""

import glob
import os
import sys
from collections.abc import Iterable
from pathlib import Path

HELP = "files, folders (searched whole), globs, or - for a list of paths on standard input"
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "ico", "tga", "jp2", "avif"),
    )
)


def find_images(arguments: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the paths of images in a stable order, and what led to none, each with the reason.

    A file that is named is taken whatever its name; of a folder, what has the suffix of an image.

    Example:
        >>> find_images(["no_such_folder/*.jpg"])
        ([], {'no_such_folder/*.jpg': 'matches no file'})
    """
    files: dict[str, None] = {}
    problems: dict[str, str] = {}
    for argument in arguments:
        if argument == "-":
            found = [line for raw in sys.stdin if (line := raw.rstrip("\r\n"))]
            reason = "standard input lists no file"
        elif Path(argument).is_dir():
            found, reason = _in_folder(argument), "a folder without images"
        elif glob.has_magic(argument) and not Path(argument).exists():
            found, reason = _matching(argument), "matches no file"
        else:
            found, reason = [argument], ""
        if not found:
            problems[argument] = reason
        files.update(dict.fromkeys(found))
    return list(files), problems


def _in_folder(folder: str) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            str(Path(parent, name))
            for name in sorted(names)
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    return found


def _matching(pattern: str) -> list[str]:
    found = []
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  (Path.glob takes no absolute pattern)
        found += _in_folder(match) if Path(match).is_dir() else [match]
    return found
