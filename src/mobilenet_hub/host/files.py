"""Files and folders: what is there, and what must survive a power cut."""

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mobilenet_hub.host.locks import is_still_there, try_lock
from mobilenet_hub.host.stores import demand_local

if TYPE_CHECKING:
    from mobilenet_hub.host.object_path import ObjectPath, Place

FILE_ADDRESS = "file://"  # begins an address of a file of this machine
PARTIAL = ".partial"  # ends the name of what is not finished
_NAME_LENGTH = 50  # of a path's name, that a partial's name repeats
_LOCK, _NEW, _OLD = "lock", "new", "old"  # in the folder of a folder that is being made


def is_file(path: "str | os.PathLike[str] | ObjectPath") -> bool:
    """Tell whether a file is there; False also where one may not look, or the name is too long to be one's.

    Example:
        >>> is_file("x" * 300)
        False
    """
    return _holds(Path.is_file, path) if isinstance(path, str | os.PathLike) else path.is_file()


def is_folder(path: "str | os.PathLike[str] | ObjectPath") -> bool:
    """Tell whether a folder is there, or objects below a place in a store; False as for `is_file`.

    Example:
        >>> is_folder(Path())
        True
    """
    return _holds(Path.is_dir, path) if isinstance(path, str | os.PathLike) else path.is_dir()


def local_path(name: str | os.PathLike[str]) -> Path:
    """Return what a name would be as a path of this machine; file:// addresses are paths too.

    Example:
        >>> local_path("file:///data/my%20module")
        PosixPath('/data/my module')
    """
    text = os.fspath(name)
    demand_local(text, "a module or a file to read")
    if text.startswith(FILE_ADDRESS):
        from urllib.request import url2pathname

        return Path(url2pathname(text[len(FILE_ADDRESS) :]))
    return Path(text).expanduser()


def first_bytes(path: str | os.PathLike[str], count: int) -> bytes | None:
    """Return how a file begins; None where there is no regular file that can be read. No pipe is waited for.

    Example:
        >>> first_bytes("nothing is here", 4) is None
        True
    """
    try:
        if not is_file(path):
            return None
        with open(path, "rb") as file:  # noqa: PTH123  (as a string: asked of many files)
            return file.read(count)
    except OSError:
        return None


def exists(path: "str | os.PathLike[str] | ObjectPath") -> bool:
    """Tell whether anything is there; False as for `is_file`.

    Example:
        >>> exists("x" * 300)
        False
    """
    return _holds(Path.exists, path) if isinstance(path, str | os.PathLike) else path.exists()


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


def sha256_of(file: "Place") -> str:
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
def replacing(path: "Place") -> Iterator[BinaryIO]:
    """Give a file to write that takes a path's place when all is well: an error or a crash leaves what was there.

    It is written beside its place under a name that no other writer has, flushed to the disk, then renamed. What a
    writer left that was killed is cleared by the next one. A pipe or a device is written as it is, an object sent.

    Raises:
        OSError: it cannot be written, or the disk is full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> with replacing(path) as file:
        ...     _ = file.write(b"path,label")
        >>> path.read_bytes(), len(list(path.parent.iterdir()))
        (b'path,label', 1)
    """
    if not isinstance(path, Path):
        from mobilenet_hub.host.object_path import replacing_object

        with replacing_object(path) as file:
            yield file
        return
    demand_local(path, "what is written")
    if is_special(path) and not is_folder(path):
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve() if path.is_symlink() else path.absolute()
    clear_left_by_killed(path)
    with _locked_partial(path) as file:
        partial = Path(file.name)
        try:
            yield file
            file.flush()
            if path.exists():
                shutil.copymode(path, partial)
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # Windows renames no open file
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
    flush(path.parent)


@contextmanager
def replacing_folder(folder: Path, keep: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Give an empty folder to fill that takes a folder's place when all is well; else what was there is there still.

    Args:
        folder: its place; the folders above it are made.
        keep: asked of each entry of the folder that is there; what it says yes to is carried over.

    Raises:
        OSError: it cannot be written, flushed or renamed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "folder"
        >>> with replacing_folder(folder) as new:
        ...     (new / "file").touch()
        >>> [file.name for file in folder.iterdir()], len(list(folder.parent.iterdir()))
        (['file'], 1)
    """
    folder = folder.resolve() if folder.is_symlink() else folder.absolute()
    with beside(folder) as work:
        new = work / _NEW
        new.mkdir()
        yield new
        if keep is not None and folder.is_dir():
            for entry in filter(keep, sorted(folder.iterdir())):
                if os.path.lexists(new / entry.name):
                    raise FileExistsError(errno.EEXIST, "in the way, and not from this program", str(entry))
                carry_over(entry, new / entry.name)
        swap_folder(new, folder, work / _OLD)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a hidden folder beside a path, on the same disk, to make something in; it is removed in the end.

    What a process left that was killed is cleared by the next one that works for the same path; a folder that it had
    moved aside goes back to its place.

    Raises:
        OSError: it cannot be made.
    """
    demand_local(path, "what is written")
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_left_by_killed(path)
    while True:
        work = path.with_name(_partial_name(path))
        work.mkdir()
        try:
            descriptor = os.open(work / _LOCK, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            continue  # taken for another's that was killed
        if _lock_if_possible(descriptor) and is_still_there(work / _LOCK, descriptor):
            break
        os.close(descriptor)
    try:
        yield work
    finally:
        if os.name == "nt":
            os.close(descriptor)  # Windows removes no open file
        shutil.rmtree(work, ignore_errors=True)
        if os.name != "nt":
            os.close(descriptor)


def clear_left_by_killed(path: Path) -> None:
    """Remove what writers of a path left that were killed: their locks are free.

    Example:
        >>> clear_left_by_killed(Path("nothing was killed here"))
    """
    name = re.compile(rf"\.{re.escape(path.name[:_NAME_LENGTH])}\.mobilenet-[0-9a-f]{{8}}{re.escape(PARTIAL)}")
    try:
        left = [Path(entry.path) for entry in os.scandir(path.parent) if name.fullmatch(entry.name)]
    except OSError:
        return
    for partial in left:
        with suppress(OSError):
            _clear(partial, path)


def swap_folder(new: Path, folder: Path, aside: Path) -> None:
    """Rename a finished folder to its place, what was there to another; if one of the two fails, neither is done.

    Args:
        new: on the same disk; all that is in it is flushed first.
        folder: its place.
        aside: where what was there goes; on the same disk.

    Raises:
        OSError: it cannot be flushed or renamed; what was there is there again.
    """
    for entry in (*new.rglob("*"), new):
        if (entry.is_file() or entry.is_dir()) and not entry.is_symlink():
            with suppress(PermissionError):  # what is carried over may be nobody's to read
                flush(entry)
    if folder.exists():
        folder.rename(aside)
        try:
            new.rename(folder)
        except BaseException:
            aside.rename(folder)
            raise
    else:
        new.rename(folder)
    flush(folder.absolute().parent)


def carry_over(entry: Path, target: Path) -> None:
    """Have a file or folder in two places, without a copy where the file system can.

    Raises:
        OSError: it cannot be read or written.
    """
    if entry.is_dir() and not entry.is_symlink():
        shutil.copytree(entry, target, symlinks=True, copy_function=_link)
    else:
        _link(str(entry), str(target))


def replace_files(moves: Sequence[tuple[Path, Path]], aside: Path) -> None:
    """Rename finished files to their places, all or none: after a failure what was there is there again.

    Args:
        moves: (file, its place), in this order: what loads the others comes last.
        aside: an empty folder on the same disk for what was there.

    Raises:
        OSError: a file cannot be flushed or renamed.
    """
    for file, _ in moves:
        flush(file)
    undo: list[tuple[Path, Path]] = []
    try:
        for number, (file, place) in enumerate(moves):
            if place.exists():
                _link(str(place), str(aside / str(number)))
                undo.append((aside / str(number), place))
            else:
                undo.append((place, file))
            file.replace(place)
    except BaseException:
        for there, back in reversed(undo):
            with suppress(FileNotFoundError):
                there.replace(back)
        raise
    for folder in {place.parent for _, place in moves}:
        flush(folder)


def _partial_name(path: Path) -> str:
    return f".{path.name[:_NAME_LENGTH]}.mobilenet-{secrets.token_hex(4)}{PARTIAL}"


@contextmanager
def _locked_partial(path: Path) -> Iterator[BinaryIO]:
    while True:
        partial = path.with_name(_partial_name(path))
        with partial.open("x+b") as file:
            if _lock_if_possible(file.fileno()) and is_still_there(partial, file.fileno()):
                yield file
                return


def _lock_if_possible(descriptor: int) -> bool:
    try:
        return try_lock(descriptor)
    except OSError:
        return True  # nobody can lock it here, so nobody clears it either


def _clear(partial: Path, path: Path) -> None:
    is_work = partial.is_dir()
    descriptor = os.open(partial / _LOCK if is_work else partial, os.O_RDWR | (os.O_CREAT if is_work else 0))
    try:
        if not try_lock(descriptor):
            return
        if not is_work:
            partial.unlink()
            return
        if (partial / _OLD).is_dir() and not path.exists():
            (partial / _OLD).rename(path)
        shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(descriptor)


def _link(file: str, copy: str) -> None:
    try:
        os.link(file, copy, follow_symlinks=False)
    except OSError:  # a disk without links
        shutil.copy2(file, copy, follow_symlinks=False)
