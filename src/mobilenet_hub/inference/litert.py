"""LiteRT as an engine: a finished model, made by `litert_graph` or by anybody else, run on any number of images.

A model of other people is opened by its file or its bytes, and takes and gives exactly what it was made for:

    model = LiteRTModel(Path("model.tflite"))
    model.input.shape, model.input.dtype        # (224, 224, 3), uint8, say; .scale and .zero_point where quantized
    raw = model.run(pixels)                     # pixels: [n, *model.input.shape] of that dtype
    raw[model.outputs[0].name]                  # [n, *shape] of the output's own dtype, bit for bit LiteRT's
    model.outputs[0].real(raw[...])             # as float32: (value - zero_point) * scale where quantized

LiteRT computes one image at a time here: one image is spread over all threads; of several, each thread takes its own,
with an interpreter of its own, so that what an image gives does not depend on its neighbours. Where there is a thread
for each core, each keeps to one: beside other programs that is up to half as fast again (benchmarks/NOTES.md).
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mobilenet_hub.errors import CorruptFileError, InputError
from mobilenet_hub.host.cpu import available_cores, keep_to, on_every_core, own_cores
from mobilenet_hub.inference.compiled import cache_key, compiled_file, is_whole, keep
from mobilenet_hub.inference.graph import InputType
from mobilenet_hub.inference.job import Job
from mobilenet_hub.inference.litert_graph import build_litert, signature_name

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

_STDERR = Lock()
_TASK = 4  # images that a thread takes at a time


@dataclass(frozen=True, slots=True)
class Port:
    """What a model takes or gives: its name, its shape without the batch axis, its dtype, and how it is quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float = 0.0  # 0: not quantized
    zero_point: int = 0

    def real(self, values: np.ndarray) -> np.ndarray:
        """Return the real numbers that values stand for, float32.

        Example:
            >>> Port("x", (1,), np.dtype("uint8"), 0.5, 128).real(np.array([130], np.uint8)).tolist()
            [1.0]
        """
        if not self.scale:
            return values.astype(np.float32, copy=False)
        return (values.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


class LiteRTModel:
    """A LiteRT model of one input, ready to run; any number of threads may call it.

    Attributes:
        input: what it takes.
        outputs: what it gives, in the order of the signature or, without one, of the file.
        threads: how many it uses; None: as many as there are cores.
    """

    def __init__(self, model: bytes | str | os.PathLike[str], *, threads: int | None = None):
        """Open a model.

        Args:
            model: the content of a .tflite file, or its path, which is mapped into memory.
            threads: how many to use; None: as many as there are cores.

        Raises:
            CorruptFileError: LiteRT cannot run it: it is damaged, or has an operator that this LiteRT does not know.
            InputError: it has more than one input, or its batch size is fixed to another than one.
            MissingExtraError: LiteRT is not installed.

        Example:
            >>> from mobilenet_hub.architecture import mobilenet_v1
            >>> from mobilenet_hub.inference.litert_graph import build_litert
            >>> network = mobilenet_v1(0.25, num_classes=0)
            >>> ones = {name: np.ones(v.shape, np.float32) for name, v in network.variables.items()}
            >>> model = LiteRTModel(build_litert(network, ones, (64, 64), ["features"]))
            >>> model.run(np.zeros((3, 64, 64, 3), np.float32))["features"].shape
            (3, 256)
        """
        self._model = model if isinstance(model, bytes) else Path(model)
        self.threads = threads
        self._count = threads or available_cores()
        self._lock = Lock()
        self._reading = Lock()
        self._content: bytes | None = None  # the model's bytes, once several interpreters need them
        with on_every_core():  # its threads begin here
            self._first = _Interpreter(self._model, self._count)
        self._single: deque[_Interpreter] = deque()  # of one thread each, those that are free
        self.input, self.outputs = self._first.input, self._first.outputs
        self._pool: ThreadPoolExecutor | None = None

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of a batch.

        Args:
            images: [n, *input.shape] of the input's dtype.

        Returns:
            For each output its name and array [n, *shape] of its own dtype.

        Raises:
            InputError: another shape or dtype.
        """
        self._check(images)
        if len(images) == 1:
            with self._lock:
                return self._first.run_one(images)
        results = self._room(len(images))
        with self._lock:
            if not len(images) or self._count == 1:
                self._first.run(images, results, range(len(images)))
            else:
                self._run_many(images, results)
        return results

    def run_here(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute as `run` does, on the one core of the calling thread; any number of threads may.

        Raises:
            InputError: another shape or dtype.
        """
        self._check(images)
        with self._one_single() as interpreter:
            if len(images) == 1:
                return interpreter.run_one(images)
            results = self._room(len(images))
            interpreter.run(images, results, range(len(images)))
        return results

    def _check(self, images: np.ndarray) -> None:
        if images.shape[1:] != self.input.shape or images.dtype != self.input.dtype:
            raise InputError(
                f"expected images of shape [n, {', '.join(map(str, self.input.shape))}] of {self.input.dtype}, not "
                f"{list(images.shape)} of {images.dtype}"
            )

    def _room(self, count: int) -> dict[str, np.ndarray]:
        return {port.name: np.empty((count, *port.shape), port.dtype) for port in self.outputs}

    def _shared(self) -> bytes:
        """Return the model's bytes: all interpreters have these in common, while each would map a file for itself."""
        with self._reading:
            if self._content is None:
                self._content = self._model if isinstance(self._model, bytes) else self._model.read_bytes()
            return self._content

    @contextmanager
    def _one_single(self) -> "Iterator[_Interpreter]":
        try:
            interpreter = self._single.pop()
        except IndexError:
            interpreter = _Interpreter(self._shared(), 1)
        try:
            yield interpreter
        finally:
            self._single.append(interpreter)

    def _run_many(self, images: np.ndarray, results: Mapping[str, np.ndarray]) -> None:
        if self._pool is None:
            cores = own_cores(self._count)
            self._pool = ThreadPoolExecutor(self._count, "litert", initializer=lambda: keep_to(next(cores, None)))
        tasks = iter([range(start, min(start + _TASK, len(images))) for start in range(0, len(images), _TASK)])
        turn = Lock()

        def work(_: int) -> None:
            with self._one_single() as interpreter:
                while True:
                    with turn:
                        task = next(tasks, None)
                    if task is None:
                        return
                    interpreter.run(images, results, task)

        list(self._pool.map(work, range(self._count)))


class LiteRT:
    """A job in LiteRT, in float32; its model is written when images of that type first come, or found on disk."""

    def __init__(self, job: Job):
        self._job = job
        self._models: dict[np.dtype, LiteRTModel] = {}
        self._lock = Lock()
        self._names = {name: signature_name(name) for name in job.outputs}

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of images [batch, height, width, 3] of the job's size, float32 or uint8."""
        return self._named(self._model(images.dtype).run(images))

    def run_here(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute as `run` does, on the one core of the calling thread."""
        return self._named(self._model(images.dtype).run_here(images))

    def _named(self, results: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: results[own] for name, own in self._names.items()}

    def _model(self, dtype: np.dtype) -> LiteRTModel:
        with self._lock:
            if dtype not in self._models:
                written = self._written(cast("InputType", str(dtype)))
                self._models[dtype] = LiteRTModel(written, threads=self._job.threads)
            return self._models[dtype]

    def _written(self, input_type: InputType) -> bytes | Path:
        job = self._job

        def build() -> bytes:
            module = job.module()
            size, outputs = job.image_size, job.outputs
            return build_litert(module.config.network, module.weights, size, outputs, input_type=input_type)

        return kept_model(job, (input_type,), build)


def kept_model(job: Job, choices: tuple[object, ...], build: Callable[[], bytes]) -> bytes | Path:
    """Return a model: its file, kept from before or from now on, or its bytes where none can be kept.

    Args:
        job: what it computes; of a module in memory nothing is kept.
        choices: what it depends on besides.
        build: makes it.
    """
    if job.folder is None:
        return build()
    file = compiled_file(f"{cache_key(job, (), *choices)}.tflite")
    if is_whole(file):
        return file  # to be mapped into memory; of the checksum behind the model LiteRT takes no notice
    content = build()
    return file if keep(file, content) else content


class _Interpreter:
    """One of LiteRT's interpreters; for one thread at a time."""

    def __init__(self, model: bytes | Path, threads: int):
        self._interpreter = _open(model, threads)
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1:
            raise InputError(f"the model has {len(inputs)} inputs, not one")
        if list(inputs[0]["shape"])[:1] != [1]:
            raise InputError(f"the model takes images of shape {list(inputs[0]['shape'])}; only a batch of 1 is run")
        self._source = inputs[0]["index"]
        self.input = _port(inputs[0], inputs[0]["name"])
        details = {one["index"]: one for one in self._interpreter.get_output_details()}
        self._targets = _output_indices(self._interpreter, details)
        self.outputs = tuple(_port(details[index], name) for name, index in self._targets.items())

    def run_one(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Compute one image [1, ...], on the shortest way: it may take a tenth of a millisecond in all."""
        interpreter = self._interpreter
        interpreter.set_tensor(self._source, image)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in self._targets.items()}

    def run(self, images: np.ndarray, results: Mapping[str, np.ndarray], which: range) -> None:
        """Compute some of the images, one after the other."""
        interpreter = self._interpreter
        for number in which:
            interpreter.tensor(self._source)()[0] = images[number]
            interpreter.invoke()
            for name, index in self._targets.items():
                results[name][number] = interpreter.tensor(index)()[0]


def _open(model: bytes | Path, threads: int) -> "Interpreter":
    from mobilenet_hub.errors import MissingExtraError

    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError("ai-edge-litert", "litert", "inference with LiteRT") from error
    given = {"model_content": model} if isinstance(model, bytes) else {"model_path": os.fspath(model)}
    try:
        with without_chatter():
            interpreter = Interpreter(**given, num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        name = "the model" if isinstance(model, bytes) else os.fspath(model)
        raise CorruptFileError(f"{name} cannot be run by LiteRT: {str(error).strip()}") from None
    return interpreter


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep what LiteRT tells of itself ("INFO: Created TensorFlow Lite XNNPACK delegate") from standard error.

    It writes to the descriptor, and there is no setting for it. What others write meanwhile comes a little later.
    """
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:  # a process without standard error
            yield
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        os.dup2(writing, 2)
        os.close(writing)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            with open(reading, "rb") as written:  # noqa: PTH123 (a descriptor)
                for line in written:
                    if not line.startswith(b"INFO: "):
                        os.write(2, line)


def _output_indices(interpreter: "Interpreter", details: Mapping[int, Any]) -> dict[str, int]:
    """Return the tensors of the outputs by name: a signature's names, or else the tensors' own."""
    signatures = interpreter.get_signature_list()
    if len(signatures) == 1:
        (key,) = signatures
        runner = interpreter.get_signature_runner(key)
        return {name: one["index"] for name, one in runner.get_output_details().items()}
    return {one["name"]: index for index, one in details.items()}


def _port(details: Mapping[str, Any], name: str) -> Port:
    scale, zero_point = details["quantization"]
    shape = tuple(int(n) for n in details["shape"])[1:]
    return Port(name, shape, np.dtype(details["dtype"]), float(scale), int(zero_point))
