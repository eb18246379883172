"""One process at a time: a lock on a file, which the kernel frees when its owner dies.

Whoever gets the lock finds what a killed owner left and may use or clear it. The lock file is removed with the lock;
a waiter that was holding the removed file open notices, and starts again with the new one. On a network file system
the lock is as good as that system's `flock`; between machines that have none, two pulls at once do the work twice.
"""

import os
import random
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenet_hub.errors import DownloadError, OutputError
from mobilenet_hub.host.stores import demand_local

if TYPE_CHECKING:
    from mobilenet_hub.host.object_path import Place

LIMIT_S = 900.0
LOCK_FILE = ".lock"  # in a folder that one process at a time writes
_OWNER = re.compile(rb".* process \d+")
_LONGEST = 1024  # bytes of an owner's name
_AT_ONCE_S = 0.2  # for an owner that is about to end
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.5


class _BusyError(Exception):
    """Another process holds the lock; says which."""


class _NoLocksError(Exception):
    """The file system has no locks."""


@contextmanager
def locked(path: Path, limit_s: float = LIMIT_S, done: Callable[[], bool] | None = None) -> Iterator[bool]:
    """Hold the lock of a module in the cache for a `with` block; threads of one process exclude each other too.

    Args:
        path: the lock file; its folder is made where it is missing, and removed in the end where it is empty.
        limit_s: how long to wait for another owner, in seconds.
        done: asked while waiting; True ends the wait, because another owner has done the work.

    Yields:
        Whether the lock is held; False only where `done` said so.

    Raises:
        DownloadError: another process still holds the lock after `limit_s`; names it.
        OutputError: the lock file cannot be made.

    Example:
        >>> import tempfile
        >>> with locked(Path(tempfile.mkdtemp()) / "module.lock") as held:
        ...     held
        True
    """
    try:
        descriptor = _acquire(path, limit_s, done)
    except _BusyError as owner:
        raise DownloadError(
            f"{owner} has been working on this module for more than {limit_s:g} s; wait for it or end it, "
            f"then try again (its lock is {path})"
        ) from None
    except _NoLocksError as error:
        raise OutputError(
            f"the cache's file system has no file locks ({error}); set MOBILENET_HUB_CACHE to a folder on a local disk"
        ) from None
    except OSError as error:
        raise OutputError(
            f"the cache cannot be written: {error}; set MOBILENET_HUB_CACHE to a folder that can"
        ) from None
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        _release(path, descriptor)


@contextmanager
def claimed(lock: "Place", place: "Place") -> Iterator[None]:
    """Hold a place that one process at a time writes, for a `with` block; a second one is refused at once.

    A file system without locks is written without one: there is no other way to write there. An object store has
    leases (lease.py).

    Args:
        lock: the lock file; in the place, or beside it.
        place: what is written, for the error's text.

    Raises:
        OutputError: another process is writing there, or the user has a file of that name.
        OSError: the lock file cannot be made.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with claimed(folder / LOCK_FILE, folder):
        ...     (folder / LOCK_FILE).exists()
        True
    """
    if not isinstance(lock, Path):
        from mobilenet_hub.host.lease import leased

        with leased(lock, place):
            yield
        return
    _refuse_foreign(lock)
    try:
        descriptor = _acquire(lock, _AT_ONCE_S, None)
    except _BusyError:
        raise OutputError(f"another process is writing {place}; wait for it, or choose another output") from None
    except _NoLocksError:
        lock.unlink(missing_ok=True)
        yield
        return
    assert descriptor is not None
    try:
        yield
    finally:
        _release(lock, descriptor)


def _refuse_foreign(lock: Path) -> None:
    """Refuse a file that names no owner of a lock: it would be overwritten and removed."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError), lock.open("rb") as file:
        if (left := file.read(_LONGEST)) and not _OWNER.fullmatch(left):
            raise OutputError(f"{lock} is no lock of this program; move it away, or choose another output")


def is_locked(path: "Place") -> bool:
    """Tell whether a live process holds the lock of a file.

    Example:
        >>> import tempfile
        >>> is_locked(Path(tempfile.mkdtemp()) / "module.lock")
        False
    """
    if not isinstance(path, Path):
        from mobilenet_hub.host.lease import is_leased

        return is_leased(path)
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not try_lock(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def is_still_there(path: Path, descriptor: int) -> bool:
    """Tell whether the path still leads to the open file: its last owner removed the file that it had locked."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def try_lock(descriptor: int) -> bool:
    """Lock an open file if nobody else has; its closing, and its owner's death, free it.

    Raises:
        OSError: the file system has no locks.
    """
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        except OSError:
            return False
        return True
    try:
        import fcntl
    except ImportError:
        raise OSError("this system has no fcntl") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _acquire(path: Path, limit_s: float, done: Callable[[], bool] | None) -> int | None:
    give_up_at = time.monotonic() + limit_s
    pause_s = _SHORTEST_PAUSE_S
    while not (done and done()):
        descriptor = _open(path)
        if descriptor is not None:
            if _locks(descriptor) and is_still_there(path, descriptor):
                os.truncate(path, 0)
                os.write(descriptor, f"{socket.gethostname()} process {os.getpid()}".encode())
                return descriptor
            os.close(descriptor)
        if time.monotonic() > give_up_at:
            raise _BusyError(_owner(path))
        time.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)
    return None


def _release(path: Path, descriptor: int) -> None:
    try:
        with suppress(OSError):  # Windows keeps a file that a waiter has open; the last owner removes it
            path.unlink()
    finally:
        os.close(descriptor)
    with suppress(OSError):
        path.parent.rmdir()


def _locks(descriptor: int) -> bool:
    try:
        return try_lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise _NoLocksError(str(error)) from None


def _open(path: Path) -> int | None:
    """Open the lock file; None where an owner that finished in this very moment removed its folder."""
    demand_local(path, "what is written")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return None
    except FileExistsError:
        with suppress(FileNotFoundError):  # looked at once: it was there, then not, and perhaps is again
            if not stat.S_ISDIR(os.lstat(path.parent).st_mode) and not path.parent.is_dir():
                raise
        return None


def _owner(path: Path) -> str:
    try:
        return path.read_text("utf-8") or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"
