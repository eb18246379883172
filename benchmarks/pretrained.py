"""Google's two pretrained V1 0.25 networks and the 143 photographs that they are measured on, in the shared folder."""

import tempfile
from pathlib import Path

import numpy as np

from mobilenet_hub.module_folder import read_module
from mobilenet_hub.weights.convert import convert

_FROZEN = {128: "mobilenet_v1_0.25_128_frozen.pb", 224: "mobilenet_v1_0.25_224_frozen.tgz"}
SIZES = tuple(_FROZEN)


def network(shared, size):
    """Return the network for images of this size, in memory."""
    with tempfile.TemporaryDirectory() as folder:
        return read_module(convert(shared / "weights" / "slim_frozen" / _FROZEN[size], Path(folder) / "module"))


def photos(shared):
    """Return the files, the right class of each, and the original pipeline's logits for each size."""
    with np.load(shared / "golden" / "pretrained_v1_025.npz") as reference:
        files = [shared / "photos" / "imagenet_samples" / name for name in reference["files"]]
        return files, reference["labels"], {size: reference[f"{size}/photo_logits"] for size in SIZES}
