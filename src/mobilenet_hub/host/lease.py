"""One writer at a time of a place in an object store, which has no locks: an object that its owner keeps renewing.

Whoever finds one looks for some seconds whether it is renewed. If so it is refused; if not its owner is dead, and the
lease is taken. A writer that only slept takes no harm either: the manifest is written under the condition that it is
what this writer has last written (`ObjectPath.write_if`), so that the second of two notices.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mobilenet_hub.errors import OutputError
from mobilenet_hub.host.object_path import ObjectPath, Place
from mobilenet_hub.host.s3 import ChangedError
from mobilenet_hub.host.stores import NoSuchObjectError, StoreError

RENEWED_S = 4.0
DEAD_S = 14.0  # without being renewed: three times missed
_LOOKED_S = 1.0
_held: set[ObjectPath] = set()  # by this process


@contextmanager
def leased(lock: ObjectPath, place: Place) -> Iterator[None]:
    """Hold the lease of a place for a `with` block; a second holder is refused within some seconds.

    Args:
        lock: the object that stands for it.
        place: what is written, for the error's text.

    Raises:
        OutputError: somebody else holds it.
        StoreError: the store cannot be written.
    """
    token = secrets.token_hex(8)
    if lock in _held:
        raise OutputError(f"this process is writing {place} already; choose another output")
    tag = _take(lock, place, token)
    _held.add(lock)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lock, token, tag, ended), name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        _held.discard(lock)
        ended.set()
        renewing.join()
        with suppress(StoreError):
            if _read(lock).get("token") == token:
                lock.unlink(missing_ok=True)


def _take(lock: ObjectPath, place: Place, token: str) -> str | None:
    tag, owner = _looked_at(lock)
    if owner is not None:
        raise OutputError(f"{owner} is writing {place}; wait for it, or choose another output")
    try:
        return lock.write_if(_content(token, 0), tag)
    except ChangedError:
        raise OutputError(f"another process is writing {place}; wait for it, or choose another output") from None


def is_leased(lock: ObjectPath) -> bool:
    """Tell whether somebody holds a lease; where there is one, this takes as long as seeing it renewed, or not.

    Raises:
        StoreError: the store cannot be read.
    """
    return _looked_at(lock)[1] is not None


def _looked_at(lock: ObjectPath) -> tuple[str | None, object]:
    """Return a lease's tag, and its owner, None where that is dead or there is none."""
    tag, left = lock.tag(), _read(lock)
    if tag is not None and not left:
        raise OutputError(f"{lock} is no lock of this program; move it away, or choose another output")
    since = time.monotonic()
    while tag is not None and not _is_dead(left) and time.monotonic() - since < DEAD_S:
        time.sleep(_LOOKED_S)
        if (now := lock.tag()) != tag and now is not None:
            return now, _read(lock).get("owner", "another process")
        tag = now
    return tag, None


def _renew(lock: ObjectPath, token: str, tag: str | None, ended: threading.Event) -> None:
    """Write the lease again and again; a store that fails for a while costs nothing but being thought dead."""
    beat = 0
    while not ended.wait(RENEWED_S):
        beat += 1
        try:
            tag = lock.write_if(_content(token, beat), tag)
        except ChangedError:
            with suppress(StoreError):
                if _read(lock).get("token") != token:
                    return  # taken by another, who thought us dead: the manifest will tell
                tag = lock.tag()  # it was written, and only the answer was lost
        except StoreError:
            continue


def _content(token: str, beat: int) -> bytes:
    owner = {"host": socket.gethostname(), "process": os.getpid()}
    named = f"{owner['host']} process {owner['process']}"
    return json.dumps({"owner": named, **owner, "token": token, "beat": beat}).encode()


def _read(lock: ObjectPath) -> dict[str, object]:
    try:
        found = json.loads(lock.read_bytes())
    except (NoSuchObjectError, ValueError):
        return {}
    return found if isinstance(found, dict) and "token" in found else {}


def _is_dead(left: dict[str, object]) -> bool:
    """Tell whether the owner was a process of this machine that has ended."""
    process = left.get("process")
    if left.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    if process == os.getpid():
        return True  # of a container before this one, which had the same number: it is not in `_held`
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
