"""Make the packaged starter of a trained module: `python pack.py MODULE FOLDER`.

Kernels become float16, which readers widen again: half the size, and the same accuracy (README.md beside this file).
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mobilenet_hub.weights.module_folder import WEIGHTS_FILE, Module, read_module, write_module


def pack(trained: Path, folder: Path) -> None:
    """Write module.json, labels.txt and the weights."""
    module = read_module(trained)
    config = replace(
        module.config,
        license="Apache-2.0",
        source={"recipe": "recipes/starter", "method": "from-scratch"},
        trained_on={**module.config.trained_on, "photos": "Tiny ImageNet, 202 classes"},
    )
    write_module(folder, Module(config, module.weights), overwrite=True)
    packed = {name: a.astype(np.float16) if a.ndim == 4 else a for name, a in module.weights.items()}
    save_file(packed, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)
    read_module(folder)  # is one still


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
