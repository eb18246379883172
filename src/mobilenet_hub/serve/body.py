"""Bodies of requests: read within bounds, unpacked, taken apart into pictures, JSON and arrays."""

import asyncio
import base64
import binascii
import json
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping
from threading import Lock
from typing import Any, NoReturn
from urllib.parse import unquote

from mobilenet_hub.serve.limits import LEAST_BYTES_PER_S, Limits, Refusal, busy

_MAX_FIELDS = 1000  # of a form, beside its files: a browser sends a handful
_MAX_JSON_CONTAINERS = 1 << 20  # lists and objects: twenty 224 x 224 images as nested lists
_LARGE_JSON = 1 << 20  # bytes from which only one is parsed at a time: parsed, it takes up to twenty times as much
_large_json = Lock()
_NESTED = "lists or objects are nested too deeply"


class Gone(Exception):
    """The client has hung up."""


class Bodies:
    """The bodies that are held at a time, bounded in bytes."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.held = 0

    async def read(
        self,
        receive: Callable[[], Awaitable[Any]],
        headers: Mapping[str, str],
        whole: Callable[[], bytes | None],
    ) -> bytes:
        """Read a request's body; the bytes count as held until `release` gives them back.

        Args:
            receive: waits for the next part, as ASGI has it.
            headers: of the request.
            whole: the body, if all of it has come already: then there is nothing to wait for, and no clock to set.

        Raises:
            Refusal: 411, 413: no length, too long; 408: too slow; 503: no room.
            Gone: the client has hung up.
        """
        body = self.take(headers, whole)
        if body is not None:
            return body
        parts: list[bytes] = []
        size = 0
        limit_s = self.limits.timeout_s
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            async with asyncio.timeout(limit_s) as clock:
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    part, more = message.get("body", b""), message.get("more_body", False)
                    size += len(part)
                    self.held += len(part)
                    parts.append(part)
                    self._check_room(size, self.held)
                    if more:
                        clock.reschedule(start + limit_s + size / LEAST_BYTES_PER_S)
        except BaseException as error:
            self.release(size)
            if isinstance(error, TimeoutError):
                raise Refusal(
                    408,
                    f"the body did not arrive in time: {size} bytes after {loop.time() - start:.0f} s; send it at once",
                    headers={"Connection": "close"},
                ) from None
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take(self, headers: Mapping[str, str], whole: Callable[[], bytes | None]) -> bytes | None:
        """Read a body that has come already, as `read` does; None: it has not.

        Raises:
            Refusal: 411, 413, 503: as `read` does.
        """
        self._check_length(headers)
        body = whole()
        if body is not None:
            self._check_room(len(body), self.held + len(body))
            self.held += len(body)
        return body

    def release(self, size: int) -> None:
        """Give back what a body held."""
        self.held -= size

    def _check_length(self, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length")
        if length is None and "transfer-encoding" not in headers:
            raise Refusal(411, "the request has no Content-Length; send the body with its length, or chunked")
        if length is not None and int(length) > self.limits.max_body:  # digits: the parser let nothing else through
            raise self._too_long(f"{length} bytes")
        if self.held + int(length or 0) > self.limits.held_bytes:
            raise busy("the server holds as many bytes of requests as it may; try again")

    def _check_room(self, size: int, held: int) -> None:
        if size > self.limits.max_body:
            raise self._too_long(f"more than {self.limits.max_body} bytes")
        if held > self.limits.held_bytes:
            raise busy("the server holds as many bytes of requests as it may; try again")

    def _too_long(self, received: str) -> Refusal:
        return Refusal(
            413,
            f"the body has {received}, and the limit is {self.limits.max_body}: send less at a time, or start the "
            "server with a larger --max-body",
        )


def media_type(headers: Mapping[str, str]) -> str:
    """Return a request's Content-Type without its parameters, in lower case; "" where there is none.

    Example:
        >>> media_type({"content-type": "Image/JPEG; name=cat"})
        'image/jpeg'
    """
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def unpacked(body: bytes, encoding: str, max_size: int) -> bytes:
    """Return a body as it was before its Content-Encoding, never more than `max_size` bytes.

    Raises:
        Refusal: 415: an encoding that is not known; 400: damaged; 413: too much comes out.

    Example:
        >>> unpacked(zlib.compress(b"cat"), "deflate", 10)
        b'cat'
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refusal(415, f"Content-Encoding {encoding[:40]!r} is not known; send gzip, deflate or plain")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # with either header
    try:
        data = inflater.decompress(body, max_size + 1)
    except zlib.error as error:
        raise Refusal(400, f"the body is not whole {encoding} data ({error})") from None
    if len(data) > max_size:
        raise Refusal(413, f"unpacked, the body has more than the limit of {max_size} bytes")
    if not inflater.eof:
        raise Refusal(400, f"the body ends in the middle of its {encoding} data")
    return data


def multipart_files(body: bytes, content_type: str, most: int) -> list[tuple[str, bytes]]:
    """Return the files of a multipart/form-data body as (name, bytes); other fields are left alone.

    Raises:
        Refusal: 400: not whole, or without a file; 413: more than `most` files, or very many fields.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refusal(400, "multipart/form-data without a boundary in its Content-Type")
    form = _Form(body, most)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.part_begin,
                "on_part_data": form.part_data,
                "on_part_end": form.part_end,
                "on_header_field": form.header_field,
                "on_header_value": form.header_value,
                "on_header_end": form.header_end,
                "on_end": form.end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"the body is not multipart/form-data as its Content-Type says ({error})") from None
    if not form.ended:
        raise Refusal(400, "the multipart body ends before its last boundary")
    if not form.files:
        raise Refusal(400, "the form has no file: send pictures as files, e.g. curl -F file=@cat.jpg")
    return form.files


class _Form:
    """What the parser of a multipart body finds there: the files, as (name, bytes)."""

    def __init__(self, body: bytes, most: int):
        self.files: list[tuple[str, bytes]] = []
        self.ended = False
        self._body, self._most, self._fields = body, most, 0
        self._name, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._spans: list[tuple[int, int]] = []

    def part_begin(self) -> None:
        self._headers.clear()
        self._spans.clear()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def part_data(self, _: bytes, start: int, end: int) -> None:
        self._spans.append((start, end))

    def part_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        # Clients of before RFC 7578 write names beyond ASCII as filename*= alone.
        disposition = self._headers.get(b"content-disposition", b"").replace(b"filename*=", b"filename-star=")
        options = parse_options_header(disposition)[1]
        star = options.get(b"filename-star")
        kind = self._headers.get(b"content-type", b"").lower()
        is_file = b"filename" in options or star is not None
        if not is_file and not kind.startswith((b"image/", b"application/octet-stream")):
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise Refusal(413, f"more than {_MAX_FIELDS} fields that are no files in one form")
            return
        name = (options.get(b"filename") or options.get(b"name") or b"").decode("utf-8", "replace")
        if star is not None:
            name = unquote(star.decode("ascii", "replace").rpartition("'")[2])
        data = b"".join(self._body[start:end] for start, end in self._spans)
        self.files.append((name or f"image {len(self.files)}", data))
        if len(self.files) > self._most:
            raise Refusal(
                413, f"more than {self._most} files in one request; send fewer, or start with a larger --queue"
            )

    def end(self) -> None:
        self.ended = True


def parse_json(body: bytes) -> Any:
    """Return a body's JSON value; NaN and infinity, which are none of JSON's, are refused.

    Raises:
        Refusal: 400: no JSON, or nested too deeply; 413: more lists and objects than memory is there for.

    Example:
        >>> parse_json(b'{"instances": [1.5]}')
        {'instances': [1.5]}
    """
    if body.count(b"[") + body.count(b"{") > _MAX_JSON_CONTAINERS:
        raise Refusal(
            413,
            f"more than {_MAX_JSON_CONTAINERS} lists and objects in one request: send pictures as base64, or tensors "
            "in the binary form of the Open Inference Protocol",
        )
    if len(body) < _LARGE_JSON:
        return _parsed(body)
    with _large_json:
        return _parsed(body)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_not_json, object_pairs_hook=_object)
    except RecursionError:
        raise Refusal(400, f"the body cannot be read as JSON: {_NESTED}") from None
    except ValueError as error:  # also text that is no UTF-8, and numbers of thousands of digits
        raise Refusal(400, f"the body cannot be read as JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a name that stands there twice nobody can say which is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{name[:80]!r} stands twice in one object")
            seen.add(name)
    return found


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def json_object(body: bytes) -> dict[str, Any]:
    """Return a body's JSON object.

    Raises:
        Refusal: 400, 413: as for `parse_json`, or another JSON value.
    """
    value = parse_json(body)
    if not isinstance(value, dict):
        raise Refusal(400, f"the body must be a JSON object, not {kind_of(value)}")
    return value


def kind_of(value: Any) -> str:
    """Say what a JSON value is.

    Example:
        >>> kind_of([1]), kind_of(None)
        ('a list', 'null')
    """
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number"}
    return kinds.get(type(value), "a number")


_DATA_URL = re.compile(r"data:[^,]{0,200};base64,")
_SPACE = re.compile(r"\s+")
_STANDARD = str.maketrans("-_", "+/")


def picture_of_base64(text: Any, which: str) -> bytes:
    """Return the bytes of base64 text: either alphabet, padded or not, with line breaks, or as a data: URL.

    Raises:
        Refusal: 400: it is none; `which` names it.

    Example:
        >>> picture_of_base64("data:image/png;base64,Y2F0", "instance 0")
        b'cat'
    """
    if not isinstance(text, str):
        raise Refusal(400, f"{which}: base64 text is needed, not {kind_of(text)}")
    start = _DATA_URL.match(text)
    plain = _SPACE.sub("", text[start.end() :] if start else text).translate(_STANDARD).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"{which}: not base64 ({error})") from None
