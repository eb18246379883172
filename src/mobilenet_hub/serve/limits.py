"""What bounds the server, and the answers that it gives: whole ones, and refusals with their reason."""

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEEP_ALIVE_S = 75.0  # longer than the 60 s after which proxies drop an idle connection, so that they drop it, not we
LEAST_BYTES_PER_S = 64 * 1024  # what an upload beyond `timeout_s` must keep up: faster than any phone, slower than none
MAX_HEAD_BYTES = 64 * 1024  # of a request's line and headers together
RETRY_AFTER_S = 1
_NO_MORE_FILES = frozenset([errno.EMFILE, errno.ENFILE])  # of this process, of the system
_BODIES_HELD = 8  # of the largest size that is allowed; of usual size many more

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the server takes on at a time; what is beyond is refused, not kept waiting."""

    queue: int = 64  # images that are accepted and not yet answered
    timeout_s: float = 10.0  # for a request's head, for its body, and from there to the network
    max_body: int = 20_000_000  # bytes of a request

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are held at a time."""
        return _BODIES_HELD * self.max_body


@dataclass(slots=True)
class Answer:
    """What goes back to the client."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A request that is not answered as asked; becomes `{"error": text}` with the status."""

    def __init__(self, status: int, text: str, *, headers: Mapping[str, str] | None = None, more: Any = None):
        super().__init__(text)
        self.status = status
        self.headers = dict(headers or {})
        self.more: dict[str, Any] = more or {}  # stands beside "error"

    def answer(self) -> Answer:
        """Return what the client gets."""
        return json_answer({**self.more, "error": str(self)}, self.status, self.headers)


def busy(text: str) -> Refusal:
    """Return the refusal of what does not fit in now; the client is told to come again.

    Example:
        >>> busy("the queue is full").headers
        {'Retry-After': '1'}
    """
    return Refusal(503, text, headers={"Retry-After": str(RETRY_AFTER_S)})


def lacks_files(error: BaseException) -> bool:
    """Tell whether it happened because no more files can be open: that passes as others are closed.

    Example:
        >>> lacks_files(OSError(errno.EMFILE, "Too many open files")), lacks_files(OSError(errno.ENOSPC, "full"))
        (True, False)
    """
    at: BaseException | None = error
    while at is not None:  # and not only what it was taken for on its way
        if isinstance(at, OSError) and at.errno in _NO_MORE_FILES:
            return True
        at = at.__cause__ or at.__context__
    return False


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a value as a JSON answer; NaN and infinity, which JSON does not know, are an error of ours.

    Example:
        >>> json_answer({"ready": True}).body
        b'{"ready":true}'
    """
    return Answer(_JSON.encode(value).encode("utf-8", "backslashreplace"), status, headers=headers or {})
