"""The ASGI application: addresses to functions, who may ask, ids, log lines, and every error as JSON."""

import asyncio
import hmac
import json
import re
import secrets
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from mobilenet_hub.errors import MobileNetHubError
from mobilenet_hub.serve import metrics, open_inference, own, tensorflow_serving
from mobilenet_hub.serve.batcher import Work
from mobilenet_hub.serve.body import Gone
from mobilenet_hub.serve.exchange import KEY, Exchange
from mobilenet_hub.serve.limits import RETRY_AFTER_S, Answer, Refusal, busy, json_answer, lacks_files
from mobilenet_hub.serve.openapi import describe
from mobilenet_hub.serve.state import Call, State

Scope = MutableMapping[str, Any]
Handler = Callable[[Call], Awaitable[Answer]]
Check = Callable[[Mapping[str, str]], None]  # of a request's headers; raises a Refusal

_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
# An id for whoever sends none: of this server, and counted. Random bytes for each would cost the event loop its turn.
_STARTED, _numbers = secrets.token_hex(4), count()
_OPEN = frozenset(
    ["/", "/v2/health/live", "/v2/health/ready"]
)  # without a token: they tell nothing, and probes have none
_ALLOWED_HEADERS = ("Authorization", "Content-Type", "Content-Encoding", open_inference.HEADER_LENGTH, "X-Request-Id")
_ANSWERED_WHILE_DRAINING = frozenset(["GET", "HEAD", "OPTIONS"])


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask."""

    token: str | None = None
    origins: tuple[str, ...] = ()  # of pages elsewhere that may; "*": all


class App:
    """The application that uvicorn runs."""

    def __init__(self, state: State, access: Access, *, log_json: bool = False):
        self.state, self._access, self._log_json = state, access, log_json
        self._router = Router([], redirect_slashes=False)
        self._exact: dict[tuple[str, str], _Endpoint] = {}  # what needs no pattern is found at once
        for entry in routes(state):
            self.add(*entry)
        self._at_once: dict[tuple[str, str], Callable[[Call], Work | None]] = {
            ("POST", "/classify"): own.classify_one,
            ("POST", "/embed"): own.embed_one,
        }

    def add(self, path: str, method: str, handler: Handler, check: Check | None = None) -> None:
        """Add an address, and what is asked first of whoever comes there."""
        endpoint = _Endpoint(self.state, path, handler, check)
        self._router.routes.append(Route(path, endpoint, methods=[method]))
        if "{" not in path:
            self._exact[method, path] = endpoint

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        exchange: Exchange = scope[KEY]
        request = _Request(scope["headers"])
        scope["app"], scope["mobilenet"] = self, request  # "app": the router then raises, for us to answer
        try:
            answer = self._preflight(scope, request.headers) or await self._answered(scope, request, receive)
        except Gone:
            self._note(scope, request, 499)  # nginx's number for a client that has gone
            return
        finally:
            # Each leads to the other: without this, a body would stay until the next collection of garbage.
            del scope[KEY], scope["mobilenet"]
        await exchange.answer(answer, self._head(request, answer))
        self._note(scope, request, answer.status)

    def at_once(self, scope: Scope) -> bool:
        """Take a request whose whole has come if it needs nothing but the network; tell whether it was one.

        A task of asyncio's and the messages of ASGI were a twentieth of what an image of the smallest network costs.
        Nothing is raised. What was not taken goes the usual way.
        """
        endpoint, exchange = scope["path"], scope[KEY]
        work_of = self._at_once.get((scope["method"], endpoint))
        if work_of is None or not exchange.is_free:
            return False
        request = _Request(scope["headers"])
        request.endpoint = endpoint
        call = Call(self.state, scope["method"], {}, scope["query_string"], request.headers, None, exchange)
        request.call = call

        def end(answer: Answer) -> None:
            del scope[KEY]  # as above
            call.close()
            try:
                exchange.send(answer, self._head(request, answer))
            except RuntimeError as error:
                answer = self._failed(scope, request, error)
                exchange.send(answer, {})
            self._note(scope, request, answer.status)

        def done(work: Work) -> None:
            try:
                answer = self.state.settled(work)
            except Exception as error:
                answer = self._failed(scope, request, error)
            end(answer)

        try:
            self._admit(scope, request)
            work = work_of(call) if call.is_one_picture else None
            picture = call.take() if work is not None else None
            if work is None or picture is None:
                return False
            call.images = 1
            self.state.begin(work, picture, done)
        except Exception as error:  # answered when the connection has parsed what came
            asyncio.get_running_loop().call_soon(end, self._failed(scope, request, error))
        return True

    def _admit(self, scope: Scope, request: "_Request") -> None:
        """Refuse whoever has no token, and everybody once the server ends."""
        self._check_token(scope["path"], request.headers)
        if self.state.draining and scope["method"] not in _ANSWERED_WHILE_DRAINING:
            raise Refusal(
                503,
                "the server is ending; ask another, or again later",
                headers={"Retry-After": str(RETRY_AFTER_S), "Connection": "close"},
            )

    def _head(self, request: "_Request", answer: Answer) -> dict[str, str]:
        return {
            **answer.headers,
            "X-Request-Id": request.id,
            "X-Content-Type-Options": "nosniff",
            **self._for_other_origins(request.headers),
        }

    async def _answered(self, scope: Scope, request: "_Request", receive: Any) -> Answer:
        try:
            self._admit(scope, request)
            endpoint = self._exact.get((scope["method"], scope["path"])) or self._router
            await endpoint(scope, receive, _unused)
            return request.answer
        except Gone:
            raise
        except Exception as error:
            return self._failed(scope, request, error)

    def _failed(self, scope: Scope, request: "_Request", error: Exception) -> Answer:
        if isinstance(error, Refusal):
            return error.answer()
        if isinstance(error, HTTPException):  # of the router: 404, 405
            known = {404: f"there is nothing at {scope['path'][:200]!r}; GET /openapi.json lists what there is"}
            text = known.get(error.status_code, f"{scope['method']} is not for {scope['path'][:200]!r}")
            return json_answer({"error": text}, error.status_code, error.headers)
        if lacks_files(error):
            return busy("no more files can be open here now; try again").answer()
        if isinstance(error, MobileNetHubError):
            return json_answer({"error": str(error)}, 400)
        # Ours to mend, and no reason to end.
        _log("".join(traceback.format_exception(error)))
        about = f"unexpected {type(error).__name__}; the server's log has more under {request.id}"
        return json_answer({"error": about}, 500)

    def _check_token(self, path: str, headers: Mapping[str, str]) -> None:
        if self._access.token is None or path in _OPEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # A header's bytes are read as latin-1; a token beyond ASCII comes in UTF-8.
        token = given.strip().encode("latin-1")
        if scheme.lower() == "bearer" and hmac.compare_digest(token, self._access.token.encode()):
            return
        raise Refusal(
            401,
            "a token is needed: send the header Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _allowed(self, headers: Mapping[str, str]) -> str | None:
        """Return the origin of the asking page if pages of it may read answers."""
        origin = headers.get("origin")
        if origin is None:
            return None
        return origin if origin in self._access.origins or "*" in self._access.origins else None

    def _for_other_origins(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers by which a page of another origin may read the answer, where one may."""
        if not self._access.origins:
            return {}
        origin = self._allowed(headers)
        if origin is None:
            return {"Vary": "Origin"}
        readable = f"{open_inference.HEADER_LENGTH}, Retry-After, X-Request-Id"
        return {"Vary": "Origin", "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": readable}

    def _preflight(self, scope: Scope, headers: Mapping[str, str]) -> Answer | None:
        if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
            return None
        origin = self._allowed(headers)
        if origin is None:
            return None
        return Answer(
            b"",
            204,
            headers={
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Allow-Headers": ", ".join(_ALLOWED_HEADERS),
                "Access-Control-Max-Age": "600",
            },
        )

    def _note(self, scope: Scope, request: "_Request", status: int) -> None:
        seconds = time.perf_counter() - request.start
        self.state.metrics.request(request.endpoint, status, seconds)
        if not self._log_json:
            return
        call = request.call
        client = scope.get("client")
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z",
            "id": request.id,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:300],
            "status": status,
            "ms": round(1000 * seconds, 3),
            "module": (call and call.module) or None,
            "images": call.images if call else 0,
        }
        _log(json.dumps(entry) + "\n")


def _log(text: str) -> None:
    """Write to standard error; that nobody reads it any more is no reason to end a connection."""
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


async def _unused(message: object) -> None:
    """Stand for what ASGI sends by; answers go through the exchange."""


class _Endpoint:
    """What answers at one address.

    A class instance, for Starlette to call it as an ASGI application, without a Request and a Response between.
    """

    def __init__(self, state: State, path: str, handler: Handler, check: Check | None):
        self._state, self._path, self._handler, self._check = state, path, handler, check

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one request."""
        request: _Request = scope["mobilenet"]
        request.endpoint = self._path
        headers = request.headers
        if self._check is not None:
            self._check(headers)
        given = scope.get("path_params", {}), scope["query_string"], headers
        call = Call(self._state, scope["method"], *given, receive, scope[KEY])
        request.call = call
        try:
            request.answer = await self._handler(call)
        finally:
            call.close()


class _Request:
    """What is known of a request by its end."""

    __slots__ = ("answer", "call", "endpoint", "headers", "id", "start")

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]):
        self.start = time.perf_counter()
        # Of a header that comes twice the first counts.
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}
        asked = self.headers.get("x-request-id")
        self.id = asked if asked and _ID.fullmatch(asked) else f"{_STARTED}{next(_numbers):08x}"
        self.endpoint = "other"  # no address of ours: not to be counted one by one
        self.call: Call | None = None
        self.answer = Answer(b"", 500)


def routes(state: State) -> list[tuple[str, str, Handler]]:
    """Return (address, method, function) of all that is always there."""

    async def metrics_text(call: Call) -> Answer:
        gauges = {
            "mobilenet_queue_images": ("Images accepted and not yet answered.", state.occupied),
            "mobilenet_queue_capacity_images": ("The most of them.", state.limits.queue),
            "mobilenet_held_bytes": ("Bytes of requests that are held.", state.bodies.held),
            "mobilenet_ready": ("1 until the server is told to end.", int(not state.draining)),
            "process_resident_memory_bytes": ("Memory of this process.", metrics.resident_bytes()),
        }
        models = [
            (
                ("module", served.name),
                ("version", served.version),
                ("weights_sha256", served.weights_sha256),
                ("precision", served.embedder.precision),
                ("engine", served.embedder.engine_name),
            )
            for served in state.modules.by_name.values()
        ]
        return Answer(state.metrics.text(gauges, models).encode(), content_type=metrics.CONTENT_TYPE)

    async def openapi(call: Call) -> Answer:
        call.query()
        return json_answer(describe(state.modules, state.limits, similar=state.has_similar, teach=state.has_teach))

    tf, v2 = "/v1/models/{name}", "/v2/models/{name}"
    version = "/versions/{version}"
    labelled = f"{tf}/labels/{{label}}"
    return [
        ("/classify", "POST", own.classify),
        ("/embed", "POST", own.embed),
        (f"{labelled}/metadata", "GET", tensorflow_serving.metadata),
        (f"{labelled}:predict", "POST", tensorflow_serving.predict),
        (labelled, "GET", tensorflow_serving.status),
        (f"{tf}/metadata", "GET", tensorflow_serving.metadata),
        (f"{tf}{version}/metadata", "GET", tensorflow_serving.metadata),
        (f"{tf}:predict", "POST", tensorflow_serving.predict),
        (f"{tf}{version}:predict", "POST", tensorflow_serving.predict),
        (tf, "GET", tensorflow_serving.status),
        (f"{tf}{version}", "GET", tensorflow_serving.status),
        ("/v2", "GET", open_inference.server),
        ("/v2/health/live", "GET", open_inference.live),
        ("/v2/health/ready", "GET", open_inference.ready),
        (v2, "GET", open_inference.model),
        (f"{v2}{version}", "GET", open_inference.model),
        (f"{v2}/ready", "GET", open_inference.model_ready),
        (f"{v2}{version}/ready", "GET", open_inference.model_ready),
        (f"{v2}/infer", "POST", open_inference.infer),
        (f"{v2}{version}/infer", "POST", open_inference.infer),
        ("/metrics", "GET", metrics_text),
        ("/openapi.json", "GET", openapi),
    ]
