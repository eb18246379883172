"""Published modules made up for the store's tests: weights as training might leave them, in any published format."""

import gzip
import io
import tarfile

from tensorflow_files import signature, some_weights, write_bundle, write_hub1, write_saved_model

from mobilenet_hub.architecture import architecture
from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module

SMALL = "google/imagenet/mobilenet_v1_025_128/feature_vector/4"  # the smallest published: 870 kB


def network_of(module):
    return architecture(module.architecture, module.depth_multiplier, module.num_classes)


def write_published(folder, module, weights):
    """Write a module in the format that it was published in."""
    if module.format == "hub1":
        return write_hub1(folder, weights, module.image_size)
    height, width = module.image_size if module.fixed_size else (-1, -1)
    named = module.family == "imagenet" or module.version >= 3  # tensorflow/hub issue 287
    variables = network_of(module).variables
    listed = [(name if named else "", array, variables[name].trainable) for name, array in weights.items()]
    return write_saved_model(folder, listed, signature((-1, height, width, 3)))


def write_checkpoint(folder, module, weights):
    """Write TF-Slim's checkpoint of a module's network; the weights must have the classifier."""
    write_bundle(folder / module.checkpoint.rpartition("/")[2], weights)
    return folder


def write_plain(folder, module, weights):
    """Write a module folder."""
    config = ModuleConfig(module.architecture, module.depth_multiplier, module.image_size, module.num_classes)
    return write_module(folder, Module(config, weights))


def packed(folder, level=1):
    """Return a folder's files as a tar.gz archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".")
    return gzip.compress(buffer.getvalue(), level)


def published_archive(folder, name, seed=0):
    """Return a made-up module as the archive that its publisher serves, and its weights."""
    module = find_module(name)
    weights = some_weights(network_of(module), seed)
    return packed(write_published(folder, module, weights)), weights


def checkpoint_archive(folder, name, seed=0):
    """Return TF-Slim's archive of a module's network, and the weights in it."""
    module = find_module(name)
    weights = some_weights(architecture(module.architecture, module.depth_multiplier, 1001), seed)
    return packed(write_checkpoint(folder, module, weights)), weights


def snapshot(folder):
    """Return what lies in a folder: names with content and time."""
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }
