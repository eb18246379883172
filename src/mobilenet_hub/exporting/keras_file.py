"""The export for Keras 3: a .keras file that holds `models.MobileNet`, for any backend.

It loads with plain `keras.saving.load_model` after `import mobilenet_hub`. Keras inside functions.
"""

import zipfile
from pathlib import Path

import numpy as np

from mobilenet_hub.exporting.proof import Run
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.module_folder import CONFIG_FILE
from mobilenet_hub.weights.exported import STATED


def write(request: Request, file: Path) -> None:
    """Write the file."""
    from mobilenet_hub.hub.running import build_network

    build_network(request.contract, request.weights, name=request.config.architecture).save(file)
    with zipfile.ZipFile(file, "a") as archive:
        # A file that Keras saves again, after more training say, has it no more. ZipInfo's date is always the same.
        archive.writestr(zipfile.ZipInfo(CONFIG_FILE), request.carried[STATED])


def load(request: Request, file: Path) -> tuple[str, Run]:
    """Load it with Keras; return the runtime's name and a function that runs it."""
    import keras

    model = keras.saving.load_model(file)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return {request.outputs[0]: keras.ops.convert_to_numpy(model(images, training=False))}

    return f"Keras {keras.__version__} on {keras.backend.backend()}", run
