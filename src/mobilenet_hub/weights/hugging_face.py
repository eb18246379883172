"""Hugging Face's MobileNets: config.json and model.safetensors.

Source: transformers, models/mobilenet_v1 and mobilenet_v2: converted from TF-Slim's checkpoints, V2 from the moving
averages. Kernels are [out, in, height, width]; the classifier has 1001 classes, 0 is background, as TF-Slim's.
"""

import json
from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mobilenet_hub.architecture import (
    BATCH_NORM_EPSILON,
    BUILDERS,
    Architecture,
    Variant,
    architecture,
    is_image_size,
)
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.head import Dense, head_weights
from mobilenet_hub.weights.identify import Source
from mobilenet_hub.weights.pixels import PIXELS
from mobilenet_hub.weights.reading import Unusable, array_from, as_float32, from_bfloat16, reading

CONFIG_FILE, WEIGHTS_FILE, PICKLE_FILE = "config.json", "model.safetensors", "pytorch_model.bin"
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_COUNTER = ".num_batches_tracked"
_FIXED = {  # what every published network has; others are built otherwise
    "num_channels": 3, "hidden_act": "relu6", "output_stride": 32, "min_depth": 8, "depth_divisible_by": 8,
    "expand_ratio": 6, "first_layer_is_expansion": True,
    "problem_type": None,
}  # fmt: skip
_ALSO = {"problem_type": "single_label_classification"}
_PREPARED = {  # x / 255, then less the mean, by the deviation; the colours stay in their order
    "do_rescale": True, "do_normalize": True, "rescale_offset": False, "do_flip_channel_order": False,
}  # fmt: skip
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # of safetensors; of bfloat16 the bits


def read_hugging_face(folder: Path) -> Source:
    """Read a MobileNet of the transformers library.

    Raises:
        CorruptFileError: a file is missing or damaged; names it.
        InvalidModuleError: the model is another one, or the folder has its weights as a pickle only.
    """
    file = folder / WEIGHTS_FILE
    if not (folder / CONFIG_FILE).is_file() and file.is_file():
        refuse_weights_alone(file)
    if not (folder / CONFIG_FILE).is_file():
        _refuse_pickle(folder)
    with reading(folder / CONFIG_FILE, "the configuration of a MobileNet of transformers"):
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        name = _check_config(config)
        epsilon = float(config.get("layer_norm_eps", BATCH_NORM_EPSILON))
        size = _image_size(config.get("image_size", 224))
        labels = _labels(config.get("id2label"))
    if not file.is_file():
        _refuse_pickle(folder)
    prepared = folder / "preprocessor_config.json"
    _check_scaling(prepared)
    with reading(file, "the weights of a MobileNet of transformers"):
        weights, one_unit = _read_weights(file, name)
    return Source(
        folder,
        "Hugging Face model",
        weights,
        size,
        None if one_unit else labels,
        Variant(
            BATCH_NORM_EPSILON if isclose(epsilon, BATCH_NORM_EPSILON) else epsilon,
            "same" if config.get("tf_padding", True) else "symmetric",
        ),
        assumed=() if prepared.is_file() else (PIXELS,),
    )


def _refuse_pickle(folder: Path) -> None:
    if (folder / PICKLE_FILE).is_file():
        raise InvalidModuleError(
            f"{folder / PICKLE_FILE} is a pickle, which can run any program and is never opened; "
            f"use the model's {WEIGHTS_FILE}, with its {CONFIG_FILE}"
        )


def is_hugging_face(folder: Path) -> bool:
    """Tell whether a folder is a model of transformers, or lacks nothing of one but its weights."""
    file = folder / CONFIG_FILE
    if any((folder / one).is_file() for one in (WEIGHTS_FILE, PICKLE_FILE)):
        return file.is_file()
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and isinstance(config.get("model_type"), str)


def refuse_weights_alone(file: Path) -> NoReturn:
    """Refuse a safetensors file without what says whose weights it has."""
    raise InvalidModuleError(
        f"{file} has weights alone, which do not say of what: give the Hugging Face folder, with its {CONFIG_FILE} "
        f"beside {WEIGHTS_FILE}; only networks of transformers are read (torchvision's and timm's scale each colour of "
        "their images differently, which a module cannot)"
    )


def _check_config(config: Any) -> str:
    name = config.get("model_type") if isinstance(config, dict) else None
    if name is None and isinstance(config, dict) and "architecture" in config:
        raise Unusable(f"it is a model of timm, {config['architecture']!r}, and only those of transformers are read")
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


def _image_size(size: Any) -> tuple[int, int]:
    """Return (height, width) of the one number that MobileNets have, or of a pair of them."""
    pair = tuple(size) if isinstance(size, list) else (size, size)
    if not is_image_size(pair):
        raise Unusable(f"its image_size is {size!r}")
    return pair


def _labels(table: Any) -> tuple[str, ...] | None:
    if not isinstance(table, dict) or not table:
        return None
    labels = tuple(" ".join(str(table[str(at)]).split()) for at in range(len(table)) if str(at) in table)
    generic = all(label == f"LABEL_{at}" for at, label in enumerate(labels))
    return None if generic or len(labels) != len(table) else labels


def _read_weights(file: Path, name: str) -> tuple[dict[str, np.ndarray], bool]:
    """Return the weights by TF-Slim name, and whether the classifier had one unit.

    One unit is two classes: transformers' own pipeline takes the sigmoid of it.
    """
    stored = {key.removeprefix(f"{name}."): array for key, array in _tensors(file)}
    network = architecture(name, 1.0, 1 if "classifier.weight" in stored else 0)
    weights = {slim: as_float32(array, slim) for slim, array in _renamed(stored, network)}
    kernel, bias = (weights.get(f"{network.scope}/Logits/Conv2d_1c_1x1/{leaf}") for leaf in ("weights", "biases"))
    if kernel is None or bias is None or kernel.ndim != 4 or (kernel.shape[3], bias.shape) != (1, (1,)):
        return weights, False
    return {**weights, **head_weights([Dense(kernel[0, 0], bias)], network.scope, kernel.shape[2])[0]}, True


def _tensors(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors of a safetensors file by name; bfloat16, which NumPy lacks, as float32."""
    from safetensors import SafetensorError, deserialize

    try:
        tensors = deserialize(file.read_bytes())
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    for name, one in tensors:
        kind, shape = one["dtype"], tuple(one["shape"])
        if name.endswith(_COUNTER):
            continue
        if kind not in _TYPES:
            raise Unusable(f"{name} is stored as {kind}, not floating point")
        array = array_from(memoryview(one["data"]), np.dtype(_TYPES[kind]), shape, name)
        yield name, from_bfloat16(array) if kind == "BF16" else array


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
