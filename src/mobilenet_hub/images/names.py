"""Which files are pictures by their names, and which folders and files are a system's own and nobody's photos."""

import os
import re

_NAMES = (
    "jpg jpeg jpe jfif pjpeg pjp mpo png apng webp gif bmp dib tif tiff ppm pgm pbm pnm ico tga jp2 j2k jpf jpx j2c "
    "avif avifs heic heics heif heifs hif jxl"
)
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
# Thumbnails and indexes of Synology and QNAP, trash of them and of Windows, what macOS puts into archives, and what
# file systems keep for themselves. Their pictures are copies of photos that are there already, or deleted ones.
SYSTEM_FOLDERS = frozenset(
    (
        *(
            "@eadir",
            ".@__thumb",
            "@tmp",
            "@sharebin",
            "@sharesnap",
            "@synologydrive",
            "@appstore",
            "#recycle",
            "@recycle",
        ),
        *("@recently-snapshot", "#snapshot", "$recycle.bin", "recycler", "recycled", "system volume information"),
        *("__macosx", "lost+found", "found.000", "found.001"),
    )
)
_WORD = re.compile(r"\.(?=[a-z0-9]{0,9}[a-z])[a-z0-9]{1,10}")
_SYSTEM_FILES = frozenset(
    ["thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini", "zbthumbnail.info"]
)


def is_system_folder(name: str) -> bool:
    """Tell whether a folder of this name is hidden or a system's own; such folders are searched by no command.

    Example:
        >>> is_system_folder("@eaDir"), is_system_folder(".git"), is_system_folder("cats")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_system_file(name: str) -> bool:
    """Tell whether a file of this name is hidden or a system's own, and not worth a word.

    Example:
        >>> is_system_file("Thumbs.db"), is_system_file("._1.jpg"), is_system_file("notes.txt")
        (True, True, False)
    """
    return name.startswith((".", "@Syno")) or name.lower() in _SYSTEM_FILES


def is_picture_name(name: str) -> bool:
    """Tell whether a file's name ends as a picture's does.

    Example:
        >>> is_picture_name("photos/IMG_1.JPG"), is_picture_name("notes.txt")
        (True, False)
    """
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122  (faster: asked of every file)


def suffix_of(name: str) -> str:
    """Return how a file's name ends, in small letters; empty where that is no word: "IMG_1", "1.2", "a.jpg_large".

    Example:
        >>> [suffix_of(name) for name in ("notes.TXT", "a.7z", "IMG_1", "v1.2", "a.jpg_large", "a.jpg?w=64")]
        ['.txt', '.7z', '', '', '', '']
    """
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return suffix if _WORD.fullmatch(suffix) else ""


def is_in_system_folder(name: str) -> bool:
    """Tell whether a member of an archive is a system's file, or lies in a folder that is passed over.

    Example:
        >>> is_in_system_folder("cats/1.jpg"), is_in_system_folder("cats/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg")
        (False, True)
    """
    *folders, file = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")] or [""]
    return is_system_file(file) or any(map(is_system_folder, folders))
