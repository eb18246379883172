"""What all requests share: the modules, the queue and its bounds, the way from a request to its result."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np

from mobilenet_hub.serve.batcher import Batcher, Work
from mobilenet_hub.serve.body import Bodies, media_type, multipart_files, unpacked
from mobilenet_hub.serve.limits import Limits, Refusal, busy
from mobilenet_hub.serve.metrics import Metrics
from mobilenet_hub.serve.served import Modules, Served

if TYPE_CHECKING:
    from mobilenet_hub.serve.exchange import Exchange

_QUICK_BYTES = 1 << 18  # a body that is taken apart at once; a larger one in a thread, so that others do not wait

ONE = "image 0"  # the name of a picture that has none
_SHORT = 200  # an address's parameters that are kept in mind

Picture = tuple[str, bytes]  # its name, its file's bytes


class State:
    """The server, without HTTP.

    Attributes:
        modules: what is served.
        limits: what bounds it.
        draining: the server was told to end: new requests are refused, accepted ones answered.
        occupied: images that are accepted and not yet answered.
    """

    def __init__(self, modules: Modules, limits: Limits, threads: int | None = None):
        self.modules, self.limits = modules, limits
        self.bodies = Bodies(limits)
        self.metrics = Metrics()
        self.batcher = Batcher(self._done, threads)
        self.draining = False
        self.has_similar = False  # there is an index of photos
        self.has_teach = False  # the page may teach
        self.occupied = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[Work, Callable[[Work], object]] = {}  # who hears of it

    async def pictures(self, work: Work, pictures: Sequence[bytes | np.ndarray]) -> Any:
        """Do the work with pictures, and return what was to be made; those that cannot be read are its `failures`.

        Args:
            work: what to do.
            pictures: bytes of files, or uint8 arrays [h, w, 3].

        Raises:
            Refusal: 413: more than ever fit; 503: no room now, or not in time.
            What the work's `make` raises.
        """
        return await self._computed(work, self.batcher.pictures, pictures)

    async def batch(self, work: Work, images: np.ndarray) -> Any:
        """Do the work with a float32 batch [n, height, width, 3] in [0, 1], n at least 1.

        Raises:
            Refusal: as `pictures` does.
        """
        return await self._computed(work, self.batcher.batch, images)

    def begin(self, work: Work, picture: bytes, done: Callable[[Work], object]) -> None:
        """Begin the work with one picture; `done` is called in the event loop once `settled` can tell of it.

        Raises:
            Refusal: 503: no room now.
        """
        self._begin(work, self.batcher.pictures, [picture], done)

    def check_size(self, images: int) -> None:
        """Refuse a request of more images than the queue ever holds, before anything is made of them.

        Raises:
            Refusal: 413: it is one.
        """
        if images > self.limits.queue:
            raise Refusal(
                413,
                f"{images} images in one request, and the queue holds {self.limits.queue}: send fewer at a time, or "
                "start the server with a larger --queue",
            )

    def check_room(self, images: int = 1) -> None:
        """Refuse what does not fit.

        Raises:
            Refusal: 413: more than ever fit; 503: no room now.
        """
        self.check_size(images)
        if self.occupied + images > self.limits.queue:
            raise busy(f"the queue is full ({self.occupied} of {self.limits.queue} images wait); try again")

    async def _computed(self, work: Work, start: Callable[[Work, Any, float], None], images: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self._begin(work, start, images, lambda _: future.done() or future.set_result(None))
        await future
        return self.settled(work)

    def _begin(
        self, work: Work, start: Callable[[Work, Any, float], None], images: Any, done: Callable[[Work], object]
    ) -> None:
        work.count = len(images)
        self.check_room(work.count)
        self._loop = asyncio.get_running_loop()
        self._waiting[work] = done
        self.occupied += work.count
        start(work, images, self.limits.timeout_s)

    def settled(self, work: Work) -> Any:
        """Return what was to be made of work that is done.

        Raises:
            Refusal: 503: it was not done in time.
            What the work's `make` raises.
        """
        if work.late:
            raise busy(f"not computed within {self.limits.timeout_s:g} s; try again")
        if work.failure is None:
            self.metrics.stages(work.decode_s, work.wait_s, work.compute_s)
            bad = len(work.failures())
            self.metrics.bad_images += bad
            self.metrics.images[work.served.name] += work.count - bad
        return work.outcome()

    def _done(self, works: list[Work], batch_size: int) -> None:
        """Take results from a thread of the batcher to the event loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver, works, batch_size)

    def _deliver(self, works: list[Work], batch_size: int) -> None:
        if batch_size:
            self.metrics.batches.observe(batch_size)
        for work in works:
            self.occupied -= work.count
            self._waiting.pop(work)(work)

    async def in_thread(self, make: Callable[[], Any], quick: bool = False) -> Any:
        """Return what a function returns, called in a thread unless it is quick."""
        if quick:
            return make()
        return await asyncio.get_running_loop().run_in_executor(self.batcher.pool, make)


class Call:
    """One request, for the functions that answer it.

    Attributes:
        state: the server.
        method: "GET", "POST", ...
        path: the parts of the address that vary, by name.
        headers: by lower-case name.
        module: the name of the module that answered, for the log.
        images: how many, for the log.
    """

    def __init__(
        self,
        state: State,
        method: str,
        path: Mapping[str, str],
        query: bytes,
        headers: Mapping[str, str],
        receive: Any,
        exchange: "Exchange",
    ):
        self.state, self.method, self.path, self.headers = state, method, path, headers
        self._query, self._receive, self._exchange = query.decode("latin-1"), receive, exchange
        self._held = 0
        self.module, self.images = "", 0

    def query(self, *known: str) -> Mapping[str, str]:
        """Return the parameters of the address.

        Raises:
            Refusal: 422: one that is not known here, or twice the same.
        """
        if not self._query:
            return {}
        # Most requests ask the same as others before them.
        return (_parameters if len(self._query) <= _SHORT else _parameters.__wrapped__)(self._query, known)

    def served(self, name: str | None, version: str | None = None) -> Served:
        """Return a module by its name; None: the first.

        Raises:
            Refusal: 404: there is none of this name and version.
        """
        modules = self.state.modules
        served = modules.first if name is None else modules.by_name.get(name)
        if served is None:
            raise Refusal(404, f"no module {str(name)[:120]!r} is served; there is {', '.join(modules.by_name)}")
        if version is not None and version != served.version:
            raise Refusal(404, f"module {served.name!r} has version {served.version}, not {version[:40]!r}")
        self.module = served.name
        return served

    async def body(self) -> bytes:
        """Read the body, unpacked.

        Raises:
            Refusal: as `Bodies.read` and `unpacked` do, or 503 at once where there is no room for even one image.
        """
        state = self.state
        state.check_room()
        data = await state.bodies.read(self._receive, self.headers, self._exchange.whole_body)
        self._held += len(data)
        encoding = self.headers.get("content-encoding", "")
        if encoding:
            data = await state.in_thread(lambda: unpacked(data, encoding, state.limits.max_body))
        return data

    async def pictures(self) -> list[Picture]:
        """Read the body as pictures: one, or the files of a form.

        Raises:
            Refusal: as `body` does; 415: another Content-Type; 400: a form without files.
        """
        kind = media_type(self.headers)
        if kind == "multipart/form-data":
            data = await self.body()
            return await self.state.in_thread(
                lambda: multipart_files(data, self.headers["content-type"], self.state.limits.queue),
                quick=len(data) <= _QUICK_BYTES,
            )
        if not _may_be_a_picture(kind):
            hint = "; with curl add -H 'Content-Type: image/jpeg' or use -F file=@PHOTO" if "urlenc" in kind else ""
            raise Refusal(
                415,
                f"Content-Type {kind[:80]!r} is no picture: send one as image/* or application/octet-stream, or any "
                f"number of files as multipart/form-data{hint}",
            )
        return [(ONE, await self.body())]

    @property
    def is_one_picture(self) -> bool:
        """Whether the body is one picture, as it is."""
        return _may_be_a_picture(media_type(self.headers)) and "content-encoding" not in self.headers

    def take(self) -> bytes | None:
        """Read a body that has come already; None: it has not.

        Raises:
            Refusal: as `Bodies.take` does.
        """
        data = self.state.bodies.take(self.headers, self._exchange.whole_body)
        self._held += len(data or b"")
        return data

    def close(self) -> None:
        """Give back what the body held."""
        self.state.bodies.release(self._held)
        self._held = 0


def _may_be_a_picture(kind: str) -> bool:
    """Tell whether a body of this Content-Type is read as a picture."""
    return kind.startswith("image/") or kind in ("", "application/octet-stream")


@lru_cache(maxsize=256)
def _parameters(query: str, known: tuple[str, ...]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        if name not in known:
            raise Refusal(422, f"there is no parameter {name[:80]!r} here; known: {', '.join(known) or 'none'}")
        if name in found:
            raise Refusal(422, f"the parameter {name!r} is given twice")
        found[name] = value
    return found


def whole_number(text: str, name: str, most: int) -> int:
    """Read a parameter that is a number from 1.

    Raises:
        Refusal: 422: it is none.

    Example:
        >>> whole_number("5", "top", 10)
        5
    """
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise Refusal(422, f"{name} must be a whole number from 1 to {most}, not {text[:40]!r}")
    return int(text)
