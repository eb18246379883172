"""Connections and the end of the server: what uvicorn leaves open is bounded here."""

import asyncio
import json
import signal
import socket
from contextlib import contextmanager
from types import FrameType
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mobilenet_hub.serve.app import App
from mobilenet_hub.serve.limits import KEEP_ALIVE_S, MAX_HEAD_BYTES
from mobilenet_hub.serve.state import State

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_CALL_S = 1.0  # how long clients may still come, to be told that the server ends, before connections are closed
_STUCK_S = 30.0  # a client that takes nothing of its answer for so long has its connection cut
_REST_S = 2.0  # for the rest of a body that was refused
_SPARE_S = 5.0  # beyond the time for a request, for answers to be sent at the end


class Connection(HttpToolsProtocol):
    """An HTTP connection that cannot be held open by a client which is slow to say what it wants."""

    head_timeout_s = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; a client that never says anything has as long as an idle one."""
        super().connection_made(transport)
        self._in_head, self._head_bytes = False, 0
        self._rest_timer: asyncio.TimerHandle | None = None
        self._head_timer: asyncio.TimerHandle | None = self.loop.call_later(KEEP_ALIVE_S, self._cut_off)
        raw = transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT") and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * _STUCK_S))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self._stop_rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the head of a request must be complete in time, and of a sensible size."""
        super().data_received(data)
        if not self._in_head:
            self._stop_timer()
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"the request's line and headers are longer than {MAX_HEAD_BYTES} bytes")
        elif self._head_timer is None or self._head_bytes == len(data):
            self._stop_timer()
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._cut_off)

    def on_message_begin(self) -> None:
        """Begin a request's head."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Hand the request on."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Have the whole of a request."""
        self._stop_rest()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let a client that was refused in the middle of its body see why: closed at once, it would see a reset."""
        if self.cycle.more_body and self._rest_timer is None and not self.transport.is_closing():
            self._rest_timer = self.loop.call_later(_REST_S, self.transport.close)
        super().on_response_complete()

    def _stop_rest(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(400, f"not a valid HTTP request: {msg}")

    def _cut_off(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(408, "the request's headers did not arrive in time")
        elif not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, text: str) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"error": text}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


class GracefulServer(Server):
    """uvicorn's server, with an end that loses nothing.

    At the first SIGTERM or SIGINT the server is no longer ready and refuses new requests, telling clients to close
    their connections; what was accepted is answered; then it returns. A second signal ends the process at once.
    """

    def __init__(self, config: Config, state: State):
        super().__init__(config)
        self._state = state
        self._running: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._running = asyncio.get_running_loop()
        await super().startup(sockets)

    @contextmanager
    def capture_signals(self) -> Any:
        """Handle signals, and leave none to be raised again at the end: the exit status is 0."""
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self._state.draining = True
        if self._running is None:
            self.should_exit = True
        else:
            self._running.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        deadline = asyncio.get_running_loop().time() + _LAST_CALL_S
        self._look(deadline)

    def _look(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= deadline or (not self.server_state.connections and loop.time() > deadline - _LAST_CALL_S / 2):
            self.should_exit = True
        else:
            loop.call_later(0.05, self._look, deadline)


def server_for(app: App, state: State) -> GracefulServer:
    """Return the server of an application."""
    timeout_s = state.limits.timeout_s
    config = Config(
        app,
        http=type("BoundConnection", (Connection,), {"head_timeout_s": timeout_s}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(KEEP_ALIVE_S),
        timeout_graceful_shutdown=int(timeout_s + _SPARE_S),
    )
    return GracefulServer(config, state)
