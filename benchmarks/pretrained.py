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


def photos(shared, count=None):
    """Return the files, or the first of them, the right class of each, and the original pipeline's logits by size."""
    with np.load(shared / "golden" / "pretrained_v1_025.npz") as reference:
        files = [shared / "photos" / "imagenet_samples" / name for name in reference["files"][:count]]
        logits = {size: reference[f"{size}/photo_logits"][:count] for size in SIZES}
        return files, reference["labels"][:count], logits
