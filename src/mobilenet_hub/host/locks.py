"""One process at a time: a lock on a file, which the kernel frees when its owner dies.

Whoever gets the lock finds what a killed owner left and may use or clear it. The lock file is removed with the lock;
a waiter that was holding the removed file open notices, and starts again with the new one. On a network file system
the lock is as good as that system's `flock`; between machines that have none, two pulls at once do the work twice.
"""

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mobilenet_hub.errors import DownloadError, OutputError

LIMIT_S = 900.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.5


@contextmanager
def locked(path: Path, limit_s: float = LIMIT_S, done: Callable[[], bool] | None = None) -> Iterator[bool]:
    """Hold the lock of a file for the length of a `with` block; threads of one process exclude each other too.

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
    descriptor = _acquire(path, limit_s, done)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):  # Windows keeps a file that a waiter has open; the last owner removes it
            path.unlink()
        os.close(descriptor)
        with suppress(OSError):
            path.parent.rmdir()


def is_locked(path: Path) -> bool:
    """Tell whether a live process holds the lock of a file.

    Example:
        >>> import tempfile
        >>> is_locked(Path(tempfile.mkdtemp()) / "module.lock")
        False
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _acquire(path: Path, limit_s: float, done: Callable[[], bool] | None) -> int | None:
    give_up_at = time.monotonic() + limit_s
    pause_s = _SHORTEST_PAUSE_S
    while not (done and done()):
        descriptor = _open(path)
        if descriptor is not None:
            if _try_lock(descriptor) and _is_still_there(path, descriptor):
                os.truncate(path, 0)
                os.write(descriptor, f"{socket.gethostname()} process {os.getpid()}".encode())
                return descriptor
            os.close(descriptor)
        if time.monotonic() > give_up_at:
            raise DownloadError(
                f"{_owner(path)} has been working on this module for more than {limit_s:g} s; wait for it or end it, "
                f"then try again (its lock is {path})"
            )
        time.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)
    return None


def _open(path: Path) -> int | None:
    """Open the lock file; None where an owner that finished in this very moment removed its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return None
    except OSError as error:
        if isinstance(error, FileExistsError) and (path.parent.is_dir() or not os.path.lexists(path.parent)):
            return None  # it was there, then not, and perhaps is again
        raise OutputError(
            f"the cache cannot be written: {error}; set MOBILENET_HUB_CACHE to a folder that can"
        ) from None


def _is_still_there(path: Path, descriptor: int) -> bool:
    """Tell whether the path still leads to the open file: its last owner removed the file that it had locked."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    try:
        return path.read_text("utf-8") or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"


if os.name == "nt":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise OutputError(
                f"the cache's file system has no file locks ({error}); set MOBILENET_HUB_CACHE to a folder on a "
                "local disk"
            ) from None
        return True
