"""Unpacking of archives that are not to be trusted.

What is taken: a tar, plain or gzipped, or a zip, of regular files and folders with plain relative names. Everything
else is refused, and a refused archive leaves nothing behind: names that lead outside or mean something else elsewhere,
links, devices, sparse files, names that occur twice, more bytes or names than any published archive has, a damaged or
cut-off stream, a web page in the place of an archive. Memory stays bounded: nothing is read in one piece.
"""

import errno
import gzip
import io
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mobilenet_hub.errors import CorruptFileError, OutputError

_GZIP_MAGIC, _ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
_TAR_MAGIC_AT, _TAR_MAGIC = 257, b"ustar"
_CHUNK = 1 << 18
_MAX_NAME, _MAX_PART = 1024, 255
_MAX_DIRECTORY = 2 << 20  # bytes of a zip's list of members, which is read in one piece: 2 KB for each that may be
_FORBIDDEN_CHARACTERS = frozenset('\\:*?"<>|')  # path syntax of Windows
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn")  # Unicode's control, format, surrogate, private and unassigned ones
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789")]
)


@dataclass(frozen=True)
class Limits:
    """What an archive may contain; far above every published one (the largest, TF-Slim's, unpack to 250 MB)."""

    total_bytes: int = 1 << 30
    members: int = 1000
    ratio: int = 100  # unpacked to packed bytes; checked beyond `ratio_from` bytes
    ratio_from: int = 32 << 20


def unpack(archive: Path, folder: Path, limits: Limits = Limits()) -> Path:
    """Unpack a tar, tar.gz or zip archive into a new folder, or refuse it and leave nothing.

    Args:
        archive: the file.
        folder: where to; must not exist.
        limits: how much may come out.

    Returns:
        The folder.

    Raises:
        CorruptFileError: the archive is damaged, too large, not an archive, or does what no honest archive does;
            names the archive, the member and the reason.
        OutputError: the folder cannot be written.

    Example:
        >>> unpack(Path("mobilenet_v2_1.0_224.tgz"), Path("unpacked"))  # doctest: +SKIP
        PosixPath('unpacked')
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error}") from None
    try:
        with archive.open("rb") as packed:
            is_zip = packed.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        if is_zip:
            _unpack_zip(archive, folder, limits)
        else:
            with _plain_tar(archive, folder.parent, limits) as stream:
                _unpack_tar(stream, archive, folder, limits)
    except CorruptFileError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise OutputError(f"{archive} cannot be unpacked to {folder}: {error}") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _plain_tar(archive: Path, scratch: Path, limits: Limits) -> "_Guarded":
    """Return the archive's tar stream, gunzipped to an unnamed file where need be, so that its checksum is checked."""
    with archive.open("rb") as packed:
        head = packed.read(_TAR_MAGIC_AT + len(_TAR_MAGIC))
    if head[_TAR_MAGIC_AT:] == _TAR_MAGIC:
        return _Guarded(archive.open("rb"), archive)
    if not head.startswith(_GZIP_MAGIC):
        raise CorruptFileError(f"{archive.name} is {_what_it_is(head)}, not a tar, tar.gz or zip archive")
    packed_bytes = archive.stat().st_size
    plain = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
    try:
        with gzip.open(archive, "rb") as unzipped:
            done = 0
            while chunk := unzipped.read(_CHUNK):
                done += len(chunk)
                if done > limits.total_bytes:
                    raise CorruptFileError(f"{archive.name} unpacks to more than {limits.total_bytes} bytes; refused")
                if done > max(limits.ratio_from, limits.ratio * packed_bytes):
                    raise CorruptFileError(
                        f"{archive.name} unpacks to more than {limits.ratio} times its size; refused as a bomb"
                    )
                plain.write(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        plain.close()
        raise CorruptFileError(f"{archive.name} is damaged or cut off: {error}") from None
    except BaseException:
        plain.close()
        raise
    plain.seek(0)
    return _Guarded(plain, archive)


def _what_it_is(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page"
    if start.startswith((b"{", b"[")):
        return "a JSON text"
    return "something else"


class _Guarded(io.RawIOBase):
    """A stream that refuses to be read in large pieces, as a forged size of a header would have it."""

    def __init__(self, file: IO[bytes], archive: Path, most: int = _CHUNK):
        self._file = file
        self._archive = archive
        self.most = most

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(self.most + 1) if size < 0 else b""
        if max(size, len(data)) > self.most:
            raise CorruptFileError(f"{self._archive.name} has a header of {max(size, len(data))} bytes; refused")
        return data if size < 0 else self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def _unpack_tar(stream: _Guarded, archive: Path, folder: Path, limits: Limits) -> None:
    seen: dict[str, bool] = {}  # folded name -> whether it is a folder
    total = 0
    try:
        with tarfile.open(fileobj=stream, mode="r:", errorlevel=2, ignore_zeros=False) as tar:
            for count, member in enumerate(tar, start=1):
                if count > limits.members:
                    raise CorruptFileError(f"{archive.name} has more than {limits.members} members; refused")
                if member.size < 0:
                    raise CorruptFileError(f"{archive.name}: member {_shown(member.name)} has a negative size; refused")
                total += member.size
                if total > limits.total_bytes:
                    raise CorruptFileError(f"{archive.name} unpacks to more than {limits.total_bytes} bytes; refused")
                _unpack_member(tar, member, archive, folder, seen)
            stream.seek(tar.offset)  # tarfile takes a damaged header for the end
            end = stream.read(tarfile.BLOCKSIZE)
            if end.strip(b"\0"):
                raise CorruptFileError(f"{archive.name} has a damaged header after {len(seen)} names")
            if len(end) < tarfile.BLOCKSIZE:
                raise CorruptFileError(f"{archive.name} is cut off after {len(seen)} names: its end is not marked")
    except (tarfile.TarError, EOFError, ValueError, ArithmeticError, RecursionError) as error:
        if isinstance(error, CorruptFileError):
            raise
        raise CorruptFileError(f"{archive.name} is a damaged tar archive: {error}") from None
    if not any(not is_folder for is_folder in seen.values()):
        raise CorruptFileError(f"{archive.name} holds no file")


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path, folder: Path, seen: dict[str, bool]
) -> None:
    what = f"{archive.name}: member {_shown(member.name)}"
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise CorruptFileError(f"{what} is a link, a device or the like; only files and folders are taken")
    parts = _safe_parts(member.name, what)
    if not parts:
        if member.isdir():
            return  # "./", the archive's root
        raise CorruptFileError(f"{what} has no name")
    _claim(parts, member.isdir(), seen, what)
    target = folder.joinpath(*parts)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None  # a regular file has content
    with target.open("xb") as file:
        left = member.size
        while left:
            chunk = content.read(min(left, _CHUNK))
            if not chunk:
                raise CorruptFileError(f"{what} is cut off, {left} bytes before its end")
            file.write(chunk)
            left -= len(chunk)


def zip_of(stream: IO[bytes], archive: Path) -> zipfile.ZipFile:
    """Open a zip archive, if its list of members is not larger than any honest one's.

    Raises:
        CorruptFileError: it is; names the archive.
        zipfile.BadZipFile: it is none.
    """
    guarded = _Guarded(stream, archive, _MAX_DIRECTORY)
    packed = zipfile.ZipFile(guarded)
    guarded.most = sys.maxsize  # members are read in the pieces that their readers ask for
    return packed


def _unpack_zip(archive: Path, folder: Path, limits: Limits) -> None:
    seen: dict[str, bool] = {}
    allowed = min(limits.total_bytes, max(limits.ratio_from, limits.ratio * archive.stat().st_size))
    total = 0
    try:
        with archive.open("rb") as stream, zip_of(stream, archive) as packed:
            members = packed.infolist()
            if len(members) > limits.members:
                raise CorruptFileError(f"{archive.name} has more than {limits.members} members; refused")
            for member in members:
                total += _unpack_zipped(packed, member, archive, folder, seen, allowed - total)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, CorruptFileError) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise  # EINVAL: it says that a member lies before its beginning
        raise CorruptFileError(f"{archive.name} is a damaged zip archive: {error}") from None
    if not any(not is_folder for is_folder in seen.values()):
        raise CorruptFileError(f"{archive.name} holds no file")


def _unpack_zipped(
    packed: zipfile.ZipFile, member: zipfile.ZipInfo, archive: Path, folder: Path, seen: dict[str, bool], left: int
) -> int:
    """Unpack one member, at most `left` bytes; return how many."""
    what = f"{archive.name}: member {_shown(member.filename)}"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.flag_bits & 1:
        raise CorruptFileError(f"{what} is encrypted; unpack the archive with its password and give the folder")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):
        raise CorruptFileError(
            f"{what} is a link, a device or packed in an unusual way; only files and folders are taken"
        )
    parts = _safe_parts(member.filename, what)
    if not parts:
        raise CorruptFileError(f"{what} has no name")
    _claim(parts, member.is_dir(), seen, what)
    target = folder.joinpath(*parts)
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return 0
    if member.file_size > left:
        raise CorruptFileError(f"{archive.name} unpacks to more than it may; refused as a bomb")
    target.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    with packed.open(member) as content, target.open("xb") as file:
        while chunk := content.read(_CHUNK):
            done += len(chunk)
            if done > left:
                raise CorruptFileError(f"{archive.name} unpacks to more than it may; refused as a bomb")
            file.write(chunk)
    return done


def _safe_parts(name: str, what: str) -> list[str]:
    """Return the parts of a member's name, or refuse a name that could mean another place on any system."""
    if len(name) > _MAX_NAME:
        raise CorruptFileError(f"{what} has a name of {len(name)} characters; refused")
    if name.startswith("/"):
        raise CorruptFileError(f"{what} has an absolute name; refused")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for part in parts:
        if part == "..":
            raise CorruptFileError(f"{what} leads outside of the archive's folder; refused")
        if (
            any(unicodedata.category(character) in _INVISIBLE for character in part)
            or len(part.encode()) > _MAX_PART
            or _FORBIDDEN_CHARACTERS.intersection(part)
            or part != part.strip()
            or part.endswith(".")
            or part.partition(".")[0].lower() in _WINDOWS_DEVICES
        ):
            raise CorruptFileError(f"{what} has a name that is not safe on every system; refused")
    return parts


def _claim(parts: list[str], is_folder: bool, seen: dict[str, bool], what: str) -> None:
    """Record a name and its folders; refuse one that is there already, also where only case or composition differ."""
    folded = [unicodedata.normalize("NFKC", part).casefold() for part in parts]
    for depth in range(1, len(folded)):
        if not seen.setdefault("/".join(folded[:depth]), True):
            raise CorruptFileError(f"{what} lies inside a file; refused")
    name = "/".join(folded)
    if name in seen and not (is_folder and seen[name]):
        raise CorruptFileError(f"{what} occurs twice; refused")
    seen[name] = is_folder


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else f"{name[:80]}...")
