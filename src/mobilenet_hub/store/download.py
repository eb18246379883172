"""One file over HTTP into one file on disk, whole or not at all.

Redirects are followed, but never from https to http. What fails for a moment is tried again after a growing pause;
what was received is kept and resumed with a Range request, under If-Range where the server named the version, also
after the process was killed. Lengths and checksums that the server states are held against what arrived.
"""

import base64
import hashlib
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from socket import gaierror
from typing import Any, NoReturn
from urllib.parse import urlsplit

from mobilenet_hub.errors import DownloadError, OutputError
from mobilenet_hub.host.files import sha256_of
from mobilenet_hub.host.progress import OnProgress, Stage, silent
from mobilenet_hub.version import __version__

_CHUNK = 1 << 16
_OK, _PARTIAL, _RANGE_NOT_SATISFIABLE = 200, 206, 416
_WORTH_ANOTHER_TRY = frozenset([408, 425, 429, 500, 502, 503, 504])


@dataclass(frozen=True)
class Policy:
    """How patient a download is."""

    timeout_s: float = 20.0  # without a connection, or an answer, or `least_bytes_per_s` on average over this time
    least_bytes_per_s: float = 1000.0
    attempts: int = 5  # in a row without progress
    unanswered_attempts: int = 3  # in a row, of a server that does not answer at all
    progress_bytes: int = 1 << 16  # what counts as progress
    first_pause_s: float = 0.5  # doubled after each failure, and shortened at random
    longest_pause_s: float = 20.0
    max_bytes: int = 1 << 30


PATIENT = Policy()


@dataclass(frozen=True)
class Downloaded:
    """What a download brought: the address that it came from in the end, and the file's size and checksum."""

    url: str
    size: int
    sha256: str


class UnreachableError(DownloadError):
    """A server that did not answer, however often it was asked."""


class _Interrupted(Exception):
    """A failure that may pass."""

    def __init__(self, reason: str, wait_s: float = 0.0):
        super().__init__(reason)
        self.wait_s = wait_s  # at least; as the server asked


class _Unanswered(_Interrupted):
    """A request without an answer."""


def download(url: str, target: Path, *, on_progress: OnProgress = silent, policy: Policy = PATIENT) -> Downloaded:
    """Fetch a file; what an earlier attempt left beside the target is resumed.

    Args:
        url: http or https address.
        target: the file to write; `<target>.part` and `<target>.part.json` hold what is not yet complete.
        on_progress: told how many bytes are there.
        policy: timeouts, attempts, pauses, the largest size.

    Raises:
        DownloadError: it failed, with the address and the reason.
        OutputError: the file cannot be written.

    Example:
        >>> download("https://tfhub.dev/...?tf-hub-format=compressed", Path("module.tar.gz"))  # doctest: +SKIP
        Downloaded(url='https://storage.googleapis.com/...', size=19593452, sha256='...')
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is not an http or https address")
    part = _Part(target)
    failures = unanswered = 0
    while True:
        before = part.size
        try:
            final_url = _attempt(url, part, on_progress, policy)
            return Downloaded(final_url, target.stat().st_size, part.finish())
        except _Interrupted as stop:
            failures = 1 if part.size - before >= policy.progress_bytes else failures + 1
            unanswered = unanswered + 1 if isinstance(stop, _Unanswered) else 0
            if unanswered >= min(policy.unanswered_attempts, policy.attempts):
                raise UnreachableError(f"{url}: {stop}; gave up after {failures} attempts") from None
            if failures >= policy.attempts:
                raise DownloadError(f"{url}: {stop}; gave up after {failures} attempts") from None
            pause_s = min(policy.first_pause_s * 2 ** (failures - 1), policy.longest_pause_s)
            time.sleep(max(pause_s * random.uniform(0.5, 1.0), min(stop.wait_s, policy.longest_pause_s)))
        except DownloadError:
            raise
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error}") from None


class _Part:
    """The part of a file that has arrived, and beside it which version of which address it is a part of."""

    def __init__(self, target: Path):
        self.target = target
        self.file = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def version(self, url: str) -> dict[str, Any]:
        """Return what is known about the version that the part belongs to; empty: none of it can be used."""
        try:
            noted = json.loads(self.note.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        usable = isinstance(noted, dict) and noted.get("url") == url and isinstance(noted.get("length"), int)
        return noted if usable and 0 < self.size < noted["length"] else {}

    def start(self, version: Mapping[str, Any]) -> None:
        self.file.unlink(missing_ok=True)
        self.note.write_text(json.dumps(version), "utf-8")

    def finish(self) -> str:
        """Give the complete file its name and return its SHA-256."""
        self.note.unlink(missing_ok=True)
        return sha256_of(self.target)


def _attempt(url: str, part: _Part, on_progress: OnProgress, policy: Policy) -> str:
    """Ask for the file, or the rest of it, and receive it; return the address that answered."""
    version = part.version(url)
    response = _request(url, _headers(version, part.size), policy)
    if response is None:  # the range that was asked for does not exist: the file is another one now
        part.start({})
        raise _Interrupted("the server has no such range of the file")
    with closing(response):
        _refuse_html(url, response)
        have = part.size if _continues(response, part.size, version) else 0
        total = _total(response, have)
        if total is not None and total > policy.max_bytes:
            raise DownloadError(f"{url} has {total} bytes, more than the {policy.max_bytes} that a module may have")
        if not have:
            part.start({"url": url, "length": total, "validator": _validator(response.headers)})
        checksums = _checksums(response.headers)
        final_url = response.geturl()
        _receive(response, part, have, total, partial(on_progress, _stage(url)), policy)
    _check(url, part.file, checksums)
    part.file.replace(part.target)
    return final_url


def _headers(version: Mapping[str, Any], have: int) -> dict[str, str]:
    headers = {"User-Agent": f"mobilenet-hub/{__version__}", "Accept-Encoding": "identity"}
    if version:
        headers["Range"] = f"bytes={have}-"
        if version.get("validator"):
            headers["If-Range"] = str(version["validator"])
    return headers


def _request(url: str, headers: dict[str, str], policy: Policy) -> HTTPResponse | None:
    """Open the address; None where the server says that the range does not exist."""
    opener = urllib.request.build_opener(_Redirects)
    try:
        response: HTTPResponse = opener.open(urllib.request.Request(url, headers=headers), timeout=policy.timeout_s)
    except urllib.error.HTTPError as error:
        with closing(error):
            if error.code == _RANGE_NOT_SATISFIABLE and "Range" in headers:
                return None
            _refuse_status(url, error)
    except urllib.error.URLError as error:
        if isinstance(error.reason, gaierror):
            raise UnreachableError(f"{url}: the server's name is not known here ({error.reason})") from None
        if isinstance(error.reason, str) or "CERTIFICATE" in str(error.reason):
            raise DownloadError(f"{url}: {error.reason}") from None
        raise _Unanswered(f"no connection ({_reason(error.reason)})") from None
    except DownloadError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise _Unanswered(f"no valid answer ({_reason(error)})") from None
    if response.status not in (_OK, _PARTIAL):
        raise DownloadError(f"{url}: the server answered {response.status} {response.reason}, not a file")
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, a few, to http and https only, and never from https to http."""

    max_redirections = 8

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old, new) == ("https", "http"):
            fp.close()
            raise DownloadError(f"{req.full_url} redirects to {newurl}, which is not safe to follow")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_status(url: str, error: urllib.error.HTTPError) -> NoReturn:
    reason = " ".join(str(error.reason).split())
    if error.code in _WORTH_ANOTHER_TRY:
        wait = error.headers.get("Retry-After", "") if error.headers else ""
        raise _Interrupted(f"the server answered {error.code} {reason}", float(wait) if wait.isdecimal() else 0.0)
    if 300 <= error.code < 400:
        raise DownloadError(f"{url} redirects in a circle or to nowhere ({error.code})")
    raise DownloadError(f"{url}: the server answered {error.code} {reason}")


def _refuse_html(url: str, response: HTTPResponse) -> None:
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise DownloadError(f"{url}: the server answered with a web page ({kind}) in the place of an archive")


def _continues(response: HTTPResponse, have: int, version: Mapping[str, Any]) -> bool:
    """Tell whether the answer is the rest of the very file that the part belongs to."""
    if response.status != _PARTIAL:
        return False
    expected = f"bytes {have}-{version['length'] - 1}/{version['length']}" if version else None
    if response.headers.get("Content-Range", "").strip().lower() != expected:
        raise _Interrupted("the server answered with another range than the one asked for")
    return True


def _total(response: HTTPResponse, have: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return have + int(length) if length.isdecimal() else None


def _validator(headers: HTTPMessage) -> str | None:
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _receive(
    response: HTTPResponse,
    part: _Part,
    have: int,
    total: int | None,
    report: Callable[[int, int | None], object],
    policy: Policy,
) -> None:
    """Append the answer's body to the part; an end before its time, or a standstill, counts as an interruption."""
    done, window_start, window_bytes = have, time.monotonic(), 0
    report(done, total)
    with part.file.open("ab") as file:
        while chunk := _read(response, done, total):
            file.write(chunk)
            done += len(chunk)
            report(done, total)
            if done > policy.max_bytes:
                raise DownloadError(
                    f"{response.geturl()} sends more than the {policy.max_bytes} bytes that a module may have"
                )
            window_bytes += len(chunk)
            if (window_s := time.monotonic() - window_start) > policy.timeout_s:
                if window_bytes < policy.least_bytes_per_s * window_s:
                    raise _Interrupted(f"only {window_bytes} bytes arrived in {window_s:.0f} s")
                window_start, window_bytes = time.monotonic(), 0
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise _Interrupted(f"the connection ended after {done} of {total} bytes")


def _read(response: HTTPResponse, done: int, total: int | None) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        of = f" of {total}" if total is not None else ""
        raise _Interrupted(f"the connection broke after {done}{of} bytes ({_reason(error)})") from None


def _stage(url: str) -> Stage:
    return Stage(urlsplit(url).path.rpartition("/google/")[2] or url, "B")


def _checksums(headers: HTTPMessage) -> dict[str, bytes]:
    """Return the checksums of the whole file that an answer states: algorithm -> digest.

    Google Storage's x-goog-hash ("md5=<base64>"), Content-MD5, RFC 3230's Digest ("sha-256=<base64>") and RFC 9530's
    Repr-Digest ("sha-256=:<base64>:").
    """
    stated: dict[str, bytes] = {}
    fields = ",".join(filter(None, (headers.get(name) for name in ("x-goog-hash", "Digest", "Repr-Digest"))))
    if md5 := headers.get("Content-MD5"):
        fields += f",md5={md5}"
    for field in fields.split(","):
        name, _, value = field.strip().partition("=")
        algorithm = name.lower().replace("-", "")
        if algorithm in ("md5", "sha256", "sha512"):
            with suppress(ValueError):
                stated[algorithm] = base64.b64decode(value.strip().strip(":"), validate=True)
    return stated


def _check(url: str, file: Path, checksums: Mapping[str, bytes]) -> None:
    for algorithm, stated in checksums.items():
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, lambda a=algorithm: hashlib.new(a, usedforsecurity=False)).digest()
        if actual != stated:
            file.unlink()
            raise DownloadError(
                f"{url}: what arrived has the {algorithm} {actual.hex()}, but the server states {stated.hex()}"
            )


def _reason(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
