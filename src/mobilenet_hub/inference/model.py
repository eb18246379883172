"""What `Classifier` and `Embedder` have in common: a module, its engine, and how images get there."""

import os
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mobilenet_hub.catalog.published import Kind
from mobilenet_hub.images.batches import batches
from mobilenet_hub.images.fit import Fit, Preprocessing
from mobilenet_hub.inference.engine import Engine, EngineChoice, Precision
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_config
from mobilenet_hub.store import locate

if TYPE_CHECKING:
    from mobilenet_hub.images.batches import Images


class Model:
    """A module, ready for images, with one output; `Classifier` and `Embedder` are the two that there are."""

    output: ClassVar[str]
    kind: ClassVar[Kind]  # the module that is meant by the name of a published network alone

    def __init__(
        self,
        module: str | os.PathLike[str] | Module = "starter",
        precision: Precision = "auto",
        image_size: int | tuple[int, int] | None = None,
        *,
        fit: Fit | None = None,
        threads: int | None = None,
        any_size: bool = False,
        engine: EngineChoice = "auto",
        few: bool = False,
    ):
        """Open a module; the first images compile it, or find it compiled on disk.

        Args:
            module: a name of a module, a module folder's path, or a module in memory.
            precision: "f32", "bf16" or "auto": bf16 where this CPU has instructions for it and no score moves by more
                than 0.05, else f32.
            image_size: a side or (height, width); None: what the module was trained at.
            fit: how an image of another shape is fitted; None: what the module says, or the default of `images`.
            threads: how many compute and decode; None: as many as there are cores.
            any_size: allow an image size that the published module does not.
            engine: "litert", "openvino", or "auto", the fastest for the job: OpenVINO for bf16, else LiteRT.
            few: whether a few photos are all that is to come: "auto" is then what starts fastest, LiteRT in f32.

        Raises:
            InputError: no such fit; or the module does not have the output, or does not allow this image size.
            MissingExtraError: the engine is not installed.
            UnknownModuleError, ModuleUnavailableError, InvalidModuleError: as `resolve` and `read_module` do.
        """
        source = module if isinstance(module, Module) else locate(module, usual_size=image_size, kind=self.kind)
        self._name = os.fspath(module) if isinstance(module, str | os.PathLike) else "a module in memory"
        self.config: ModuleConfig = source.config if isinstance(source, Module) else read_config(source)
        self.check()
        self.engine = Engine(
            source,
            (self.output,),
            image_size=image_size,
            precision=precision,
            threads=threads,
            any_size=any_size,
            engine=engine,
            few=few,
        )
        self.preprocessing = Preprocessing(self.engine.image_size, fit or self.config.fit)
        self.image_size = self.engine.image_size
        self.precision, self.engine_name = self.engine.precision, self.engine.engine_name
        self.fit: Fit = self.preprocessing.fit

    def __repr__(self) -> str:
        """Say in one line what it is, at which size, and what computes it."""
        config, (height, width) = self.config, self.image_size
        of = {"logits": (config.num_classes, "classes"), "features": (config.network.num_features, "features")}
        count = " ".join(map(str, of[self.output]))
        return (
            f"{type(self).__name__}({self._name}: {config.architecture}, depth multiplier {config.depth_multiplier:g}, "
            f"{height}x{width}, {count}; {self.precision} on {self.engine_name})"
        )

    def check(self) -> None:
        """Refuse a module that does not have the output."""

    def outputs_of(self, images: "Images", shape: tuple[int, ...]) -> np.ndarray:
        """Return the output for images, float32 [n, *shape]."""
        parts = [
            self.engine.run(batch)[self.output]
            for _, batch in batches(images, self.preprocessing, threads=self.engine.threads)
        ]
        return np.concatenate(parts) if parts else np.empty((0, *shape), np.float32)
