"""Saved models of tensorflow_hub's own layer: their weights by name, and their configuration without cache or network.

Keras gives a layer's weights by position. tensorflow_hub's layer kept them in the order of its SavedModel, which
differed from module to module, gamma before beta or after it: by position they would land in the wrong variables, at
times without an error. An .h5 file has their names. A .keras or .weights.h5 file has none; `weights_by_order` reads it.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
import numpy as np

from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.host.files import exists
from mobilenet_hub.hub.contract import USUAL_SIZE, Contract
from mobilenet_hub.keras.mobilenet import MobileNet
from mobilenet_hub.module import ModuleConfig, find_published
from mobilenet_hub.store.places import module_named_by
from mobilenet_hub.weights.identify import Source, Wanted, is_slim, slim_name, to_module
from mobilenet_hub.weights.variable_order import weights_by_order

_MANY = 80  # variables that no layer but a whole network has
_INSTALLED = "_mobilenet_hub"  # marks a function of Keras that stands for the one before it


class _Named(np.ndarray):
    """An array of an .h5 file that still knows its TF-Slim name."""

    slim_name: str = ""


def install() -> None:
    """Teach Keras's readers of saved models the names in .h5 files, and the classes of old ones."""
    from keras.src.legacy.saving import legacy_h5_format as h5
    from keras.src.saving import saving_lib

    if hasattr(h5._set_weights, _INSTALLED):
        return
    h5.load_subset_weights_from_hdf5_group = _keeping_names(h5)
    h5._set_weights = _by_name(h5._set_weights)
    h5.load_model_from_hdf5 = _watched(h5.load_model_from_hdf5)
    saving_lib.load_model = _watched(saving_lib.load_model)
    # Keras 2 wrote its own classes without saying where they are, or where they were in its own package.
    for name, found in (("Functional", keras.Model), ("Model", keras.Model), ("Sequential", keras.Sequential)):
        keras.saving.get_custom_objects().setdefault(name, found)


@dataclass
class _Reading:
    """The file that Keras is reading, and whether a layer of tensorflow_hub has been met in it."""

    file: Any
    has_old_layer: bool = False


_READING: ContextVar[_Reading | None] = ContextVar("reading", default=None)


def _watched(load: Callable[..., Any]) -> Callable[..., Any]:
    """Remember the file for the layers in it; where only its training does not fit Keras 3, say so and go on."""

    @wraps(load)
    def load_watched(filepath: Any, *args: Any, **kwargs: Any) -> Any:
        reading = _Reading(filepath)
        token = _READING.set(reading)
        try:
            return load(filepath, *args, **kwargs)
        except Exception as error:
            if not reading.has_old_layer or args or not kwargs.get("compile", True):
                raise
            model = load(filepath, **{**kwargs, "compile": False})
            warnings.warn(
                f"{filepath}: Keras 3 cannot read how this model of Keras 2 was compiled ({_last_line(error)}). The "
                "model and its weights are loaded; call model.compile(...) before training or evaluating it",
                stacklevel=3,
            )
            return model
        finally:
            _READING.reset(token)

    return load_watched


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


def _keeping_names(h5: Any) -> Callable[[Any], list[np.ndarray]]:
    read = h5.load_subset_weights_from_hdf5_group

    @wraps(read)
    def read_named(group: Any) -> list[np.ndarray]:
        names = h5.load_attributes_from_hdf5_group(group, "weight_names")
        return [_named(array, name) for array, name in zip(read(group), names, strict=True)]

    return read_named


def _named(array: np.ndarray, name: str) -> np.ndarray:
    name = slim_name(name)
    if not is_slim(name):
        return array
    named = np.asarray(array).view(_Named)
    named.slim_name = name
    return named


def _by_name(set_weights: Callable[..., None]) -> Callable[..., None]:
    @wraps(set_weights)
    def set_by_name(instance: Any, symbolic_weights: Any, weight_values: Any, *args: Any, **kwargs: Any) -> None:
        values = _matched(instance, symbolic_weights, weight_values)
        set_weights(instance, symbolic_weights, values, *args, **kwargs)

    setattr(set_by_name, _INSTALLED, True)
    return set_by_name


def _matched(layer: Any, variables: Sequence[Any], values: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Return values in the variables' order: those of a MobileNet by TF-Slim name, all others as they stand.

    Raises:
        InvalidModuleError: a variable of the network is not among the names, or one of the names not in the network.
    """
    stored = {value.slim_name: value for value in values if isinstance(value, _Named)}
    if not stored:  # a file of our own layer, whose order is ours, or of no MobileNet
        return values
    names = {
        id(variable): name
        for network in layer._flatten_layers()
        if isinstance(network, MobileNet)
        for name, variable in network.slim_variables.items()
    }
    if not names:
        return values
    if missing := sorted(set(names.values()) ^ stored.keys()):
        where = "not in the file" if missing[0] in names.values() else "in the file only"
        raise InvalidModuleError(
            f"the weights of layer {layer.name!r} are not those of its network: {missing[0]} is {where}; "
            f"the file has {len(stored)} variables, the network {len(names)}"
        )
    others = iter([value for value in values if not isinstance(value, _Named)])
    return [stored[names[id(one)]] if id(one) in names else next(others) for one in variables]


def describe(handle: str, layer_name: str, image_size: Sequence[int | None] | None) -> Contract | None:
    """Return the contract of the module that an old layer's handle names, the module itself not being here; or None.

    The handle may be a folder of another machine: of TF Hub's cache, of Kaggle's inputs, of kagglehub. One that says
    nothing is described by the weights in the file that is being read.
    """
    reading = _READING.get()
    if reading:
        reading.has_old_layer = True
    published = find_published(handle) or module_named_by(handle)
    if published is not None:
        config = ModuleConfig(
            published.architecture,
            published.depth_multiplier,
            published.image_size,
            published.num_classes,
            handle=published.handle,
        )
        return Contract(handle, config, published)
    if reading is None or exists(Path(handle).expanduser()):
        return None
    found = _networks_in(reading.file)
    weights = found.get(layer_name) or (next(iter(found.values())) if len(found) == 1 else None)
    if weights is None:
        return None
    height, width = image_size if image_size and all(image_size) else USUAL_SIZE
    source = Source(Path(handle), "layer of tensorflow_hub", weights, (height or 0, width or 0))
    return Contract(handle, to_module(source, Wanted()).config)


def _networks_in(file: Any) -> dict[str, dict[str, np.ndarray]]:
    """Return the weights of every MobileNet in a model file of tf_keras, by its layer's name or its place."""
    import h5py

    if not isinstance(file, str | os.PathLike):
        return {}
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as root:
            return _numbered_networks(root)
    with h5py.File(file, "r") as root:
        return _named_networks(root["model_weights"])


def _named_networks(group: Any) -> dict[str, dict[str, np.ndarray]]:
    from keras.src.legacy.saving import legacy_h5_format as h5

    found = {}
    for layer in h5.load_attributes_from_hdf5_group(group, "layer_names"):
        arrays = h5.load_subset_weights_from_hdf5_group(group[layer])
        if weights := {array.slim_name: np.asarray(array) for array in arrays if isinstance(array, _Named)}:
            found[layer] = weights
    return found


def _numbered_networks(root: Any) -> dict[str, dict[str, np.ndarray]]:
    found = {}

    def visit(name: str, group: Any) -> None:
        if name.endswith("/vars") and name.startswith("layers/") and len(group) >= _MANY:
            arrays = [group[key][()] for key in sorted(group, key=int)]
            found[name] = weights_by_order(arrays, Path(name))

    root.visititems(visit)
    return found
