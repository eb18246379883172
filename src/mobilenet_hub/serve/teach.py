"""Teach: classes of photos that the page fills, a module trained on them, served at once and handed out.

All lies in the folder that `--teach` names: `photos/CLASS/*`, `module/`, `exports/`. Only pages of this server may ask.
"""

import asyncio
import hashlib
import json
import multiprocessing
import shutil
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mobilenet_hub.errors import ImageError, MobileNetHubError, OutputError
from mobilenet_hub.host.files import replacing
from mobilenet_hub.serve.limits import Answer, Refusal, json_answer
from mobilenet_hub.serve.own import bad_pictures
from mobilenet_hub.serve.served import Options, Served
from mobilenet_hub.serve.state import Call, State
from mobilenet_hub.serve.teach_worker import export_in_process, train_in_process

TAUGHT = "taught"  # the name that the trained module is served by
MOST_CLASSES, MOST_PHOTOS = 100, 20_000
_MAX_NAME = 60
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
_EXPORTS = {"litert": "module.tflite", "onnx": "module.onnx"}
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"


class Teacher:
    """The classes, the training, and its result."""

    def __init__(self, state: State, folder: Path, options: Options, *, loopback: bool):
        """Open a folder, and the module that was trained there before.

        Args:
            state: the server; the trained module is served by it.
            folder: where photos and modules may be written; made where it is not there.
            options: how the trained module is opened.
            loopback: the server listens to this machine alone.

        Raises:
            OutputError: the folder cannot be made.
            The errors of `read_module`, of a module that is there and damaged.
        """
        self._state, self._options, self._loopback = state, options, loopback
        self._photos, self._module, self._exports = folder / "photos", folder / "module", folder / "exports"
        self._base = str(state.modules.first.folder)
        self._stage, self._done, self._total = "", 0, 0
        self._error = ""
        self._process: Any = None
        self._thread: threading.Thread | None = None
        try:
            self._photos.mkdir(parents=True, exist_ok=True)
            self._exports.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from None
        if self._module.is_dir():
            self._serve_module()

    def routes(self) -> list[tuple[str, str, Callable[[Call], Any]]]:
        """Return (address, method, function)."""
        return [
            ("/teach", "GET", self.status),
            ("/teach/classes", "POST", self.add_class),
            ("/teach/classes", "DELETE", self.drop_class),
            ("/teach/photos", "POST", self.add_photos),
            ("/teach/train", "POST", self.train),
            ("/teach/report", "GET", self.report),
            ("/teach/download", "GET", self.download),
        ]

    def close(self) -> None:
        """End a training that is running; its work is kept for the next."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    async def status(self, call: Call) -> Answer:
        """Answer GET /teach: the classes, how far the training is, what came of it."""
        call.query()
        return json_answer(self._status())

    async def add_class(self, call: Call) -> Answer:
        """Answer POST /teach/classes?name=NAME."""
        folder = self._class(call, call.query("name").get("name", ""))
        if not folder.is_dir() and len(self._classes()) >= MOST_CLASSES:
            raise Refusal(422, f"there are {MOST_CLASSES} classes already; train with `mobilenet train` for more")
        self._write(lambda: folder.mkdir(exist_ok=True))
        return json_answer(self._status())

    async def drop_class(self, call: Call) -> Answer:
        """Answer DELETE /teach/classes?name=NAME: the class and its photos."""
        folder = self._class(call, call.query("name").get("name", ""), there=True)
        self._write(lambda: shutil.rmtree(folder))
        return json_answer(self._status())

    async def add_photos(self, call: Call) -> Answer:
        """Answer POST /teach/photos?class=NAME: one picture or a form of them; damaged ones are not kept."""
        folder = self._class(call, call.query("class").get("class", ""), there=True)
        pictures = await call.pictures()
        call.images = len(pictures)
        if sum(self._classes().values()) + len(pictures) > MOST_PHOTOS:
            raise Refusal(422, f"there are {MOST_PHOTOS} photos already; train with `mobilenet train` on more")
        failures = await call.state.in_thread(lambda: self._keep(folder, [data for _, data in pictures]))
        if failures:
            status = self._status()
            raise Refusal(400, bad_pictures(failures, [name for name, _ in pictures]), more=status)
        return json_answer(self._status())

    async def train(self, call: Call) -> Answer:
        """Answer POST /teach/train: begin to train on what is there."""
        self._check_page(call)
        call.query()
        if self._training:
            raise Refusal(409, "training already; wait for it")
        filled = [name for name, photos in self._classes().items() if photos]
        if len(filled) < 2:
            raise Refusal(422, "two classes with photos are needed to tell one from the other")
        self._stage, self._done, self._total, self._error = "starting", 0, 0, ""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return json_answer(self._status(), 202)

    async def report(self, call: Call) -> Answer:
        """Answer GET /teach/report: the report of the training, a page that may run nothing."""
        call.query()
        file = self._module / "report.html"
        if not file.is_file():
            raise Refusal(404, "nothing is trained yet")
        headers = {"Content-Security-Policy": _REPORT_POLICY, "Cache-Control": "no-store"}
        return Answer(file.read_bytes(), content_type="text/html; charset=utf-8", headers=headers)

    async def download(self, call: Call) -> Answer:
        """Answer GET /teach/download?format=module|litert|onnx."""
        form = call.query("format").get("format", "module")
        if form != "module" and form not in _EXPORTS:
            raise Refusal(422, f"format must be module, {' or '.join(_EXPORTS)}, not {form[:40]!r}")
        if not self._module.is_dir():
            raise Refusal(404, "nothing is trained yet")
        if form == "module":
            data, name = await call.state.in_thread(lambda: _zipped(self._module)), "module.zip"
        else:
            name = _EXPORTS[form]
            data = await asyncio.get_running_loop().run_in_executor(None, lambda: self._exported(form, name))
        about = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return Answer(data, content_type="application/octet-stream", headers=about)

    @property
    def _training(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _classes(self) -> dict[str, int]:
        """Return how many photos each class has."""
        folders = sorted(folder for folder in self._photos.iterdir() if folder.is_dir())
        return {folder.name: sum(1 for _ in folder.iterdir()) for folder in folders if not folder.name.startswith(".")}

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "classes": [{"name": name, "photos": photos} for name, photos in self._classes().items()],
            "training": self._training,
            "stage": self._stage,
            "done": self._done,
            "total": self._total,
            "failure": self._error,
            "module": TAUGHT if TAUGHT in self._state.modules.by_name else None,
            "metrics": None,
        }
        with suppress(OSError, ValueError):
            status["metrics"] = json.loads((self._module / "metrics.json").read_text(encoding="utf-8"))
        return status

    def _class(self, call: Call, name: str, *, there: bool = False) -> Path:
        """Return the folder of a class, by a name that can only be one inside the photos' folder."""
        self._check_page(call)
        name = name.strip()
        if not name or len(name) > _MAX_NAME or len(name.encode("utf-8", "replace")) > 200:
            raise Refusal(422, f"a class needs a name of 1 to {_MAX_NAME} characters")
        if not name.isprintable() or set(name) & set('/\\:*?"<>|') or name.startswith((".", "__")) or name[-1] == ".":
            raise Refusal(422, f"a class cannot be called {name[:40]!r}: letters, digits, blanks, - and _ make names")
        folder = self._photos / name
        if there and not folder.is_dir():
            raise Refusal(404, f"there is no class {name!r}")
        return folder

    def _check_page(self, call: Call) -> None:
        """Refuse what a page of another site asks for behind the back of whoever looks at it."""
        host = call.headers.get("host", "")
        origin = call.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Refusal(403, f"pages of {origin[:80]!r} may not teach here")
        if self._loopback and urlsplit(f"//{host}").hostname not in _LOOPBACK:
            raise Refusal(403, f"the server is asked as {host[:80]!r}, and listens to this machine alone")

    def _keep(self, folder: Path, pictures: list[bytes]) -> list[tuple[int, str]]:
        failures = []
        for index, data in enumerate(pictures):
            try:
                self._state.modules.first.load(data)
            except ImageError as error:
                failures.append((index, error.reason))
                continue
            suffix = next((s for start, s in _SUFFIXES.items() if data.startswith(start)), ".img")
            if suffix == ".img":
                failures.append((index, "JPEG, PNG, WebP, GIF and BMP can be learned from; convert it"))
                continue
            name = hashlib.sha256(data).hexdigest()[:16] + suffix

            def write(place: Path = folder / name, content: bytes = data) -> None:
                with replacing(place) as file:
                    file.write(content)

            self._write(write)
        return failures

    def _write(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            raise Refusal(507, f"the teaching folder cannot be written: {error.strerror or error}") from None

    def _follow(self) -> None:
        """Train in a process, follow it, and serve what comes of it."""
        try:
            self._run(train_in_process, self._photos, self._module, self._base)
            shutil.rmtree(self._exports, ignore_errors=True)
            self._exports.mkdir(exist_ok=True)
            self._stage = "opening the module"
            self._serve_module()
            self._stage = "done"
        except (MobileNetHubError, OSError) as error:
            self._stage, self._error = "failed", str(error)

    def _run(self, work: Callable[..., None], *args: Any) -> None:
        """Run a function in a process of its own; an error there is one here.

        Raises:
            OutputError: it failed, or ended without a word.
        """
        spawn = multiprocessing.get_context("spawn")
        receiver, sender = spawn.Pipe(duplex=False)
        process = spawn.Process(target=work, args=(sender, *args), daemon=True)
        process.start()
        self._process = process
        sender.close()
        last: tuple[Any, ...] = ("failed", "it was ended")
        with receiver, suppress(EOFError):
            while True:
                message = receiver.recv()
                if message[0] == "progress":
                    _, self._stage, self._done, total = message
                    self._total = total or 0
                else:
                    last = message
        process.join()
        if last[0] == "failed":
            raise OutputError(last[1])

    def _serve_module(self) -> None:
        served = Served(TAUGHT, "1", self._module, Options(precision=self._options.precision, fit=self._options.fit))
        served.warm_up()
        self._state.modules.by_name[TAUGHT] = served

    def _exported(self, form: str, name: str) -> bytes:
        file = self._exports / name
        if not file.is_file():
            if self._training:
                raise Refusal(409, "training; wait for it")
            try:
                self._run(export_in_process, self._module, form, file)
            except OutputError as error:
                raise Refusal(501, str(error)) from None
        return file.read_bytes()


def _zipped(folder: Path) -> bytes:
    """Return a module folder as a zip that `mobilenet convert` and every file manager open."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, str(Path("module") / file.relative_to(folder)))
    return stream.getvalue()
