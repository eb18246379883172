"""Hugging Face's MobileNets: config.json and model.safetensors.

Source: transformers, models/mobilenet_v1 and mobilenet_v2: converted from TF-Slim's checkpoints, V2 from the moving
averages. Kernels are [out, in, height, width]; the classifier has 1001 classes, 0 is background, as TF-Slim's.
"""

import json
from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.architecture import BATCH_NORM_EPSILON, BUILDERS, Architecture, Variant, architecture
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.identify import PIXELS, Source
from mobilenet_hub.weights.reading import Unusable, as_float32, reading

CONFIG_FILE, WEIGHTS_FILE, PICKLE_FILE = "config.json", "model.safetensors", "pytorch_model.bin"
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_COUNTER = ".num_batches_tracked"
_FIXED = {  # what every published network has; others are built otherwise
    "num_channels": 3, "hidden_act": "relu6", "output_stride": 32, "min_depth": 8, "depth_divisible_by": 8,
    "expand_ratio": 6, "first_layer_is_expansion": True,
    "problem_type": None,
}  # fmt: skip
_ALSO = {"problem_type": "single_label_classification"}
_PREPARED = {"do_rescale": True, "do_normalize": True}  # x / 255, then less the mean, by the deviation


def read_hugging_face(folder: Path) -> Source:
    """Read a MobileNet of the transformers library.

    Raises:
        CorruptFileError: a file is missing or damaged; names it.
        InvalidModuleError: the model is another one, or the folder has its weights as a pickle only.
    """
    file = folder / WEIGHTS_FILE
    if not file.is_file() and (folder / PICKLE_FILE).is_file():
        raise InvalidModuleError(
            f"{folder / PICKLE_FILE} is a pickle, which can run any program and is never opened; "
            f"use the model's {WEIGHTS_FILE}"
        )
    with reading(folder / CONFIG_FILE, "the configuration of a MobileNet of transformers"):
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        name = _check_config(config)
        epsilon = float(config.get("layer_norm_eps", BATCH_NORM_EPSILON))
        size = int(config.get("image_size", 224))
        labels = _labels(config.get("id2label"))
    prepared = folder / "preprocessor_config.json"
    _check_scaling(prepared)
    with reading(file, "the weights of a MobileNet of transformers"):
        weights = _read_weights(file, name)
    return Source(
        folder,
        "Hugging Face model",
        weights,
        (size, size),
        labels,
        Variant(
            BATCH_NORM_EPSILON if isclose(epsilon, BATCH_NORM_EPSILON) else epsilon,
            "same" if config.get("tf_padding", True) else "symmetric",
        ),
        assumed=() if prepared.is_file() else (PIXELS,),
    )


def is_hugging_face(folder: Path) -> bool:
    """Tell whether a folder is a model of transformers."""
    return (folder / CONFIG_FILE).is_file() and any((folder / one).is_file() for one in (WEIGHTS_FILE, PICKLE_FILE))


def _check_config(config: Any) -> str:
    name = config.get("model_type") if isinstance(config, dict) else None
    if name not in BUILDERS:
        raise Unusable(f"its model_type is {name!r}, not one of {', '.join(BUILDERS)}")
    for key, value in _FIXED.items():
        if config.get(key, value) != value and config.get(key) != _ALSO.get(key, value):
            raise Unusable(f"its {key} is {config[key]!r}, not {value!r} as in TF-Slim's networks")
    return name


def _check_scaling(file: Path) -> None:
    """Demand that images come to [-1, 1], where the folder says how they are prepared."""
    if not file.is_file():
        return
    with reading(file, "a description of image preparation"):
        data = json.loads(file.read_text("utf-8"))
        for key, value in _PREPARED.items():
            if isinstance(data, dict) and data.get(key, value) != value:
                raise Unusable(f"its {key} is {data[key]}: the network takes images that a module does not make")
        if isinstance(data, dict) and not np.isclose(data.get("rescale_factor", 1 / 255), 1 / 255):
            raise Unusable(f"its rescale_factor is {data['rescale_factor']}, not 1 / 255")
        for key in ("image_mean", "image_std"):
            if isinstance(data, dict) and not np.allclose(data.get(key, 0.5), 0.5):
                raise Unusable(f"its {key} is {data[key]}, not 0.5: the network takes images that a module cannot make")


def _labels(table: Any) -> tuple[str, ...] | None:
    if not isinstance(table, dict) or not table:
        return None
    labels = tuple(" ".join(str(table[str(at)]).split()) for at in range(len(table)) if str(at) in table)
    generic = all(label == f"LABEL_{at}" for at, label in enumerate(labels))
    return None if generic or len(labels) != len(table) else labels


def _read_weights(file: Path, name: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        stored = load_file(file)
    except (SafetensorError, TypeError, KeyError) as error:
        raise ValueError(str(error)) from None
    stored = {key.removeprefix(f"{name}."): array for key, array in stored.items() if not key.endswith(_COUNTER)}
    network = architecture(name, 1.0, 1 if "classifier.weight" in stored else 0)
    return {slim: as_float32(array, slim) for slim, array in _renamed(stored, network)}


def _renamed(stored: Mapping[str, np.ndarray], network: Architecture) -> Iterator[tuple[str, np.ndarray]]:
    names = dict(_names(network))
    for key, array in stored.items():
        if key not in names:
            yield key, array  # reported as no part of the network
        elif array.ndim == 4:
            yield names[key], array.transpose(2, 3, 0, 1) if "depthwise" in names[key] else array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            yield names[key], array.T[None, None]
        else:
            yield names[key], array


def _names(network: Architecture) -> Iterator[tuple[str, str]]:
    """Yield (transformers' name, TF-Slim's name) of every variable."""
    for unit, layer in zip(network.units, _layers(network), strict=True):
        yield f"{layer}.convolution.weight", unit.kernel.name
        for theirs, ours in _NORM.items():
            yield f"{layer}.normalization.{theirs}", f"{unit.scope}/BatchNorm/{ours}"
    for variable in network.classifier:
        yield f"classifier.{'weight' if variable.regularized else 'bias'}", variable.name


def _layers(network: Architecture) -> Iterator[str]:
    if network.name == "mobilenet_v1":
        yield "conv_stem"
        yield from (f"layer.{at}" for at in range(len(network.units) - 1))
        return
    yield from ("conv_stem.first_conv", "conv_stem.conv_3x3", "conv_stem.reduce_1x1")
    for block in range((len(network.units) - 4) // 3):
        yield from (f"layer.{block}.{part}" for part in ("expand_1x1", "conv_3x3", "reduce_1x1"))
    yield "conv_1x1"
