"""What computes a module's outputs: LiteRT or OpenVINO behind one interface, chosen once.

Nothing here opens a connection: no download, no telemetry.
"""

import os
import platform
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mobilenet_hub.errors import InputError, InvalidModuleError, MissingExtraError
from mobilenet_hub.host.cpu import cpu_features
from mobilenet_hub.inference.graph import Arithmetic, checked_outputs
from mobilenet_hub.inference.job import PRECISIONS, EngineName, Job, Precision
from mobilenet_hub.inference.litert import LiteRT
from mobilenet_hub.inference.openvino import OpenVINO, chosen_precision
from mobilenet_hub.inference.probabilities import softmax
from mobilenet_hub.module import Module, check_has_weights, checked_image_size
from mobilenet_hub.module_folder import read_config, read_module

if TYPE_CHECKING:
    from mobilenet_hub.inference.quantized_file import QuantizedNetwork

EngineChoice = Literal["auto", "litert", "openvino"]
_PACKAGES: dict[EngineName, str] = {"litert": "ai_edge_litert", "openvino": "openvino"}
_DTYPES = (np.dtype(np.float32), np.dtype(np.uint8))  # of images
ENGINES: tuple[EngineChoice, ...] = ("auto", *_PACKAGES)
# In f32 and in bulk OpenVINO is the faster one for networks of fewer multiply-adds, on CPUs that compute 512 bits at
# once (Zen 5, Sapphire Rapids and later). Zen 4, which halves them, and CPUs with AVX2 alone lack one of the two.
_SMALL_MACS = 140e6
_WIDE_VECTORS = frozenset({"avx512f", "avx_vnni"})


class Engine:
    """A module ready for one image size and a set of outputs.

    Attributes:
        config: the module's configuration.
        image_size: (height, width) of the images that `run` takes.
        outputs: the names of what `run` returns.
        precision: "f32" or "bf16", what is really computed in.
        engine_name: "litert" or "openvino", what really computes.
        threads: how many it uses; None: as many as there are cores.
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
        engine: EngineChoice = "auto",
        few: bool = False,
    ):
        """Open a module for inference.

        Args:
            module: a module folder, whose compiled form is kept on disk, or a module in memory, compiled each time.
            outputs: names out of `graph.output_names`: "logits", "features", slim's endpoints.
            image_size: a side or (height, width); None: the size that the module was trained at.
            precision: "f32", "bf16" (f32 where the CPU or the engine has no bf16) or "auto", the faster that there is
                and that moves no score of this module by more than 0.05.
            threads: how many to use; None: as many as there are cores.
            any_size: allow another size than the published module allows.
            engine: "litert", "openvino", or "auto", the fastest for the job, as `engine_for` says.
            few: whether a few photos are all that is to come: "auto" is then what starts fastest, LiteRT in f32.

        Raises:
            InputError: the module does not allow this image size, or an argument has no meaning.
            InvalidModuleError: the module's folder is damaged.
            MissingExtraError: the engine is not installed.

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
        self.threads = threads
        self._shape = (*self.image_size, 3)
        source = module if isinstance(module, Module) else Path(module)
        self.job = Job(source, self.config, self.image_size, self.outputs, threads)
        self._kept = _kept_file(module, self.job, precision, engine)
        arithmetic = "f32" if self._kept else settled_precision(precision, engine, few=few)
        if (arithmetic, precision) == ("bf16", "auto") and "logits" in outputs:
            from mobilenet_hub.inference.score_check import keeps_scores

            arithmetic = "bf16" if keeps_scores(self.job) else "f32"
        asked = "litert" if self._kept else engine
        macs = None if few else self.config.network.macs(*self.image_size)
        self.engine_name: EngineName = engine_for(asked, arithmetic, installed_engines(), macs_in_bulk=macs)
        self.precision: Arithmetic | Literal["int8"] = "int8" if self._kept else arithmetic
        self._runner = LiteRT(self.job) if self.engine_name == "litert" else OpenVINO(self.job, arithmetic)
        self._lock = Lock()

    def with_threads(self, threads: int) -> "Engine":
        """Return this engine opened anew, with its module in memory and another number of threads."""
        return _reopened(*self._opened_with(threads))

    def with_outputs(self, outputs: Sequence[str]) -> "Engine":
        """Return this engine opened anew, with other outputs.

        Raises:
            InputError: an output that the network does not have.
        """
        return Engine(
            self.job.source, outputs, image_size=self.image_size, any_size=True, **self._options(self.threads)
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what it was opened with, for another process or machine to compile: the module with its weights."""
        return _reopened, self._opened_with(self.threads)

    def _opened_with(
        self, threads: int | None
    ) -> "tuple[Module, tuple[str, ...], tuple[int, int], str, dict[str, Any]]":
        return self.job.module(), self.outputs, self.image_size, self.precision, self._options(threads)

    def _options(self, threads: int | None) -> dict[str, Any]:
        asked = "auto" if self._kept else self.precision  # a kept file computes as it does
        return {"precision": asked, "engine": self.engine_name, "threads": threads}

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
        self._check(images)
        if self._kept:
            return self._kept.run(images)
        with self._lock:
            return self._runner.run(images)

    def run_here(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute as `run` does, on one core: for threads that each have images of their own, any number of them.

        A module's kept quantized file is run for one after the other, on all cores.

        Raises:
            InputError: another shape or dtype.

        Example:
            >>> from mobilenet_hub.store import resolve
            >>> engine = Engine(resolve("starter"), ["features"])
            >>> engine.run_here(np.zeros((2, *engine.image_size, 3), np.uint8))["features"].shape[0]
            2
        """
        self._check(images)
        return self._kept.run(images) if self._kept else self._runner.run_here(images)

    def _check(self, images: np.ndarray) -> None:
        if images.shape[1:] != self._shape or images.dtype not in _DTYPES:
            height, width = self.image_size
            raise InputError(
                f"expected images of shape [batch, {height}, {width}, 3], float32 in [0, 1] or uint8, "
                f"not {list(images.shape)} of {images.dtype}"
            )

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities [n, classes] in float64 of the "logits" that this engine gave.

        The module's temperature is applied, which never changes their order. A quantized file that gives probabilities
        gives them as "logits"; they are left as they are.
        """
        if self._kept and self._kept.gives_probabilities:
            return logits.astype(np.float64)
        return softmax(logits.astype(np.float64) / self.config.variant.temperature)


def settled_precision(asked: Precision, engine: EngineChoice, *, few: bool = False) -> Arithmetic:
    """Return what is really computed in; LiteRT, which "auto" takes for a few photos, has f32 alone.

    Raises:
        InputError: a name that is not a precision.
    """
    on_litert = engine == "litert" or (few and (engine, asked) == ("auto", "auto") and "litert" in installed_engines())
    return chosen_precision("f32" if on_litert and asked in PRECISIONS else asked)


def _kept_file(
    module: Module | str | os.PathLike[str], job: Job, precision: Precision, engine: EngineChoice
) -> "QuantizedNetwork | None":
    """Return the quantized file that a module keeps, ready to run; None for every other module."""
    config = job.config
    if config.model is None:
        return None
    if engine == "openvino":
        check_has_weights(config, "run it in OpenVINO; leave the engine out")
    if precision != "auto":
        check_has_weights(config, f"run it in {precision}; leave the precision out")
    from mobilenet_hub.inference.quantized_file import QuantizedNetwork

    module = module if isinstance(module, Module) else read_module(module)
    if module.model is None:
        raise InvalidModuleError(f"the module lacks its quantized file {config.model}")
    file = (module.path or Path()) / config.model
    return QuantizedNetwork(module.model, file, config, job.outputs, job.threads)


def _reopened(
    module: Module, outputs: Sequence[str], size: tuple[int, int], precision: str, options: dict[str, Any]
) -> Engine:
    engine = Engine(module, outputs, image_size=size, any_size=True, **options)
    if engine.precision != precision:
        raise InputError(
            f"this was begun in {precision}, and {platform.node()} computes in {engine.precision}: ask for "
            "the precision f32, which every machine has"
        )
    return engine


def installed_engines() -> tuple[EngineName, ...]:
    """Return the engines that can be imported.

    Example:
        >>> set(installed_engines()) <= {"litert", "openvino"}
        True
    """
    return tuple(name for name, package in _PACKAGES.items() if find_spec(package) is not None)


def engine_for(
    asked: EngineChoice,
    arithmetic: Arithmetic,
    installed: Collection[EngineName],
    *,
    macs_in_bulk: int | None = None,
    instructions: Collection[str] | None = None,
) -> EngineName:
    """Return the engine that a choice means.

    "auto" is OpenVINO for bf16; for f32 in bulk, too, where the network is small and the CPU has wide vectors; else
    LiteRT, which is as fast in bulk and faster for one image (docs/engine.md). Or the one that is installed.

    Args:
        asked: the choice.
        arithmetic: what is computed in.
        installed: the engines that there are.
        macs_in_bulk: multiply-adds of an image, where many images are to come; None: where few are.
        instructions: the CPU's, as Linux names them; None: of this one.

    Raises:
        InputError: a name that is not an engine.
        MissingExtraError: it is not installed, or none is.

    Example:
        >>> engine_for("auto", "bf16", {"litert", "openvino"}), engine_for("auto", "f32", {"litert", "openvino"})
        ('openvino', 'litert')
    """
    if asked not in ENGINES:
        raise InputError(f"engine must be one of {', '.join(ENGINES)}, not {asked!r}")
    small = macs_in_bulk is not None and macs_in_bulk < _SMALL_MACS
    wide = small and _WIDE_VECTORS.issubset(cpu_features() if instructions is None else instructions)
    first, second = ("openvino", "litert") if arithmetic == "bf16" or wide else ("litert", "openvino")
    name: EngineName = (first if first in installed or not installed else second) if asked == "auto" else asked
    if name not in installed:
        extra = "openvino" if name == "openvino" else "litert"
        raise MissingExtraError(_PACKAGES[name].replace("_", "-"), extra, f"the engine {name}")
    return name
