"""OpenVINO as an engine: a module compiled for this CPU, kept on disk so that the next start is fast.

Nothing here opens a connection: no download, no telemetry.
"""

from collections import deque
from collections.abc import Collection
from importlib.util import find_spec
from io import BytesIO
from math import log2
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from mobilenet_hub.errors import InputError
from mobilenet_hub.host.cpu import cpu_features
from mobilenet_hub.inference.compiled import cache_key, compiled_file, keep, mapped, unload
from mobilenet_hub.inference.graph import Arithmetic, InputType, build_graph, import_openvino
from mobilenet_hub.inference.job import PRECISIONS, Job, Precision
from mobilenet_hub.inference.openvino_hints import prefer_avx2_kernels, wants_avx2_kernels

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest, Model

# The instructions that make bf16 faster than f32. OpenVINO also emulates bf16 on AVX-512, which is slower than f32.
_BF16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16"})
_CHUNK_MACS = 64e6  # work per request in bulk: enough to hide what a request costs, little enough to waste
_MAX_CHUNK = 16
_Way = Literal["alone", "bulk", "here"]  # one image over all threads; many; any number in the thread that asks


class OpenVINO:
    """A job in OpenVINO: one image over all threads; of many, each thread takes its own chunks; or all in one thread.

    Each of these ways is compiled when it is first needed. `run` is for one caller at a time, `run_here` for any
    number: each has a network of its own meanwhile.
    """

    def __init__(self, job: Job, precision: Arithmetic):
        self._job = job
        self._precision: Arithmetic = precision
        self._networks: dict[tuple[np.dtype, int], CompiledNetwork] = {}  # by type and chunk, 0: for one image
        self._here: dict[np.dtype, deque[CompiledNetwork]] = {}  # those that nobody runs
        self._lock = Lock()

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of images [batch, height, width, 3] of the job's size, float32 or uint8."""
        chunk = self.chunk if len(images) > 1 else 0
        with self._lock:
            if (images.dtype, chunk) not in self._networks:
                way: _Way = "bulk" if chunk else "alone"
                self._networks[images.dtype, chunk] = self._compile(images.dtype, way, chunk or 1)
        return self._networks[images.dtype, chunk].run(images)

    def run_here(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute as `run` does, in the calling thread, one image after the other."""
        free = self._here.setdefault(images.dtype, deque())
        try:
            network = free.pop()
        except IndexError:
            with self._lock:
                network = self._compile(images.dtype, "here", 1)
        try:
            return network.run(images)
        finally:
            free.append(network)

    def graph(self, batch_size: int, input_type: InputType) -> "Model":
        """Build the graph that is compiled for a fixed batch size."""
        module = self._job.module()
        return build_graph(
            module.config.network,
            module.weights,
            self._job.image_size,
            self._job.outputs,
            batch_size=batch_size,
            input_type=input_type,
            precision=self._precision,
        )

    def _compile(self, dtype: np.dtype, way: _Way, chunk: int) -> "CompiledNetwork":
        job, input_type = self._job, cast("InputType", str(dtype))
        settings = _device_settings(self._precision, job.threads, way)
        core = import_openvino().Core()

        def build() -> "tuple[CompiledModel, bool]":
            """Compile; tell whether it is as fast as it can be, and so worth keeping."""
            graph = self.graph(chunk, input_type)
            best = prefer_avx2_kernels(graph) if wants_avx2_kernels(cpu_features()) else graph
            return core.compile_model(graph if best is None else best, "CPU", settings), best is not None

        if job.folder is None:
            return CompiledNetwork(build()[0], chunk, job.outputs)
        key = cache_key(job, machine(), chunk, input_type, settings)
        file = compiled_file(f"{key}.blob")
        if (network := _kept(file, settings, chunk, job.outputs)) is not None:
            return network
        compiled, worth_keeping = build()
        if worth_keeping:
            exported = BytesIO()
            compiled.export_model(exported)
            # Read in place it takes a third less memory than what was just compiled.
            if keep(file, exported.getbuffer()) and (network := _kept(file, settings, chunk, job.outputs)) is not None:
                return network
        return CompiledNetwork(compiled, chunk, job.outputs)

    @property
    def chunk(self) -> int:
        """How many images a request takes in bulk."""
        images = _CHUNK_MACS / self._job.config.network.macs(*self._job.image_size)
        return min(max(2 ** round(log2(images)), 1), _MAX_CHUNK)


def machine() -> object:
    """Return what a compiled model depends on besides the module: OpenVINO and the CPU."""
    openvino = import_openvino()
    core = openvino.Core()
    hardware = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    return openvino.get_version(), hardware, sorted(cpu_features())


def _kept(file: Path, settings: dict[str, Any], chunk: int, outputs: tuple[str, ...]) -> "CompiledNetwork | None":
    """Import what was kept. Read in place it takes half the memory and time: most weights are only packed anew."""
    content = mapped(file)
    if content is None:
        return None
    openvino = import_openvino()
    try:
        tensor = openvino.Tensor(np.frombuffer(content, np.uint8), shared_memory=True)
        compiled = openvino.Core().import_model(tensor, "CPU", settings)
    except RuntimeError:  # of another build of OpenVINO, against all odds
        return None
    return CompiledNetwork(compiled, chunk, outputs, content)


def _device_settings(precision: str, threads: int | None, way: _Way) -> dict[str, Any]:
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if way == "here":
        # Without streams there are no threads to hand over to; waking one takes a tenth as long as a small network.
        return settings | {"NUM_STREAMS": 0, "INFERENCE_NUM_THREADS": 1}
    settings["PERFORMANCE_HINT"] = "THROUGHPUT" if way == "bulk" else "LATENCY"
    if threads is not None:
        settings |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads if way == "bulk" else 1}
    return settings


_Results = dict[str, np.ndarray]


class CompiledNetwork:
    """A compiled model of a fixed batch size, `chunk`, and as many requests as it runs at a time.

    `content` is what it was imported from and reads in place.
    """

    def __init__(
        self, compiled: "CompiledModel", chunk: int, outputs: tuple[str, ...], content: memoryview | None = None
    ):
        self._compiled = compiled
        self._chunk = chunk
        # By position: "logits" and "Logits" are one tensor, which OpenVINO may know by either name.
        self._shapes = {name: tuple(compiled.outputs[i].shape)[1:] for i, name in enumerate(outputs)}
        count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests = [compiled.create_infer_request() for _ in range(count)]
        self._content = content  # the last to go
        if content is not None:
            unload(content)  # its weights are packed now; of what it still reads it writes nothing

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the chunks in turn on the requests; each writes its part of the results, the last chunk filled up."""
        images, results = np.ascontiguousarray(images), self._room(len(images))
        starts, requests = range(0, len(images), self._chunk), self._requests
        if len(starts) == 1 or len(requests) == 1:
            for start in starts:
                held = self._bind(requests[0], images, results, start)
                # In this very thread: handing over takes a tenth as long as the smallest network. Shared: not copied.
                requests[0].infer(share_outputs=True)
        else:
            for turn, start in enumerate(starts):
                request = requests[turn % len(requests)]
                request.wait()
                held = self._bind(request, images, results, start)  # noqa: F841
                request.start_async()
            for request in requests:
                request.wait()
        return {name: result[: len(images)] for name, result in results.items()}

    def _room(self, count: int) -> dict[str, np.ndarray]:
        rows = -(-count // self._chunk) * self._chunk
        return {name: np.empty((rows, *shape), np.float32) for name, shape in self._shapes.items()}

    def _bind(
        self, request: "InferRequest", images: np.ndarray, results: dict[str, np.ndarray], start: int
    ) -> np.ndarray:
        """Have a request read a chunk and write its results; the chunk, returned, must be held until it has."""
        from openvino import Tensor

        part = images[start : start + self._chunk]
        if len(part) < self._chunk:
            part = np.concatenate([part, np.zeros((self._chunk - len(part), *part.shape[1:]), part.dtype)])
        request.set_input_tensor(Tensor(part, shared_memory=part.flags.writeable))
        for index, result in enumerate(results.values()):
            request.set_output_tensor(index, Tensor(result[start : start + self._chunk], shared_memory=True))
        return part


def chosen_precision(asked: Precision) -> Arithmetic:
    """Return the precision that inference really runs in on this CPU; without OpenVINO that is f32.

    Raises:
        InputError: a name that is not a precision.

    Example:
        >>> chosen_precision("f32")
        'f32'
    """
    if asked not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {asked!r}")
    if asked == "f32" or (_BF16_INSTRUCTIONS.isdisjoint(cpu_features()) and asked == "auto") or not is_installed():
        return "f32"
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return precision_for(asked, capabilities, cpu_features())


def gain_of_openvino(instructions: Collection[str], *, is_there: bool) -> str | None:
    """Return in one line what installing OpenVINO would gain on a CPU; None where it is there or would gain nothing.

    Example:
        >>> gain_of_openvino({"avx2"}, is_there=False) is None
        True
    """
    fast = sorted(_BF16_INSTRUCTIONS & set(instructions))
    if is_there or not fast:
        return None
    return (
        f"this CPU has {' and '.join(fast)}: pip install 'mobilenet-hub[openvino]' computes in bf16, in bulk about 1.5 "
        "to 1.8 times as fast as LiteRT's f32"
    )


def is_installed() -> bool:
    """Tell whether OpenVINO can be imported."""
    return find_spec("openvino") is not None


def precision_for(asked: Precision, capabilities: Collection[str], instructions: Collection[str]) -> Arithmetic:
    """Return what "auto", "bf16" or "f32" means on a CPU.

    "auto" is bf16 where the CPU has instructions for it, else f32. "bf16" asked for on a CPU that OpenVINO cannot run
    it on is f32 too: more exact, and the fastest there is.

    Args:
        asked: what was asked for.
        capabilities: what OpenVINO says that it can do on the CPU ("BF16" among them or not).
        instructions: the CPU's, as Linux names them.

    Example:
        >>> precision_for("auto", {"FP32", "BF16"}, {"avx512f", "avx512_bf16"})
        'bf16'
        >>> precision_for("auto", {"FP32", "BF16"}, {"avx512f"})
        'f32'
    """
    if asked == "f32" or "BF16" not in capabilities:
        return "f32"
    return "bf16" if asked == "bf16" or not _BF16_INSTRUCTIONS.isdisjoint(instructions) else "f32"
