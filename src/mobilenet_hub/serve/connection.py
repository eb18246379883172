"""Connections and the end of the server: what uvicorn leaves open is bounded here."""

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from mobilenet_hub.serve.app import App
from mobilenet_hub.serve.exchange import KEY, Exchange
from mobilenet_hub.serve.limits import KEEP_ALIVE_S, LEAST_BYTES_PER_S, MAX_HEAD_BYTES, RETRY_AFTER_S
from mobilenet_hub.serve.state import State

_OFFER = (b"upgrade", b"http2-settings")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_CALL_S = 1.0  # how long clients may still come, to be told that the server ends, before connections are closed
_STUCK_S = 30.0  # a client that takes nothing of its answer for so long has its connection cut
_REST_S = 2.0  # for the rest of a body that was refused
_MOST_FILES = 1 << 16  # that are asked of the system: a connection is one
_SPARE_FILES = 64  # that are open for all else, or will be
_ACCEPTED = 8  # connections at a time: each is a file until it has been refused, and others need some meanwhile
_MOST_WAITING = 2048  # connections that the system holds until they are accepted
_SPARE_S = 5.0  # beyond the time for a request, for answers to be sent at the end


class _NotHTTP(Exception):
    """Raised within the parser, which ends the connection with 400."""


class Connection(HttpToolsProtocol):
    """An HTTP connection that cannot be held open by a client which is slow to say what it wants."""

    head_timeout_s = 10.0
    most_connections = 1000
    at_once: Callable[[Any], bool]  # takes a request whose whole has come, or does not

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; a client that never says anything has as long as an idle one."""
        super().connection_made(transport)
        self._in_head = self._in_message = False
        self._head_bytes = self._trailer_bytes = 0
        self._refused = False
        self._held: tuple[RequestResponseCycle, Any] | None = None  # a request whose rest may have come with its head
        self._without_offer: bytes | None = None  # the head of a request that is to be parsed again
        self._rest_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._taking_timer: asyncio.TimerHandle | None = None
        self._head_timer: asyncio.TimerHandle | None = self.loop.call_later(KEEP_ALIVE_S, self._cut_off)
        if len(self.connections) > self.most_connections:
            later = b"retry-after: %d\r\n" % RETRY_AFTER_S
            self._refuse(503, f"{self.most_connections} connections are open, and no more fit", later)
            self.transport.close()  # at once: it is a file, too
            return
        raw = transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT") and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * _STUCK_S))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self._stop_rest()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the head of a request must be complete in time, and of a sensible size."""
        self._feed(data)
        if self._refused:
            self._stop_timer()
            return
        idle = not self._in_message and (self.cycle is None or self.cycle.response_complete)
        if not self._in_head and not idle:
            self._stop_timer()
            return
        # Blank lines before a request count, too: whoever sends nothing else would keep the connection for ever.
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"the request's line and headers are longer than {MAX_HEAD_BYTES} bytes")
        elif self._head_timer is None or self._head_bytes == len(data):
            self._stop_timer()
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._cut_off)

    def _feed(self, data: bytes) -> None:
        """Parse, and have a task for a request that has not come whole."""
        try:
            self._parse(data)
        finally:
            self._begin_held()

    def _parse(self, data: bytes) -> None:
        """Parse, as uvicorn does; but a request that offers another protocol keeps its body.

        httptools ends a message at the head of such a request, and clients offer HTTP/2 with the first that they send
        (Java's does so unasked, curl with --http2). Without the offer it is parsed again: it may be passed over.
        """
        if self._refused:
            return
        try:
            while data:
                assert self.parser is not None
                try:
                    self.parser.feed_data(data)
                    return
                except HttpParserUpgrade as offer:
                    if self._without_offer is None:
                        return
                    data = self._without_offer + data[offer.args[0] :]
                    self._without_offer = None
                    self.parser = HttpRequestParser(self)
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """Begin a request's head."""
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._head_bytes = self._trailer_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those after a chunked body mean nothing here, and must be few.

        Raises:
            _NotHTTP: they are not.
        """
        if self._in_head:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value)
        if self._trailer_bytes > MAX_HEAD_BYTES:
            raise _NotHTTP

    def on_headers_complete(self) -> None:
        """Hand the request on.

        Raises:
            _NotHTTP: RFC 9112 wants an answer of 400: no host, or several; or it is another version of HTTP.
        """
        self._in_head = False
        assert self.parser is not None
        version, hosts = self.parser.get_http_version(), [name for name, _ in self.headers].count(b"host")
        if version not in ("1.0", "1.1") or hosts > 1 or (version == "1.1" and hosts == 0):
            raise _NotHTTP
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._without_offer = self._head_without_offer()
        else:
            super().on_headers_complete()
            self.scope[KEY] = Exchange(self.cycle)  # type: ignore[typeddict-unknown-key]

    def _head_without_offer(self) -> bytes:
        assert self.parser is not None
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                lines.append(b"connection: " + b", ".join(token for token in tokens if token.lower() not in _OFFER))
            elif name not in _OFFER:
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; the first as it is, which is most often the whole: uvicorn would copy it twice."""
        cycle: Any = self.cycle  # its body is a bytearray for uvicorn
        if not cycle.body and not cycle.response_complete:
            cycle.body = body
            cycle.message_event.set()
            return
        if isinstance(cycle.body, bytes):  # the second part: from here on uvicorn's
            cycle.body = bytearray(cycle.body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Have the whole of a request."""
        if self._without_offer is not None:
            return
        self._in_message, self._head_bytes = False, 0
        self._stop_rest()
        super().on_message_complete()
        if self._held is not None and (self.transport.is_closing() or self.at_once(self._held[0].scope)):
            self._held = None
        self._begin_held()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Keep a request whose head has been parsed until the rest of what has come is."""
        self._held = cycle, app

    def _begin_held(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            super()._start_asgi_task(*held)

    def on_response_complete(self) -> None:
        """Let a client that was refused in the middle of its body see why: closed at once, it would see a reset."""
        refused_early = self._in_message and not self._in_head and self.cycle.response_complete
        if refused_early and self._rest_timer is None and not self.transport.is_closing():
            self._rest_timer = self.loop.call_later(_REST_S, self.transport.close)
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            super()._start_asgi_task(*self.pipeline.pop())
            return
        # As uvicorn does, but for the timer: one for the connection, not one for each request.
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(KEEP_ALIVE_S, self._close_idle)

    def _close_idle(self) -> None:
        self._idle_timer = None
        if self.transport.is_closing() or not self.cycle.response_complete or self._head_timer is not None:
            return  # something is under way, and has its own clock
        left_s = self._idle_since + KEEP_ALIVE_S - self.loop.time()
        if left_s <= 0:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(left_s, self._close_idle)

    def pause_writing(self) -> None:
        """Have more to send than is being taken: a client that is slow to take it is cut off."""
        if self._taking_timer is None:
            limit_s = _STUCK_S + self.transport.get_write_buffer_size() / LEAST_BYTES_PER_S
            self._taking_timer = self.loop.call_later(limit_s, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Have most of it taken, or all of what there is."""
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None
        super().resume_writing()

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

    def _refuse(self, status: int, text: str, more: bytes = b"") -> None:
        if self.transport.is_closing() or self._refused:
            return
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:  # what comes of it has no place any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps({"error": text}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + more + head + body)
        self.transport.write_eof()
        # Closed with bytes unread, it would be reset, and the client might not see why.
        self._rest_timer = self._rest_timer or self.loop.call_later(_REST_S, self.transport.abort)


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
        # asyncio has one number for what waits and for what is accepted at a time.
        for listener in sockets or ():
            listener.listen(_MOST_WAITING)

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


def _open_files() -> int:
    """Return how many files may be open at a time, after asking for as many as one gets without being root."""
    try:
        import resource
    except ImportError:  # Windows
        return 2048
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return max(_SPARE_FILES + 1, min(soft, _MOST_FILES) if soft != resource.RLIM_INFINITY else _MOST_FILES)


def server_for(app: App, state: State) -> GracefulServer:
    """Return the server of an application."""
    timeout_s = state.limits.timeout_s
    config = Config(
        app,
        http=type(
            "BoundConnection",
            (Connection,),
            {
                "head_timeout_s": timeout_s,
                "most_connections": _open_files() - _SPARE_FILES,
                "at_once": staticmethod(app.at_once),
            },
        ),
        backlog=_ACCEPTED,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what a client does wrong, it is told; a line for each would fill disks
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(timeout_s + _SPARE_S),
    )
    return GracefulServer(config, state)
