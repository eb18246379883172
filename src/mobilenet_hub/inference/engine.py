"""Compiled inference: a module, compiled by OpenVINO for this CPU, kept on disk so that the next start is fast.

Imports disk, errors, machine, architecture, catalog, weights, store (for the cache's folder), hints and graph;
OpenVINO on first use. Nothing here opens a connection: no download, no telemetry.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from importlib import import_module
from io import BytesIO
from math import log2
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from mobilenet_hub.architecture import height_and_width
from mobilenet_hub.errors import InputError, UnknownModuleError
from mobilenet_hub.host.cpu import cpu_features
from mobilenet_hub.host.files import sha256_of
from mobilenet_hub.inference.graph import Arithmetic, InputType, build_graph, checked_outputs, import_openvino
from mobilenet_hub.inference.openvino_hints import prefer_avx2_kernels
from mobilenet_hub.module_folder import WEIGHTS_FILE, Module, ModuleConfig, read_config, read_module
from mobilenet_hub.store.cache import cache_folder
from mobilenet_hub.version import __version__

if TYPE_CHECKING:
    from openvino import CompiledModel, Model

Precision = Literal["auto", "f32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "f32", "bf16")

# The instructions that make bf16 faster than f32. OpenVINO also emulates bf16 on AVX-512, which is slower than f32.
_BF16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16"})
_CHUNK_MACS = 64e6  # work per request in bulk: enough to hide what a request costs, little enough to waste
_MAX_CHUNK = 16
_HEADER = b"mobilenet-hub compiled model".ljust(32)
# What is compiled depends on the code of these.
_MAKERS = ("architecture", "inference.bfloat16", "inference.graph", "inference.openvino_hints")
_MAX_CACHE_BYTES = 1 << 30


class Engine:
    """A module compiled for one image size and a set of outputs.

    One image is spread over all threads; of several, each thread takes its own chunks. Each of the two ways is
    compiled when it is first needed.

    Attributes:
        config: the module's configuration.
        image_size: (height, width) of the images that `run` takes.
        outputs: the names of what `run` returns.
        precision: "f32" or "bf16", what is really computed in.
    """

    def __init__(
        self,
        module: Module | str | os.PathLike[str],
        outputs: Sequence[str],
        *,
        image_size: int | tuple[int, int] | None = None,
        precision: Precision = "auto",
        threads: int | None = None,
        any_size: bool = False,
    ):
        """Open a module for inference.

        Args:
            module: a module folder, whose compiled form is kept on disk, or a module in memory, compiled each time.
            outputs: names out of `graph.output_names`: "logits", "features", slim's endpoints.
            image_size: a side or (height, width); None: the size that the module was trained at.
            precision: "f32", "bf16" (f32 where the CPU has no bf16) or "auto", the faster that the CPU has.
            threads: how many to use; None: as many as there are cores.
            any_size: allow another size than the published module allows.

        Raises:
            InputError: the module does not allow this image size, or an argument has no meaning.
            InvalidModuleError: the module's folder is damaged.

        Example:
            >>> from mobilenet_hub.store import resolve
            >>> engine = Engine(resolve("starter"), ["features"])
            >>> engine.run(np.zeros((2, *engine.image_size, 3), np.float32))["features"].shape[0]
            2
        """
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise InputError(f"threads must be a whole number from 1, or None for all cores, not {threads!r}")
        self.config = module.config if isinstance(module, Module) else read_config(module)
        self.image_size = checked_image_size(self.config, image_size, any_size=any_size)
        self.outputs = checked_outputs(self.config.network, outputs)
        self.precision: Arithmetic = chosen_precision(precision)
        self._module = module if isinstance(module, Module) else Path(module)
        self.threads = threads
        self._networks: dict[tuple[InputType, bool], CompiledNetwork] = {}
        self._lock = Lock()

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of a batch.

        Args:
            images: [batch, height, width, 3] of this engine's image size: float32 in [0, 1], or uint8 in 0..255. The
                values of float32 images are not checked here.

        Returns:
            For each output its name and float32 array, [batch, ...].

        Raises:
            InputError: another shape or dtype.

        Example:
            >>> from mobilenet_hub.store import resolve
            >>> engine = Engine(resolve("starter"), ["global_pool"])
            >>> engine.run(np.zeros((1, *engine.image_size, 3), np.uint8))["global_pool"].ndim
            4
        """
        if images.ndim != 4 or images.shape[1:] != (*self.image_size, 3) or images.dtype not in (np.float32, np.uint8):
            height, width = self.image_size
            raise InputError(
                f"expected images of shape [batch, {height}, {width}, 3], float32 in [0, 1] or uint8, "
                f"not {list(images.shape)} of {images.dtype}"
            )
        with self._lock:
            return self._network(cast("InputType", str(images.dtype)), len(images) > 1).run(images)

    def graph(self, batch_size: int, input_type: InputType) -> "Model":
        """Build the graph that is compiled for a fixed batch size."""
        module = self._module if isinstance(self._module, Module) else read_module(self._module)
        network = module.config.network
        return build_graph(
            network,
            module.weights,
            self.image_size,
            self.outputs,
            batch_size=batch_size,
            input_type=input_type,
            precision=self.precision,
        )

    def _network(self, input_type: InputType, bulk: bool) -> "CompiledNetwork":
        key = (input_type, bulk)
        if key not in self._networks:
            self._networks[key] = self._compile(input_type, bulk)
        return self._networks[key]

    def _compile(self, input_type: InputType, bulk: bool) -> "CompiledNetwork":
        settings = device_settings(self.precision, self.threads, bulk)
        chunk = self.chunk if bulk else 1
        core = import_openvino().Core()

        def build() -> "tuple[CompiledModel, bool]":
            """Compile; tell whether it is as fast as it can be, and so worth keeping."""
            graph = self.graph(chunk, input_type)
            best = prefer_avx2_kernels(graph) if cpu_features() & {"avx2", "avx512f"} == {"avx2"} else graph
            return core.compile_model(graph if best is None else best, "CPU", settings), best is not None

        if isinstance(self._module, Module):
            return CompiledNetwork(build()[0], chunk, self.outputs)
        key = _cache_key(self._module, self.config, self.image_size, self.outputs, chunk, input_type, settings)
        file = cache_folder() / "compiled" / f"{key}.blob"
        compiled = _load_compiled(file, settings)
        if compiled is None:
            compiled, worth_keeping = build()
            if worth_keeping:
                _save_compiled(file, compiled)
        return CompiledNetwork(compiled, chunk, self.outputs)

    @property
    def chunk(self) -> int:
        """How many images a request takes in bulk."""
        images = _CHUNK_MACS / self.config.network.macs(*self.image_size)
        return min(max(2 ** round(log2(images)), 1), _MAX_CHUNK)


def checked_image_size(
    config: ModuleConfig, image_size: int | tuple[int, int] | None, *, any_size: bool = False
) -> tuple[int, int]:
    """Return (height, width) to run a module at, if it allows it.

    Published modules other than V1's versions 3 to 5 were fixed to their own size; modules of one's own are not.

    Args:
        config: the module's configuration.
        image_size: a side or (height, width); None: the trained size.
        any_size: allow what the published module does not.

    Raises:
        InputError: the module does not allow this size.

    Example:
        >>> handle = "google/imagenet/mobilenet_v1_025_128/feature_vector/5"
        >>> config = ModuleConfig("mobilenet_v1", 0.25, (128, 128), handle=handle)
        >>> checked_image_size(config, 160)
        (160, 160)
    """
    if image_size is None:
        return config.image_size
    size = height_and_width(image_size)
    if size != config.image_size and not any_size and _has_fixed_size(config):
        trained = "x".join(map(str, config.image_size))
        raise InputError(
            f"{config.handle} takes images of {trained} pixels only, not {size[0]}x{size[1]}: leave the image size "
            f"out, take a V1 module of version 3 to 5, or insist with any_size=True (--any-size)"
        )
    return size


def chosen_precision(asked: Precision) -> Arithmetic:
    """Return the precision that inference really runs in on this CPU.

    "auto" is bf16 where the CPU has instructions for it, else f32. "bf16" asked for on a CPU that OpenVINO cannot run
    it on is f32 too: more exact, and the fastest there is.

    Raises:
        InputError: a name that is not a precision.

    Example:
        >>> chosen_precision("f32")
        'f32'
    """
    if asked not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {asked!r}")
    if asked == "f32" or "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "f32"
    return "bf16" if asked == "bf16" or _BF16_INSTRUCTIONS & cpu_features() else "f32"


def _has_fixed_size(config: ModuleConfig) -> bool:
    from mobilenet_hub.catalog.published import find_module

    if config.handle is None:
        return False
    try:
        return find_module(config.handle).fixed_size
    except UnknownModuleError:
        return False


def device_settings(precision: str, threads: int | None, bulk: bool) -> dict[str, Any]:
    """Return OpenVINO's settings for one image at a time or, in bulk, for many."""
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT" if bulk else "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    if threads is not None:
        settings |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads if bulk else 1}
    return settings


class CompiledNetwork:
    """A compiled model of a fixed batch size, `chunk`, and as many requests as it runs at a time."""

    def __init__(self, compiled: "CompiledModel", chunk: int, outputs: tuple[str, ...]):
        self._compiled = compiled
        self._chunk = chunk
        # By position: "logits" and "Logits" are one tensor, which OpenVINO may know by either name.
        self._shapes = {name: tuple(o.shape)[1:] for name, o in zip(outputs, compiled.outputs, strict=True)}
        count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests = [compiled.create_infer_request() for _ in range(count)]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the chunks in turn on the requests; each writes its part of the results, the last chunk filled up."""
        from openvino import Tensor

        starts = range(0, len(images), self._chunk)
        rows = len(starts) * self._chunk
        results = {name: np.empty((rows, *shape), np.float32) for name, shape in self._shapes.items()}
        images = np.ascontiguousarray(images)
        for turn, start in enumerate(starts):
            request = self._requests[turn % len(self._requests)]
            request.wait()
            part = images[start : start + self._chunk]
            if len(part) < self._chunk:
                part = np.concatenate([part, np.zeros((self._chunk - len(part), *part.shape[1:]), part.dtype)])
            request.set_input_tensor(Tensor(part, shared_memory=part.flags.writeable))
            for index, result in enumerate(results.values()):
                request.set_output_tensor(index, Tensor(result[start : start + self._chunk], shared_memory=True))
            request.start_async()
        for request in self._requests:
            request.wait()
        return {name: result[: len(images)] for name, result in results.items()}


def _cache_key(folder: Path, config: ModuleConfig, *choices: object) -> str:
    """Name all that a compiled model depends on: weights, network, what was asked for, our code, OpenVINO, CPU."""
    openvino = import_openvino()
    core = openvino.Core()
    hardware = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    try:
        digest = sha256_of(folder / WEIGHTS_FILE)
    except OSError:
        digest = "unreadable"  # and so in no cache: reading the module will say what is wrong
    parts = (digest, config.network, choices, _code(), openvino.get_version(), hardware, sorted(cpu_features()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _code() -> list[bytes]:
    files = [import_module(f"mobilenet_hub.{name}").__file__ for name in _MAKERS]
    try:
        return [Path(file or "").read_bytes() for file in files]
    except OSError:  # a distribution without sources
        return [__version__.encode()]


def _load_compiled(file: Path, settings: dict[str, Any]) -> "CompiledModel | None":
    """Read a compiled model back, or None where there is none that is whole."""
    from openvino import Core

    try:
        content = file.read_bytes()
        os.utime(file)  # the cache drops what was not used for longest
    except OSError:
        return None
    start = len(_HEADER) + hashlib.sha256().digest_size
    blob = content[start:]
    if content[:start] != _HEADER + hashlib.sha256(blob).digest():
        return None
    try:
        return Core().import_model(blob, "CPU", settings)
    except RuntimeError:  # of another build of OpenVINO, against all odds
        return None


def _save_compiled(file: Path, compiled: "CompiledModel") -> None:
    """Keep a compiled model for the next start; a cache that cannot be written is done without."""
    exported = BytesIO()
    compiled.export_model(exported)
    blob = exported.getbuffer()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".partial", delete=False) as stream:
            try:
                stream.write(_HEADER + hashlib.sha256(blob).digest())
                stream.write(blob)
                stream.close()
                Path(stream.name).replace(file)
            except BaseException:
                Path(stream.name).unlink(missing_ok=True)
                raise
        _prune(file.parent)
    except OSError:
        pass


def _prune(folder: Path) -> None:
    files = sorted(((f.stat().st_mtime, f.stat().st_size, f) for f in folder.glob("*.blob")), reverse=True)
    total = 0
    for _, size, file in files:
        total += size
        if total > _MAX_CACHE_BYTES:
            file.unlink(missing_ok=True)
