"""Pictures in .tar and .zip archives: which of their members are some, and how to get at the bytes.

What an archive is, its content says; its name only where there is none. A compressed .tar is read in passing.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Literal

from mobilenet_hub.errors import ImageError
from mobilenet_hub.host.files import first_bytes
from mobilenet_hub.host.stores import Address, StoreError, is_address
from mobilenet_hub.images.content import HEAD_BYTES as PICTURE_BYTES
from mobilenet_hub.images.content import is_picture
from mobilenet_hub.images.limits import MAX_FILE_BYTES, TOO_LARGE
from mobilenet_hub.images.names import is_in_system_folder, is_picture_name, suffix_of
from mobilenet_hub.images.skipped import refuse

if TYPE_CHECKING:
    from tarfile import TarFile, TarInfo
    from zipfile import ZipFile, ZipInfo

    from mobilenet_hub.images.ranges import Ranges

Member = tuple[str, Callable[[], bytes], int]  # archive/member; gives its bytes; how many of them are held already

Kind = Literal["tar", "zip", "parquet", ""]

_TARS = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_PACKED_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_LONGEST_START = max(map(len, _PACKED_STARTS))
_ZIP_STARTS = (b"PK\3\4", b"PK\5\6")
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257
HEAD_BYTES = _TAR_MARK_AT + len(_TAR_MARK)  # that tell what a file is


def kind_of(path: str) -> Kind:
    """Return what kind of collection a file is: by its content, by its name where that cannot be read; empty: none.

    Example:
        >>> kind_of("nothing is here.tar"), kind_of("photo.jpg")
        ('tar', '')
    """
    return "" if is_picture_name(path) else kind_by(path, first_bytes(path, HEAD_BYTES) or b"")


def kind_by(path: str, head: bytes) -> Kind:
    """Return what kind of collection a file is that begins so.

    Example:
        >>> kind_by("shard-0001", b"PAR1")
        'parquet'
    """
    if is_picture_name(path):
        return ""
    if head.startswith(_PACKED_STARTS) or head[_TAR_MARK_AT:].startswith(_TAR_MARK):
        return "tar"
    if head.startswith(_ZIP_STARTS):
        return "zip"
    if head.startswith(b"PAR1"):
        return "parquet"
    lower = path.lower()
    if lower.endswith(_TARS):
        return "tar"
    return "zip" if lower.endswith(".zip") else "parquet" if lower.endswith(".parquet") else ""


def is_packed_tar(path: str) -> bool:
    """Tell whether a file is a compressed .tar, whatever it is called.

    Example:
        >>> is_packed_tar("nothing is here.tar.gz")
        False
    """
    return not is_picture_name(path) and (first_bytes(path, _LONGEST_START) or b"").startswith(_PACKED_STARTS)


class _OpenFile:
    """A file that stays open as long as an item may still read from it."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._turn = Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; safe from several threads."""
        if hasattr(os, "pread"):
            data = os.pread(self.descriptor, length, offset)
        else:  # Windows
            with self._turn:
                os.lseek(self.descriptor, offset, os.SEEK_SET)
                data = os.read(self.descriptor, length)
        if len(data) < length:
            raise ImageError("the archive ends within this file")
        return data

    def __del__(self):
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _ranges_of(path: str) -> "Ranges":
    from mobilenet_hub.images.ranges import Ranges

    return Ranges(Address.parse(path))


class _OpenObject(_OpenFile):
    """The same in a store: what is wanted of it comes in large pieces, the next of them ahead."""

    def __init__(self, path: str):
        self.ranges = _ranges_of(path)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the object."""
        data = self.ranges.read_at(offset, length)
        if len(data) < length:
            raise ImageError("the archive ends within this file")
        return data

    def __del__(self):
        self.ranges.close()


def tar_members(path: str, wanted: Callable[[int], bool], passed_over: Counter[str]) -> Iterator[Member]:
    """Yield the pictures of a .tar, compressed or not.

    Args:
        path: the archive.
        wanted: told a picture's number, from 0, says whether its bytes are wanted; of others they may be missing.
        passed_over: counts, by suffix, the members that are no pictures.

    Raises:
        ImageError: no such archive, or damaged from here on.
    """
    import tarfile

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
        there = _OpenObject(path) if is_address(path) else None
        start = there.ranges.read_at(0, _LONGEST_START) if there else first_bytes(path, _LONGEST_START) or b""
        with tarfile.open(None if there else path, "r:*", there and there.ranges, tarinfo=Header) as archive:
            file = None if start.startswith(_PACKED_STARTS) else there or _OpenFile(path)
            number = 0
            for member, taken in _looked_at(archive, file):
                if not taken:
                    passed_over[suffix_of(member.name)] += 1
                    continue
                yield _tar_member(archive, file, path, member, wanted(number))
                number += 1
    except StoreError:
        raise
    except Exception as error:  # besides its own errors tarfile raises whatever a damaged header makes it trip over
        raise ImageError(f"not a readable .tar archive, or damaged from here on ({error})") from None


def _looked_at(archive: "TarFile", file: _OpenFile | None) -> "Iterator[tuple[TarInfo, bool]]":
    """Yield the members that are files, or links of a picture's name, and whether each is a picture."""
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # tarfile would remember every member it has seen
        if member.isdir() or is_in_system_folder(member.name):
            continue
        yield member, is_picture(member.name, partial(_head_of_member, archive, file, member))


def _head_of_member(archive: "TarFile", file: _OpenFile | None, member: "TarInfo") -> bytes:
    if not member.isreg():
        return b""
    if file is not None and not member.issparse():
        return file.read(member.offset_data, min(PICTURE_BYTES, member.size))
    stream = archive.extractfile(member)
    return stream.read(PICTURE_BYTES) if stream is not None else b""


def _tar_member(archive: "TarFile", file: _OpenFile | None, path: str, member: "TarInfo", wanted: bool) -> Member:
    key = f"{path}/{member.name}"
    if not member.isreg():
        what = f"a link to {member.linkname}" if member.linkname else "no regular file"
        return key, partial(refuse, f"{what}, not followed in an archive"), 0
    if isinstance(file, _OpenObject) and not member.issparse():
        if member.size > MAX_FILE_BYTES:
            return key, partial(refuse, TOO_LARGE), 0
        data = file.read(member.offset_data, member.size) if wanted else b""
        return key, partial(bytes, data), len(data)
    if file is not None and not member.issparse():
        return key, partial(file.read, member.offset_data, member.size), 0
    stream = archive.extractfile(member)  # compressed: only to be read in passing
    data = stream.read(MAX_FILE_BYTES) if stream is not None and wanted else b""
    return key, partial(bytes, data), len(data)


def zip_members(path: str, wanted: Callable[[int], bool], passed_over: Counter[str]) -> Iterator[Member]:
    """Yield the pictures of a .zip; arguments and errors as for `tar_members`."""
    from zipfile import ZipFile

    try:
        archive = ZipFile(_ranges_of(path) if is_address(path) else path)
    except StoreError:
        raise
    except Exception as error:  # as with tarfile
        raise ImageError(f"not a readable .zip archive ({error})") from None
    for member in archive.infolist():
        if member.is_dir() or is_in_system_folder(member.filename):
            continue
        if is_picture(member.filename, partial(_head_of_zipped, archive, member)):
            yield f"{path}/{member.filename}", partial(_read_member, archive, member), 0
        else:
            passed_over[suffix_of(member.filename)] += 1


def _head_of_zipped(archive: "ZipFile", member: "ZipInfo") -> bytes:
    try:
        with archive.open(member) as file:
            return file.read(PICTURE_BYTES)
    except StoreError:
        raise
    except Exception:  # as below; what cannot be looked into is passed over, and counted
        return b""


def _read_member(archive: "ZipFile", member: "ZipInfo") -> bytes:
    if member.file_size > MAX_FILE_BYTES:
        raise ImageError(TOO_LARGE)
    try:
        return archive.read(member)
    except StoreError:
        raise
    except Exception as error:  # damaged, encrypted, of an unknown compression: each raises what it likes
        raise ImageError(f"cannot be unpacked ({error})") from None
