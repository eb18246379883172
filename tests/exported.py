"""The modules that the exports are tested with: small published ones of random weights."""

from functools import cache

from reference_network import random_weights

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.module import Module, ModuleConfig

V1_CLASSES = "google/imagenet/mobilenet_v1_025_128/classification/5"
V1_FEATURES = "google/imagenet/mobilenet_v1_025_128/feature_vector/5"
V2_CLASSES = "google/imagenet/mobilenet_v2_035_96/classification/5"
V2_FEATURES = "google/imagenet/mobilenet_v2_035_96/feature_vector/5"
HANDLES = (V1_CLASSES, V1_FEATURES, V2_CLASSES, V2_FEATURES)
MAX_DIFFERENCE = 1e-4  # of the largest output: what independent float32 implementations of these networks agree to


@cache
def made_module(handle):
    """A published module with random weights, and labels where it has classes."""
    found = find_module(handle)
    labels = tuple(f"class {i}" for i in range(found.num_classes)) or None
    config = ModuleConfig(
        found.architecture, found.depth_multiplier, found.image_size, found.num_classes, labels, found.handle
    )
    return Module(config, random_weights(config.network))
