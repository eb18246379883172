"""Teach: classes of photos that the page fills, a module trained on them, served at once and handed out.

All lies in the folder that `--teach` names: `photos/CLASS/*`, `module/`.
"""

import asyncio
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from mobilenet_hub.errors import ImageError, InputError, MobileNetHubError, OutputError
from mobilenet_hub.exporting.output import size_of
from mobilenet_hub.host.files import replacing
from mobilenet_hub.serve.limits import Answer, Refusal, json_answer, lacks_files
from mobilenet_hub.serve.own import bad_pictures
from mobilenet_hub.serve.served import Options, Served
from mobilenet_hub.serve.state import Call, State
from mobilenet_hub.serve.teach_worker import export_in_process, train_in_process

TAUGHT = "taught"  # the name that the trained module is served by
MOST_CLASSES, MOST_PHOTOS, MOST_BYTES = 100, 20_000, 10_000_000_000
_SPARE_BYTES = 500_000_000  # of the disk: whoever else writes there keeps room
_MAX_NAME = 60
# No folder of Windows can be called so, with any suffix: photos that were taught here can be taken anywhere.
_DEVICES = frozenset(["CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))])
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
_EXPORTS = {"litert": "module.tflite", "onnx": "module.onnx"}
DOWNLOADS = ("module", *_EXPORTS)  # what is handed out of what was taught
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"


class Teacher:
    """The classes, the training, and its result."""

    def __init__(self, state: State, folder: Path, options: Options):
        """Open a folder, and the module that was trained there before.

        Args:
            state: the server; the trained module is served by it.
            folder: where photos and modules may be written; made where it is not there.
            options: how the trained module is opened.

        Raises:
            OutputError: the folder cannot be made.
            InputError: another module is served by the name that the trained one gets.
            The errors of `read_module`, of a module that is there and damaged.
        """
        if TAUGHT in state.modules.by_name:
            raise InputError(f"what is taught is served as {TAUGHT!r}, and so is a module: rename its folder")
        self._state, self._options = state, options
        self._photos, self._module = folder / "photos", folder / "module"
        self._exports: tempfile.TemporaryDirectory[str] | None = None  # of the module that is there, once it is asked
        self._exporting = threading.Lock()
        self._base = str(state.modules.first.folder)
        self._stage, self._done, self._total = "", 0, 0
        self._error = ""
        self._process: Any = None
        self._thread: threading.Thread | None = None
        try:
            self._photos.mkdir(parents=True, exist_ok=True)
            self._bytes = size_of(self._photos)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from None
        if self._module.is_dir():
            self._serve_module()

    def routes(self) -> list[tuple[str, str, Callable[[Call], Any]]]:
        """Return (address, method, function); whoever adds them says that only pages of this server may ask."""
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
        self._forget_exports()

    async def status(self, call: Call) -> Answer:
        """Answer GET /teach: the classes, how far the training is, what came of it."""
        call.query()
        return await self._answer(call)

    async def add_class(self, call: Call) -> Answer:
        """Answer POST /teach/classes?name=NAME."""
        folder = self._class(call.query("name").get("name", ""))
        if not folder.is_dir() and len(self._classes()) >= MOST_CLASSES:
            raise Refusal(422, f"there are {MOST_CLASSES} classes already; train with `mobilenet train` for more")
        with _on_disk():
            folder.mkdir(exist_ok=True)
        return await self._answer(call)

    async def drop_class(self, call: Call) -> Answer:
        """Answer DELETE /teach/classes?name=NAME: the class and its photos."""
        folder = self._class(call.query("name").get("name", ""), there=True)
        if self._training:
            raise Refusal(409, "training on these photos; wait for it")
        await call.state.in_thread(lambda: self._drop(folder))
        return await self._answer(call)

    async def add_photos(self, call: Call) -> Answer:
        """Answer POST /teach/photos?class=NAME: one picture or a form of them; damaged ones are not kept."""
        folder = self._class(call.query("class").get("class", ""), there=True)
        pictures = await call.pictures()
        call.images = len(pictures)
        photos = await call.state.in_thread(lambda: sum(self._classes().values()))
        if photos + len(pictures) > MOST_PHOTOS:
            raise Refusal(422, f"there are {MOST_PHOTOS} photos already; train with `mobilenet train` on more")
        failures = await call.state.in_thread(lambda: self._keep(folder, [data for _, data in pictures]))
        if failures:
            status = await call.state.in_thread(self._status)
            raise Refusal(400, bad_pictures(failures, [name for name, _ in pictures]), more=status)
        return await self._answer(call)

    async def train(self, call: Call) -> Answer:
        """Answer POST /teach/train: begin to train on what is there."""
        call.query()
        if self._training:
            raise Refusal(409, "training already; wait for it")
        filled = [name for name, photos in self._classes().items() if photos]
        if len(filled) < 2:
            raise Refusal(422, "two classes with photos are needed to tell one from the other")
        self._stage, self._done, self._total, self._error = "starting", 0, 0, ""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return await self._answer(call, 202)

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
        if form not in DOWNLOADS:
            raise Refusal(422, f"format must be module, {' or '.join(_EXPORTS)}, not {form[:40]!r}")
        if not self._module.is_dir():
            raise Refusal(404, "nothing is trained yet")
        if self._training:
            raise Refusal(409, "training; wait for it")
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
        with _on_disk():
            folders = sorted(f for f in self._photos.iterdir() if f.is_dir() and not f.name.startswith("."))
            return {f.name: sum(not file.name.startswith(".") for file in os.scandir(f)) for f in folders}

    async def _answer(self, call: Call, status: int = 200) -> Answer:
        return json_answer(await call.state.in_thread(self._status), status)

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

    def _class(self, name: str, *, there: bool = False) -> Path:
        """Return the folder of a class, by a name that can only be one inside the photos' folder."""
        name = name.strip()
        if not name or len(name) > _MAX_NAME or len(name.encode("utf-8", "replace")) > 200:
            raise Refusal(422, f"a class needs a name of 1 to {_MAX_NAME} characters")
        if not name.isprintable() or set(name) & set('/\\:*?"<>|') or name.startswith((".", "__")) or name[-1] == ".":
            raise Refusal(422, f"a class cannot be called {name[:40]!r}: letters, digits, blanks, - and _ make names")
        if name.partition(".")[0].strip().upper() in _DEVICES:
            raise Refusal(422, f"a class cannot be called {name[:40]!r}: Windows has a device of this name")
        folder = self._photos / name
        if there and not folder.is_dir():
            raise Refusal(404, f"there is no class {name!r}")
        if folder.is_symlink():
            raise Refusal(422, f"the folder of class {name!r} is a link; nothing is written or deleted beyond it")
        return folder

    def _drop(self, folder: Path) -> None:
        with _on_disk():
            size = size_of(folder)
            shutil.rmtree(folder)
        self._bytes -= size

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
            place = folder / (hashlib.sha256(data).hexdigest()[:16] + suffix)
            if not place.exists():
                self._check_disk(len(data))
                with _on_disk(), replacing(place) as file:
                    file.write(data)
                self._bytes += len(data)
        return failures

    def _check_disk(self, size: int) -> None:
        if self._bytes + size > MOST_BYTES:
            raise Refusal(507, f"the photos would have more than {MOST_BYTES / 1e9:g} GB together")
        with _on_disk():
            free = shutil.disk_usage(self._photos).free
        if free < _SPARE_BYTES + size:
            raise Refusal(507, f"the disk of the teaching folder has less than {_SPARE_BYTES / 1e6:g} MB free")

    def _follow(self) -> None:
        """Train in a process, follow it, and serve what comes of it."""
        try:
            self._run(train_in_process, self._photos, self._module, self._base)
            self._forget_exports()
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

    def _forget_exports(self) -> None:
        with self._exporting:
            if self._exports is not None:
                self._exports.cleanup()
                self._exports = None

    def _exported(self, form: str, name: str) -> bytes:
        with self._exporting:  # one at a time, and none while the module that it is of is forgotten
            if self._exports is None:
                self._exports = tempfile.TemporaryDirectory(prefix="mobilenet-exports-")
            file = Path(self._exports.name) / name
            if not file.is_file():
                try:
                    self._run(export_in_process, self._module, form, file)
                except OutputError as error:
                    raise Refusal(501, str(error)) from None
            return file.read_bytes()


@contextmanager
def _on_disk() -> Iterator[None]:
    """Work on files of the teaching folder.

    Raises:
        Refusal: 507: the disk says no.
    """
    try:
        yield
    except OSError as error:
        if lacks_files(error):
            raise
        raise Refusal(507, f"the teaching folder cannot be used: {error.strerror or error}") from None


def _zipped(folder: Path) -> bytes:
    """Return a module folder as a zip that `mobilenet convert` and every file manager open."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, str(Path("module") / file.relative_to(folder)))
    return stream.getvalue()
