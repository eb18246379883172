"""Real object stores on loopback for the tests, and a proxy before one that fails as stores and networks do."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from servers import closed_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}  # fmt: skip
FAULTS = [500, 503, "lost", "after", "cut"]  # of `Faulty`, each of which is tried again


@contextmanager
def process(words, port, **environment):
    """Run a server until the end of the block."""
    started = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        for _ in range(600):
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                break
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert started.poll() is None, "the store has ended"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        started.wait(20)


def moto(**environment):
    """Run moto's S3 until the end of the block; gives its address."""
    port = closed_port()
    return process(["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, **environment)


def client_of(url, bucket):
    """Return boto3's client of a store, which has this bucket."""
    import boto3

    access = {"region_name": "us-east-1", "aws_access_key_id": "k", "aws_secret_access_key": "s"}
    client = boto3.client("s3", endpoint_url=url, **access)
    client.create_bucket(Bucket=bucket)
    return client


@contextmanager
def before(store, monkeypatch, attempts):
    """Put a proxy before a store, which all of this process then speak to."""
    faulty = Faulty(store)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": faulty.url, "AWS_MAX_ATTEMPTS": str(attempts)}.items():
        monkeypatch.setenv(name, value)
    try:
        yield faulty
    finally:
        faulty.shutdown()
        faulty.server_close()


class Faulty(ThreadingHTTPServer):
    """A proxy before a store; `rule(method, path, number)` says what becomes of a request.

    None: it is passed on. A number, or a number and a code: that status, and nothing is passed on. "lost": the
    connection breaks before an answer. "after": the store does it, and the answer is lost. "cut": half of the answer's
    body comes. "hang": it is taken and never answered. "stall": as "cut", and the connection stays open.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store.removeprefix("http://")
        self.rule = lambda method, path, number: None
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Faulty  # type: ignore[assignment]

    def log_message(self, format, *_):
        pass

    def _do(self):
        body = self._body()
        self.server.requests.append((self.command, self.path))
        fault = self.server.rule(self.command, self.path, len(self.server.requests))
        if isinstance(fault, int):
            fault = fault, {503: "SlowDown", 500: "InternalError", 403: "AccessDenied"}[fault]
        if isinstance(fault, tuple):
            status, code = fault
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self._answer(status, [("Content-Type", "application/xml")], text, len(text))
        elif fault == "lost":
            self._break()
        elif fault == "hang":
            self._wait()
        else:
            connection = http.client.HTTPConnection(self.server.store, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
            connection.request(self.command, self.path, body, headers)
            got = connection.getresponse()
            data = got.read()
            length = int(got.headers.get("Content-Length") or len(data))
            connection.close()
            if fault == "after":
                self._break()
                return
            self._answer(
                got.status, got.getheaders(), data[: len(data) // 2] if fault in ("cut", "stall") else data, length
            )
            if fault == "stall":
                self._wait()
            elif fault == "cut":
                self._break()

    def _body(self):
        if self.headers.get("Expect", "").lower() == "100-continue":
            pass  # answered by the base class
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status, headers, data, length):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
            self.wfile.flush()

    def _wait(self):
        """Do nothing until the client has had enough."""
        self.close_connection = True
        with suppress(OSError):
            while self.connection.recv(1 << 16):
                pass

    def _break(self):
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _do
