"""Putting an export in its place whole or not at all.

It is made in a hidden folder beside its place, flushed to disk, then renamed. A name with the format's ending is one
file, with what belongs to it beside; any other name is a folder.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mobilenet_hub.errors import InputError, MobileNetHubError, OutputError
from mobilenet_hub.host.files import beside, replace_files, replacing_folder

PROOF_FILE = "proof.json"
_SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra")
# Of entries in an export's folder, besides model.*
_OWN_NAMES = frozenset([PROOF_FILE, "labels.txt", "module.json", "weights.safetensors", *_SAVED_MODEL])
SUFFIXES = (".onnx", ".xml", ".bin", ".tflite", ".keras", ".safetensors", ".pb", ".json", ".zip", ".tar", ".tgz", ".gz")


@dataclass(frozen=True)
class Place:
    """Where an export goes: a folder, or one main file with its companions beside it."""

    path: Path
    main: str | None  # the main file's name; None: everything lies in a folder without one
    is_file: bool
    overwrite: bool  # whether something of the same kind may be replaced

    def in_place(self, name: str) -> Path:
        """Return the final path of one of the export's files."""
        if not self.is_file:
            return self.path / name
        if name == PROOF_FILE:
            return self.path.with_name(f"{self.path.name}.{PROOF_FILE}")
        return self.path.with_name(name)


def find_place(output: str | os.PathLike[str], suffix: str | None, *, overwrite: bool) -> Place:
    """Decide whether an output's name means a file or a folder, and that it may be written.

    Args:
        output: the name given.
        suffix: the ending of the format's file; None for formats that are folders.
        overwrite: whether something of the same kind may be replaced.

    Raises:
        InputError: the name has another format's ending.
        OutputError: it exists and may not be replaced.
    """
    path = Path(output).expanduser().absolute()
    ending = path.suffix.lower()
    if suffix and ending == suffix:
        place = Place(path, path.name, True, overwrite)
    elif ending in SUFFIXES:
        wanted = f"a name ending in {suffix}, or a folder's" if suffix else "a folder's name"
        raise InputError(f"{output} has the ending of something else; give {wanted}")
    else:
        place = Place(path, f"model{suffix}" if suffix else None, False, overwrite)
    _check_free(place)
    return place


def _check_free(place: Place) -> None:
    path = place.path
    if not path.exists() and not path.is_symlink():
        return
    if place.is_file != path.is_file():
        raise OutputError(f"{path} is a {'folder' if path.is_dir() else 'file'}; choose another name")
    if not place.is_file and not any(path.iterdir()):
        return
    if not place.overwrite:
        raise _exists(path)
    if not place.is_file and not (path / PROOF_FILE).is_file():
        raise OutputError(f"{path} holds something else than an export (no {PROOF_FILE}); choose another name")


def _is_own(name: str) -> bool:
    """Tell whether an entry of an export's folder is the export's; what is not is kept where it is replaced."""
    return name in _OWN_NAMES or (Path(name).stem == "model" and Path(name).suffix in SUFFIXES)


def _is_proof(file: Path) -> bool:
    try:
        return b'"top1_agreement"' in file.read_bytes()
    except OSError:
        return False


def _exists(path: Path) -> OutputError:
    return OutputError(f"{path} exists; choose another name, or replace it with overwrite=True")


@contextmanager
def finished_at(place: Place) -> Iterator[Path]:
    """Give a folder to write into; afterwards everything in it is moved to its place, or nothing where that failed.

    Raises:
        OutputError: the place cannot be written.
    """
    try:
        if place.is_file:
            with beside(place.path) as work:
                new, aside = work / "files", work / "aside"
                new.mkdir()
                aside.mkdir()
                yield new
                _move_files(new, place, aside)
        else:
            with replacing_folder(place.path, keep=lambda entry: not _is_own(entry.name)) as new:
                yield new
    except MobileNetHubError:
        raise
    except OSError as error:
        raise OutputError(f"{place.path} cannot be written: {error.strerror or error}") from error


def _move_files(made: Path, place: Place, aside: Path) -> None:
    """Move the companions, then the main file: what loads is there only once everything is."""
    names = sorted((file.name for file in made.iterdir()), key=lambda name: name == place.main)
    for name in names:
        target = place.in_place(name)
        if target.exists() and not (place.overwrite or (name == PROOF_FILE and _is_proof(target))):
            raise _exists(target)
    replace_files([(made / name, place.in_place(name)) for name in names], aside)


def size_of(folder: Path) -> int:
    """Return the bytes of a folder's files, the proof left out."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != PROOF_FILE)
