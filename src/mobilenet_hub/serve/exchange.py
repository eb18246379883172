"""One request and its answer, past ASGI's messages where the whole is there: a body at once, an answer in one write."""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from mobilenet_hub.serve.limits import Answer

KEY = "mobilenet.exchange"  # in the scope


class Exchange:
    """What a connection knows of one request.

    Uvicorn's own way sends head and body for themselves, each checked again; for the smallest network that was a tenth
    of what an image costs.
    """

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle):
        self._cycle = cycle

    def whole_body(self) -> bytes | None:
        """Return the body if all of it has come, and it has not been asked for yet."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.response_complete:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.waiting_for_100_continue = False
        cycle.message_event.clear()
        return body

    @property
    def is_free(self) -> bool:
        """Whether the client takes its answers: otherwise the next has to wait."""
        return not self._cycle.flow.write_paused

    async def answer(self, answer: Answer, headers: Mapping[str, str]) -> None:
        """Send an answer once the client has taken those before; as `send` does."""
        if not self.is_free and not self._cycle.disconnected:
            await self._cycle.flow.drain()
        self.send(answer, headers)

    def send(self, answer: Answer, headers: Mapping[str, str]) -> None:
        """Send an answer.

        Args:
            answer: its status, body and Content-Type.
            headers: all others.

        Raises:
            RuntimeError: a header with a line break in it.
        """
        cycle: Any = self._cycle  # as uvicorn leaves it untyped
        if cycle.disconnected:
            return
        lines = [f"{name.lower()}: {value}" for name, value in headers.items()]
        if answer.status != 204:
            lines += [f"content-type: {answer.content_type}", f"content-length: {len(answer.body)}"]
        if headers.get("Connection") == "close":
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            lines.append("connection: close")
        head = "\r\n".join(lines).encode("latin-1")
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
            raise RuntimeError("a header with a line break in it")
        usual = _lines(tuple(cycle.default_headers))
        body = b"" if cycle.scope["method"] == "HEAD" else answer.body
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        _write(cycle.transport, b"".join((STATUS_LINE[answer.status], usual, head, b"\r\n\r\n", body)))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        cycle.on_response = _nothing  # it leads to the connection, and that to this


@lru_cache(maxsize=1)
def _lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return what stands in every answer; the date in it changes once a second."""
    return b"".join(b"%s: %s\r\n" % pair for pair in headers)


def _write(transport: Any, data: bytes) -> None:
    """Write at once and without Python's lock, which uvloop would hold while the client that wakes takes its core."""
    done = 0
    if os.name == "posix" and not transport.is_closing() and not transport.get_write_buffer_size():
        with suppress(OSError):  # no room now, or nobody there: the transport knows what to do
            done = os.write(transport.get_extra_info("socket").fileno(), data)
    if done < len(data):
        transport.write(data[done:] if done else data)


def _nothing() -> None:
    """Stand for what was to be called once."""
