"""A server from its options: modules opened, the port bound, requests answered until a signal."""

import asyncio
import gc
import logging
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mobilenet_hub.errors import InputError, MissingExtraError, OutputError
from mobilenet_hub.serve.limits import Limits
from mobilenet_hub.serve.served import Modules, Options
from mobilenet_hub.serve.state import State
from mobilenet_hub.serve.visitors import Visitors

if TYPE_CHECKING:
    from mobilenet_hub.serve.app import App
    from mobilenet_hub.serve.teach import Teacher

_BULK = 4  # images of a batch that makes the engine compile what many need


@dataclass(frozen=True)
class Settings:
    """What `mobilenet serve` can be told."""

    modules: Sequence[str] = ("starter",)
    host: str = "127.0.0.1"
    port: int = 8080  # 0: any that is free
    limits: Limits = field(default_factory=Limits)
    options: Options = field(default_factory=Options)
    token: str | None = None
    origins: tuple[str, ...] = ()
    page: bool = True
    index: str | None = None  # what `embed` wrote, for similar photos
    watch: bool = False  # modules whose folders are replaced
    teach: str | None = None  # the folder where photos and modules may be written
    log_json: bool = False


def serve(settings: Settings, on_ready: Callable[[str], object]) -> None:
    """Serve modules until SIGTERM or SIGINT; what was accepted is answered before it returns.

    Args:
        settings: what to serve, where, and within which bounds.
        on_ready: told once, when requests are answered: "serving NAMES on http://HOST:PORT".

    Raises:
        MissingExtraError: the extra `serve` is not installed.
        OutputError: the address cannot be had.
        InputError: a setting that means nothing, or two modules of one name.
        The errors of `resolve` and of `read_module`.
    """
    try:
        import httptools  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "starlette", "serve", "the server") from error
    from mobilenet_hub.serve.app import Access, App
    from mobilenet_hub.serve.connection import server_for

    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what is wrong with a form, its sender is told
    listener = _bound(settings.host, settings.port)
    try:
        state = State(_opened(settings), settings.limits, settings.options.threads)
        app = App(state, Access(settings.token, settings.origins), log_json=settings.log_json)
        teacher = _add_what_is_asked_for(app, state, settings)
        server = server_for(app, state)
        address = _address(settings.host, listener.getsockname()[1])

        async def run() -> None:
            task = asyncio.create_task(server.serve([listener]))
            while not server.started and not task.done():
                await asyncio.sleep(0)
            if not task.done():
                on_ready(f"serving {', '.join(state.modules.by_name)} on {address}")
                # What was imported and opened stays: no collection of garbage needs to look at it again.
                gc.collect()
                gc.freeze()
                threading.Thread(target=_warm_up, args=(state.modules,), daemon=True).start()
            await task

        try:
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(run())
        finally:
            state.batcher.close()
            if teacher is not None:
                teacher.close()
    finally:
        listener.close()


def _add_what_is_asked_for(app: "App", state: State, settings: Settings) -> "Teacher | None":
    """Add similar photos, teaching and the page, each where it is wanted."""
    teacher = None
    loopback = settings.host == "localhost" or settings.host.startswith("127.") or settings.host == "::1"
    names = {urlsplit(origin).hostname or "" for origin in settings.origins} - {""}
    visitors = Visitors(private=loopback and settings.token is None, names=frozenset(names))
    if settings.index is not None:
        from mobilenet_hub.serve.similar import Collection

        state.has_similar = True
        app.add("/similar", "POST", Collection(settings.index, settings.options.threads), visitors.check_name)
    if settings.watch:
        from mobilenet_hub.serve.watch import watch

        watch(state.modules, settings.options)
    if settings.teach is not None:
        from mobilenet_hub.serve.teach import Teacher

        if not loopback and settings.token is None:
            sys.stderr.write(f"mobilenet: whoever reaches {settings.host} may teach here; --token demands a token\n")
        teacher = Teacher(state, Path(settings.teach), settings.options)
        state.has_teach = True
        for path, method, handler in teacher.routes():
            app.add(path, method, handler, visitors.check_page)
    if settings.page:
        from mobilenet_hub.serve.page import Page

        app.add("/", "GET", Page(state, similar=settings.index is not None, teach=teacher is not None))
    return teacher


def _opened(settings: Settings) -> Modules:
    modules = Modules()
    for name in settings.modules:
        modules.add(name, settings.options).warm_up()
    return modules


def _warm_up(modules: Modules) -> None:
    """Compile what batches need before the first one comes; the server answers meanwhile."""
    for served in list(modules.by_name.values()):
        try:
            served.warm_up((_BULK,))
        except Exception as error:  # whoever asks for it will hear why
            sys.stderr.write(f"mobilenet: {served.name}: {error}\n")


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that has the address, so that no module is opened in vain."""
    if not 0 <= port <= 65535:
        raise InputError(f"port must be from 0 to 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise OutputError(f"the address {host!r} is none of this machine: {error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        raise OutputError(f"{_address(host, port)} cannot be had ({reason}); choose another port or host") from None
    return listener


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
