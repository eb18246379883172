"""Files and folders: what is there, and what must survive a power cut."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def is_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is there; False also where one may not look, or the name is too long to be one's.

    Example:
        >>> is_file("x" * 300)
        False
    """
    return _holds(Path.is_file, path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is there; False as for `is_file`.

    Example:
        >>> is_folder(Path())
        True
    """
    return _holds(Path.is_dir, path)


def exists(path: str | os.PathLike[str]) -> bool:
    """Tell whether anything is there; False as for `is_file`.

    Example:
        >>> exists("x" * 300)
        False
    """
    return _holds(Path.exists, path)


def is_special(path: str | os.PathLike[str]) -> bool:
    """Tell whether something is there that is no regular file: a pipe, say, which would be waited for for ever.

    Example:
        >>> is_special(os.devnull), is_special("nothing is here")
        (True, False)
    """
    return exists(path) and not is_file(path)


def _holds(question: Callable[[Path], bool], path: str | os.PathLike[str]) -> bool:
    try:
        return question(Path(path))
    except (OSError, ValueError):
        return False


def printable(key: str) -> str:
    r"""Return a file's name as text: bytes that are no UTF-8 as backslash escapes.

    Example:
        >>> printable(os.fsdecode(b"a\xff.jpg"))
        'a\\xff.jpg'
    """
    return os.fsencode(key).decode("utf-8", "backslashreplace")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "empty"
        >>> file.touch()
        >>> sha256_of(file)[:8]
        'e3b0c442'
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Have the system write a file's content, or a folder's names, to the disk.

    Raises:
        OSError: it cannot be opened, or the disk refuses.

    Example:
        >>> flush(Path())
    """
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write that takes a path's place when all is well: an error or a crash leaves what was there.

    Raises:
        OSError: it cannot be written, or the disk is full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> with replacing(path) as file:
        ...     _ = file.write(b"path,label")
        >>> path.read_bytes()
        b'path,label'
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    flush(path.absolute().parent)


def replace_folder(new: Path, folder: Path) -> None:
    """Rename a finished folder to its place; what was there is gone only once the new one stands.

    Args:
        new: on the same disk; what is in it is flushed first.
        folder: its place.

    Raises:
        OSError: it cannot be flushed or renamed; what was there is there again.

    Example:
        >>> import tempfile
        >>> work = Path(tempfile.mkdtemp())
        >>> (work / "new").mkdir()
        >>> replace_folder(work / "new", work / "folder")
        >>> (work / "folder").is_dir()
        True
    """
    for entry in new.rglob("*"):
        flush(entry)
    if folder.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
        folder.rename(aside / "old")
        try:
            new.rename(folder)
        except BaseException:
            (aside / "old").rename(folder)
            aside.rmdir()
            raise
        shutil.rmtree(aside, ignore_errors=True)
    else:
        new.rename(folder)
    flush(folder.absolute().parent)
