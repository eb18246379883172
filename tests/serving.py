"""A server of our own in a process of its own, and plain ways to ask it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="needs the extra mobilenet-hub[serve]")
pytest.importorskip("starlette", reason="needs the extra mobilenet-hub[serve]")
pytest.importorskip("python_multipart", reason="needs the extra mobilenet-hub[serve]")

CAT = Path(__file__).resolve().parents[1] / "examples" / "cat.jpg"
JPEG = {"Content-Type": "image/jpeg"}
LONG = bool(os.environ.get("SERVE_LONG"))  # at the size that production has, each bound waited for: minutes
READY_S = 120  # a machine under load compiles slowly


class Running:
    """A server that is ready."""

    def __init__(self, process: subprocess.Popen[str], line: str, log: Path):
        self.process, self.line, self._log = process, line, log
        found = re.fullmatch(r"serving (?P<names>.+) on (?P<url>http://\S+)\n", line)
        assert found, line
        self.names, self.url = found["names"].split(", "), found["url"]
        split = urlsplit(self.url)
        self.host, self.port = split.hostname or "", split.port or 0

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Return (status, JSON or bytes, headers by lower-case name)."""
        connection = self.connect()
        try:
            data = json.dumps(body).encode() if isinstance(body, dict | list) else body
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            content = answer.read()
            named = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        return answer.status, json.loads(content) if "json" in named.get("content-type", "") else content, named

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
        return self.ask("POST", path, body, headers)

    def log(self) -> str:
        """Return what it has written on standard error."""
        return self._log.read_text(encoding="utf-8")

    def most_memory(self) -> int:
        """Return the most memory that it has held, in bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running(*options: str, environment: dict[str, str] | None = None, files: int | None = None) -> Iterator[Running]:
    """Start `mobilenet serve` on a free port, with so many files at most; yield it once it is ready, end it."""

    def bound() -> None:
        import resource

        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "mobilenet_hub.cli.main", "serve", "--port", "0", *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **(environment or {})},
                preexec_fn=bound if files is not None else None,
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, log.read_text(encoding="utf-8")
            yield Running(process, line, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(60)
            process.stdout.close()


def form(files: list[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """Return a multipart/form-data body of files, as a browser writes it, and its header."""
    boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def embedded(folder: Path, files: dict[str, bytes]) -> str:
    """Put photos into a folder by their names; return where `embed` wrote their features, for --index."""
    (folder / "photos").mkdir()
    for name, data in files.items():
        (folder / "photos" / name).write_bytes(data)
    words = [sys.executable, "-m", "mobilenet_hub.cli.main", "embed", folder / "photos", "-o", folder / "features"]
    subprocess.run(words, check=True, capture_output=True)
    return str(folder / "features")


def photos(count: int) -> list[bytes]:
    """Return different JPEG files: views of a photo, turned and cut."""
    from io import BytesIO

    from PIL import Image

    found = []
    with Image.open(CAT) as photo:
        for number in range(count):
            view = photo.rotate(7 * number).crop((number, number, photo.width - 2 * number, photo.height - number))
            stream = BytesIO()
            view.save(stream, "JPEG", quality=90)
            found.append(stream.getvalue())
    return found
