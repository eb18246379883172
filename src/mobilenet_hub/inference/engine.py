"""Compiled inference: a module, compiled by OpenVINO for this CPU, kept on disk so that the next start is fast.

Nothing here opens a connection: no download, no telemetry.
"""

import os
from collections.abc import Collection, Sequence
from math import log2
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from mobilenet_hub.errors import InputError, InvalidModuleError
from mobilenet_hub.host.cpu import cpu_features
from mobilenet_hub.inference.compiled import CompiledNetwork, cache_key, device_settings, load_compiled, save_compiled
from mobilenet_hub.inference.graph import Arithmetic, InputType, build_graph, checked_outputs, import_openvino
from mobilenet_hub.inference.openvino_hints import prefer_avx2_kernels, wants_avx2_kernels
from mobilenet_hub.module import Module, ModuleConfig, check_has_weights, checked_image_size
from mobilenet_hub.module_folder import read_config, read_module
from mobilenet_hub.store.cache import cache_folder

if TYPE_CHECKING:
    from openvino import CompiledModel, Model

    from mobilenet_hub.inference.quantized_file import QuantizedNetwork

Precision = Literal["auto", "f32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "f32", "bf16")

# The instructions that make bf16 faster than f32. OpenVINO also emulates bf16 on AVX-512, which is slower than f32.
_BF16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16"})
_CHUNK_MACS = 64e6  # work per request in bulk: enough to hide what a request costs, little enough to waste
_MAX_CHUNK = 16


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
        self._kept = _kept_file(module, self.config, self.outputs, precision, threads)
        self.precision: Arithmetic | Literal["int8"] = "int8" if self._kept else chosen_precision(precision)
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
        if self._kept:
            return self._kept.run(images)
        with self._lock:
            return self._network(cast("InputType", str(images.dtype)), len(images) > 1).run(images)

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities [n, classes] in float64 of the "logits" that this engine gave.

        A quantized file that gives probabilities gives them as "logits"; they are left as they are.
        """
        return logits.astype(np.float64) if self._kept and self._kept.gives_probabilities else softmax(logits)

    def graph(self, batch_size: int, input_type: InputType) -> "Model":
        """Build the graph that is compiled for a fixed batch size."""
        check_has_weights(self.config, "compile it otherwise")
        module = self._module if isinstance(self._module, Module) else read_module(self._module)
        network = module.config.network
        return build_graph(
            network,
            module.weights,
            self.image_size,
            self.outputs,
            batch_size=batch_size,
            input_type=input_type,
            precision=cast("Arithmetic", self.precision),
        )

    def _network(self, input_type: InputType, bulk: bool) -> "CompiledNetwork":
        key = (input_type, bulk)
        if key not in self._networks:
            self._networks[key] = self._compile(input_type, bulk)
        return self._networks[key]

    def _compile(self, input_type: InputType, bulk: bool) -> "CompiledNetwork":
        settings = device_settings(cast("Arithmetic", self.precision), self.threads, bulk)
        chunk = self.chunk if bulk else 1
        core = import_openvino().Core()

        def build() -> "tuple[CompiledModel, bool]":
            """Compile; tell whether it is as fast as it can be, and so worth keeping."""
            graph = self.graph(chunk, input_type)
            best = prefer_avx2_kernels(graph) if wants_avx2_kernels(cpu_features()) else graph
            return core.compile_model(graph if best is None else best, "CPU", settings), best is not None

        if isinstance(self._module, Module):
            return CompiledNetwork(build()[0], chunk, self.outputs)
        key = cache_key(self._module, self.config, self.image_size, self.outputs, chunk, input_type, settings)
        file = cache_folder() / "compiled" / f"{key}.blob"
        compiled = load_compiled(file, settings)
        if compiled is None:
            compiled, worth_keeping = build()
            if worth_keeping:
                save_compiled(file, compiled)
        return CompiledNetwork(compiled, chunk, self.outputs)

    @property
    def chunk(self) -> int:
        """How many images a request takes in bulk."""
        images = _CHUNK_MACS / self.config.network.macs(*self.image_size)
        return min(max(2 ** round(log2(images)), 1), _MAX_CHUNK)


def _kept_file(
    module: Module | str | os.PathLike[str],
    config: ModuleConfig,
    outputs: tuple[str, ...],
    precision: Precision,
    threads: int | None,
) -> "QuantizedNetwork | None":
    """Return the quantized file that a module keeps, ready to run; None for every other module."""
    if config.model is None:
        return None
    if precision != "auto":
        check_has_weights(config, f"run it in {precision}; leave the precision out")
    from mobilenet_hub.inference.quantized_file import QuantizedNetwork

    module = module if isinstance(module, Module) else read_module(module)
    if module.model is None:
        raise InvalidModuleError(f"the module lacks its quantized file {config.model}")
    file = (module.path or Path()) / config.model
    return QuantizedNetwork(module.model, file, config, outputs, threads)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [n, classes] in float64 for logits [n, classes].

    Example:
        >>> softmax(np.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def chosen_precision(asked: Precision) -> Arithmetic:
    """Return the precision that inference really runs in on this CPU.

    Raises:
        InputError: a name that is not a precision.

    Example:
        >>> chosen_precision("f32")
        'f32'
    """
    if asked not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {asked!r}")
    if asked == "f32":
        return "f32"
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return precision_for(asked, capabilities, cpu_features())


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
