"""What an engine is to compute: a module at one image size, with a set of outputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilenet_hub.module import Module, ModuleConfig, check_has_weights
from mobilenet_hub.module_folder import read_module

EngineName = Literal["litert", "openvino"]
Precision = Literal["auto", "f32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "f32", "bf16")


@dataclass(frozen=True)
class Job:
    """A module, checked, at the size and with the outputs that were asked for."""

    source: Module | Path  # in memory, or a module folder, whose compiled forms are kept on disk
    config: ModuleConfig
    image_size: tuple[int, int]
    outputs: tuple[str, ...]
    threads: int | None = None  # None: as many as there are cores

    @property
    def folder(self) -> Path | None:
        """The module folder; None where the module is in memory."""
        return None if isinstance(self.source, Module) else self.source

    def module(self) -> Module:
        """Return the module with its weights.

        Raises:
            InputError: it keeps a quantized file and has no weights.
            InvalidModuleError: the folder is damaged.
        """
        check_has_weights(self.config, "compile it otherwise")
        return self.source if isinstance(self.source, Module) else read_module(self.source)
