"""An HTTP server on loopback that misbehaves as told: slow, cut off, wrong, redirecting, without ranges."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """One answer, honest unless told otherwise."""

    body: bytes = b""
    status: int = 200  # 0: hang up without an answer
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = None
    ranges: bool = True  # honour Range requests (and If-Range)
    cut_after: int | None = None  # bytes of the body after which the connection is dropped
    claimed_length: int | None = None  # a Content-Length that is not the body's
    no_length: bool = False  # HTTP/1.0 style: the end of the connection is the end of the body
    delay_s: float = 0.0  # before the status line
    chunk: int = 1 << 16
    chunk_delay_s: float = 0.0  # before each chunk of the body


@dataclass(frozen=True)
class Request:
    path: str  # with its query
    headers: dict[str, str]


class Server:
    """A running server; `serve` tells it what to answer, `requests` is what it was asked."""

    def __init__(self):
        self.answers: dict[str, list[Answer]] = {}
        self.fallback: Callable[[str], Answer | None] = lambda path: None
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.url = ""

    def serve(self, path: str, *answers: Answer) -> str:
        """Answer a path (without its query) with these in turn, the last for ever; return its URL."""
        self.answers[path] = list(answers)
        return self.url + path

    def next_answer(self, path: str, headers: dict[str, str]) -> Answer:
        bare = path.partition("?")[0]
        with self.lock:
            self.requests.append(Request(path, headers))
            queue = self.answers.get(bare)
            if queue:
                return queue.pop(0) if len(queue) > 1 else queue[0]
        return self.fallback(bare) or Answer(b"nothing here", 404)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    http.block_on_close = False
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=lambda: http.serve_forever(0.01), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def closed_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.next_answer(self.path, headers)
            time.sleep(answer.delay_s)
            with suppress(OSError):
                _send(self, answer, headers)
            self.close_connection = True

        def log_message(self, *_):
            pass

    return Handler


def _send(handler: BaseHTTPRequestHandler, answer: Answer, asked: dict[str, str]) -> None:
    if not answer.status:
        handler.connection.shutdown(socket.SHUT_RDWR)
        return
    body, status, headers = answer.body, answer.status, dict(answer.headers)
    if answer.etag:
        headers["ETag"] = answer.etag
    if status == 200 and answer.ranges and "range" in asked:
        start = int(asked["range"].removeprefix("bytes=").removesuffix("-"))
        if asked.get("if-range", answer.etag) == answer.etag:
            if start >= len(body):
                body, status = b"", 416
            else:
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body, status = body[start:], 206
    if not answer.no_length:
        headers["Content-Length"] = str(len(body) if answer.claimed_length is None else answer.claimed_length)
    handler.send_response(status)
    for name, value in {"Connection": "close", **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    end = len(body) if answer.cut_after is None else min(answer.cut_after, len(body))
    for at in range(0, end, answer.chunk):
        time.sleep(answer.chunk_delay_s)
        handler.wfile.write(body[at : min(at + answer.chunk, end)])
        handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
