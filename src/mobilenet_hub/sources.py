"""What IMAGES stands for: files, folders, globs, a list on standard input, .tar, .zip and Parquet, as one stream.

Nothing is read before it is asked for, and nothing is kept: a million photos cost no more memory than ten. Whatever
cannot be listed (a glob that matches nothing, a damaged archive) is an item too, which says so when it is read: every
input either gives a picture or a named reason. Imports disk, errors, images and tables.
"""

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet_hub.disk import exists, is_folder
from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images import MAX_FILE_BYTES, TOO_LARGE, read_bytes

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "ico", "tga", "jp2", "avif", "heic", "heif"),
    )
)
HELP = "files, folders (searched whole), globs, .tar, .zip or .parquet of images, or - for a list on standard input"
_PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_TARS = (".tar", *_PACKED_TARS)


@dataclass(frozen=True, slots=True)
class Item:
    """One input: its name, and how to get at its bytes."""

    key: str  # a file's path; archive/member; table.parquet#row or the table's own key
    read: Callable[[], Any]  # what `images.decode_image` takes, bytes as a rule; raises ImageError with the reason
    root: str | None = None  # the folder that was asked for, where the input was found by searching one


def items(inputs: Iterable[str | os.PathLike[str]], unread: int = 0) -> Iterator[Item]:
    """Yield every image of the inputs, in a stable order: arguments as given, folders and globs sorted.

    A file that is named is taken whatever its name; of a folder or an archive, what has the suffix of an image. In
    folders, hidden files and folders and links to folders are passed over; so are archives, which are named to be read.

    Args:
        inputs: paths of files, folders, .tar (also .gz, .bz2, .xz), .zip and .parquet files, globs, "-" for a list of
            these on standard input, one a line.
        unread: of this many items at the start only the key is wanted; their bytes may be missing.

    Example:
        >>> [item.key for item in items(["b.jpg", "a.jpg"])]
        ['b.jpg', 'a.jpg']
    """
    return _expand(_arguments(inputs), unread)


def count(inputs: Iterable[str | os.PathLike[str]]) -> int | None:
    """Return how many items there are; None where finding out would take a list's reading or an archive's unpacking.

    Example:
        >>> count(["b.jpg", "a.jpg"])
        2
    """
    arguments = [os.fspath(argument) for argument in inputs]
    if any(argument == "-" or argument.lower().endswith(_PACKED_TARS) for argument in arguments):
        return None
    return sum(1 for _ in items(arguments, unread=sys.maxsize))


def _arguments(inputs: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    for argument in inputs:
        if os.fspath(argument) == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed; give the images as arguments, or a list of them through -")
            lines = (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)
            yield from (line for line in lines if line)
        else:
            yield os.fspath(argument)


def _kind(argument: str) -> Callable[[str, int], Iterator[Item]]:
    if is_folder(argument):
        return _folder
    if glob.has_magic(argument) and not exists(argument):
        return _glob
    lower = argument.lower()
    if lower.endswith(_TARS):
        return _tar
    return {".zip": _zip, ".parquet": _parquet}.get(Path(lower).suffix, _file)


def _expand(arguments: Iterable[str], unread: int) -> Iterator[Item]:
    """Yield the items of all arguments; of the first `unread` only the key is wanted."""
    yielded = 0
    for argument in arguments:
        before = yielded
        for item in _kind(argument)(argument, unread - yielded):
            yielded += 1
            yield item
        if yielded == before:
            yielded += 1
            yield _refused(argument, f"{'a folder' if is_folder(argument) else 'an archive'} without images")


def _refused(key: str, reason: str) -> Item:
    def read() -> bytes:
        raise ImageError(reason)

    return Item(key, read)


def _file(path: str, unread: int) -> Iterator[Item]:
    yield Item(path, partial(read_bytes, path))


def _folder(folder: str, unread: int) -> Iterator[Item]:
    return _walk(folder, folder)


def _walk(folder: str, root: str) -> Iterator[Item]:
    try:
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        yield _refused(folder, f"a folder that cannot be read ({error.strerror})")
        return
    for entry in visible:
        if os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.is_dir():  # noqa: PTH122  (3x faster)
            yield Item(entry.path, partial(read_bytes, entry.path), root)
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, root)


def _glob(pattern: str, unread: int) -> Iterator[Item]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
    if "**" in pattern:
        matches = [match for match in matches if not is_folder(match)]  # whose files match too
    if matches:
        yield from _expand(matches, unread)
    else:
        yield _refused(pattern, "matches no file")


class _OpenFile:
    """A file that stays open as long as an item may still read from it."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; safe from several threads."""
        data = os.pread(self.descriptor, length, offset)
        if len(data) < length:
            raise ImageError("the archive ends within this file")
        return data

    def __del__(self):
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _tar(path: str, unread: int) -> Iterator[Item]:
    import tarfile
    from lzma import LZMAError
    from zlib import error as zlib_error

    class Header(tarfile.TarInfo):
        """A header that is damaged or missing is an error, where tarfile would take it for the end."""

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
            try:
                return super().frombuf(buf, encoding, errors)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                raise
            except tarfile.HeaderError as error:
                raise tarfile.ReadError(f"{error}: cut off?") from None

    try:
        with tarfile.open(path, "r:*", tarinfo=Header) as archive:
            file = _OpenFile(path) if path.lower().endswith(".tar") else None
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # tarfile would remember every member it has seen
                if not member.isreg() or not _is_image(member.name):
                    continue
                key = f"{path}/{member.name}"
                if file is not None and not member.issparse():
                    yield Item(key, partial(file.read, member.offset_data, member.size))
                    continue
                stream = archive.extractfile(member)  # compressed: only to be read in passing
                data = stream.read(MAX_FILE_BYTES) if stream is not None else b""
                yield Item(key, partial(bytes, data))
    except (tarfile.TarError, zlib_error, LZMAError, EOFError, OSError) as error:
        yield _refused(path, f"not a readable .tar archive, or damaged from here on ({error})")


def _zip(path: str, unread: int) -> Iterator[Item]:
    from zipfile import BadZipFile, ZipFile

    try:
        archive = ZipFile(path)
    except (BadZipFile, OSError, ValueError) as error:
        yield _refused(path, f"not a readable .zip archive ({error})")
        return
    for member in archive.infolist():
        if not member.is_dir() and _is_image(member.filename):
            yield Item(f"{path}/{member.filename}", partial(_read_member, archive, member))


def _read_member(archive: "ZipFile", member: "ZipInfo") -> bytes:
    if member.file_size > MAX_FILE_BYTES:
        raise ImageError(TOO_LARGE)
    try:
        return archive.read(member)
    except Exception as error:  # damaged, encrypted, of an unknown compression: each raises what it likes
        raise ImageError(f"cannot be unpacked ({error})") from None


def _is_image(name: str) -> bool:
    file = Path(name)
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not name.startswith("__MACOSX/")


def _parquet(path: str, unread: int) -> Iterator[Item]:
    from mobilenet_hub.tables import rows

    try:
        for key, data in rows(path, unread):
            yield Item(key, partial(_present, data))
    except ImageError as error:
        yield _refused(path, error.reason)


def _present(data: bytes | None) -> bytes:
    if data is None:
        raise ImageError("the table has no bytes for it")
    return data
