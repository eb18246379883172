"""Make the packaged starter of a trained module: `python pack.py MODULE PHOTOS IMAGE_SIZE FOLDER`.

Kernels become float16, which readers widen again: half the size, and the same accuracy (README.md beside this file).
The image size may be larger than that of the training, whose random crops show things larger than whole photos do
(arXiv 1906.06423). The accuracy that the module states is measured at that size on PHOTOS, the archive's validation
photos in class folders.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mobilenet_hub.evaluation.evaluate import evaluate
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import WEIGHTS_FILE, read_module, write_module


def pack(trained: Path, photos: Path, image_size: int, folder: Path) -> None:
    """Write module.json, labels.txt and the weights."""
    module = read_module(trained)
    config = replace(
        module.config,
        image_size=(image_size, image_size),
        license="Apache-2.0",
        source={"recipe": "recipes/starter", "method": "from-scratch, then fine-tune"},
        trained_on={**module.config.trained_on, "photos": "Tiny ImageNet, 202 classes"},
    )
    weights = {n: a.astype(np.float16).astype(np.float32) if a.ndim == 4 else a for n, a in module.weights.items()}
    write_module(folder, Module(config, weights), overwrite=True)
    found = evaluate(folder, photos).metrics
    config = replace(config, metrics={"test": {"accuracy": round(found.accuracy, 6), "images": found.images}})
    write_module(folder, Module(config, weights), overwrite=True)
    packed = {name: a.astype(np.float16) if a.ndim == 4 else a for name, a in weights.items()}
    save_file(packed, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)
    read_module(folder)  # is one still


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
