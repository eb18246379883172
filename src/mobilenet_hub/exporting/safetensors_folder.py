"""The export as a module folder: module.json, weights.safetensors, labels.txt."""

from pathlib import Path

import numpy as np

from mobilenet_hub.errors import ProofError
from mobilenet_hub.exporting.proof import Run
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import read_module, write_module


def write(request: Request, folder: Path) -> None:
    """Write the module folder into an empty folder."""
    write_module(folder, Module(request.config, request.weights))


def load(request: Request, folder: Path) -> tuple[str, Run]:
    """Read it back; return the runtime's name and a function that runs it.

    Raises:
        ProofError: the weights read back are not bit for bit those that were written.
    """
    module = read_module(folder)
    if any(module.weights[name].tobytes() != array.tobytes() for name, array in request.weights.items()):
        raise ProofError("the export is not right: its weights were read back with other bits; nothing was kept")

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        engine = Engine(module, request.endpoints, image_size=images.shape[1:3], precision="f32", any_size=True)
        return engine.run(images)

    return "mobilenet-hub", run
