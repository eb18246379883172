"""What a Keras model file says, as a TF-Slim network: its weights by name, and where its arithmetic differs.

Shared by the readers of Keras's and TensorFlow.js's files. The
models are those of keras.applications (mobilenet.py, mobilenet_v2.py), with their classifier, another one, or none.

The layers' order says which is which: names have changed over the years. Where the file has the model's configuration,
every layer in it is held against the architecture, and what computes otherwise is recorded or refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isclose
from typing import Any

import numpy as np

from mobilenet_hub.architecture import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_LEAVES,
    BUILDERS,
    Architecture,
    ConvUnit,
    Padding,
    Variant,
    architecture,
    output_size,
    pad_amounts,
)
from mobilenet_hub.catalog.labels import imagenet_labels_1000
from mobilenet_hub.weights.reading import Unfit, as_float32

Arrays = Mapping[str, np.ndarray]  # one layer's: "kernel", "bias", "gamma", ...
Pads = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))
_CONTAINERS = ("Sequential", "Functional", "Model")
_INERT = ("Dropout", "Reshape", "Flatten", "Identity")
_OUTPUTS = ("linear", "softmax")  # the module gives what goes into softmax
_SAME, _BOTTOM_RIGHT = "same", ((0, 1), (0, 1))
_PREFERRED: dict[str, tuple[Padding, ...]] = {  # of those that fit at one size, which to honour at others
    "mobilenet_v1": ("bottom_right", "same", "symmetric"),
    "mobilenet_v2": ("same", "bottom_right", "symmetric"),
}
_MAX_DEPTH = 10


@dataclass
class _Facts:
    """What a model's configuration says."""

    image_size: tuple[int, int] | None = None
    pads: list[Pads | str] = field(default_factory=list)  # of every unit's convolution
    relu6: set[int] = field(default_factory=set)  # units that an activation follows
    adds: set[int] = field(default_factory=set)  # units that a sum follows
    epsilons: set[float] = field(default_factory=set)
    pooled: bool = False
    head: list[str] = field(default_factory=list)  # activations of what follows the pooling


@dataclass(frozen=True)
class KerasNetwork:
    """A Keras model as a TF-Slim network; the fields are those of Source."""

    weights: dict[str, np.ndarray]
    image_size: tuple[int, int] | None
    labels: tuple[str, ...] | None
    variant: Variant


def read_network(layers: Sequence[Arrays], config: Any, size: tuple[int, int] | None) -> KerasNetwork:
    """Name the weights of a Keras model and check how it computes.

    Args:
        layers: the arrays of each layer that has any, by leaf name; in order among layers of one kind.
        config: the model's configuration (its JSON, parsed), None where the file has weights only.
        size: (height, width), where it is known from elsewhere.

    Raises:
        Unfit: the model is no MobileNet that a module can describe; names the layer.
    """
    convolutions, depthwise, norms, dense = _sorted_by_kind(layers)
    network = _network_of(len(convolutions), len(depthwise), len(norms))
    body = len(network.units) - len(depthwise)
    weights = _unit_weights(network, convolutions[:body], depthwise, norms)
    heads = [*convolutions[body:], *dense]
    facts = _check_config(config, network) if config is not None else _Facts(head=[_OUTPUTS[0]] * len(heads))
    weights |= _head_weights(network, heads, facts.head)
    size = facts.image_size or size
    num_classes = int(np.shape(heads[-1]["kernel"])[-1]) if heads else 0
    if len(facts.epsilons) > 1:
        raise Unfit(f"its batch norms have the different epsilons {sorted(facts.epsilons)}")
    return KerasNetwork(
        weights,
        size,
        imagenet_labels_1000() if num_classes == len(imagenet_labels_1000()) else None,
        Variant(
            facts.epsilons.pop() if facts.epsilons else BATCH_NORM_EPSILON,
            _padding(network, facts.pads, size),
            hidden_units=tuple(int(np.shape(one["kernel"])[-1]) for one in heads[:-1]),
        ),
    )


def _sorted_by_kind(layers: Sequence[Arrays]) -> tuple[list[Arrays], list[Arrays], list[Arrays], list[Arrays]]:
    convolutions, depthwise, norms, dense = [], [], [], []
    for arrays in layers:
        if "moving_mean" in arrays:
            norms.append(arrays)
        elif "depthwise_kernel" in arrays:
            depthwise.append({"kernel": arrays["depthwise_kernel"]})
        elif "kernel" not in arrays or arrays["kernel"].ndim not in (2, 4):
            raise Unfit(f"it has a layer with {', '.join(arrays)}, which no MobileNet has")
        elif arrays["kernel"].ndim == 2:
            dense.append(arrays)
        elif arrays["kernel"].shape[3] == 1 and "bias" not in arrays:
            depthwise.append(arrays)
        else:
            convolutions.append(arrays)
    return convolutions, depthwise, norms, dense


def _network_of(convolutions: int, depthwise: int, norms: int) -> Architecture:
    for name in BUILDERS:
        network = architecture(name, 1.0, 0)
        narrow = sum(unit.depthwise for unit in network.units)
        wide = len(network.units) - narrow
        if depthwise == narrow and norms == len(network.units) and convolutions in (wide, wide + 1):
            return network
    raise Unfit(
        f"it has {convolutions} convolutions, {depthwise} depthwise ones and {norms} batch norms; no MobileNet has"
    )


def _unit_weights(
    network: Architecture, convolutions: Sequence[Arrays], depthwise: Sequence[Arrays], norms: Sequence[Arrays]
) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    kernels = {True: iter(depthwise), False: iter(convolutions)}
    for unit, norm in zip(network.units, norms, strict=True):
        arrays = next(kernels[unit.depthwise])
        if "bias" in arrays:
            raise Unfit(f"the convolution of {unit.scope} has a bias")
        weights[unit.kernel.name] = as_float32(arrays["kernel"], unit.kernel.name)
        for leaf in BATCH_NORM_LEAVES:
            name = f"{unit.scope}/BatchNorm/{leaf}"
            if leaf not in norm:
                raise Unfit(f"{name} is missing")
            weights[name] = as_float32(norm[leaf], name)
    return weights


def _head_weights(network: Architecture, heads: Sequence[Arrays], activations: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the weights of the classifier, and of the hidden layer before it; absent biases are zeros."""
    names = ("Conv2d_1c_1x1",) if len(heads) == 1 else ("Hidden", "Conv2d_1c_1x1")
    wanted = (("relu",), _OUTPUTS)[-len(heads) :] if heads else ()
    if len(heads) > len(names):
        raise Unfit(f"{len(heads)} layers follow its features; a module has a classifier and one hidden layer")
    if len(activations) != len(heads) or any(one not in allowed for one, allowed in zip(activations, wanted)):  # noqa: B905
        raise Unfit(f"the layers after its features have the activations {list(activations)}")
    weights = {}
    for name, arrays in zip(names, heads, strict=False):
        scope = f"{network.scope}/Logits/{name}"
        kernel = as_float32(arrays["kernel"], f"{scope}/weights")
        weights[f"{scope}/weights"] = kernel.reshape(1, 1, *kernel.shape[-2:])
        bias = arrays.get("bias", np.zeros(kernel.shape[-1], np.float32))
        weights[f"{scope}/biases"] = as_float32(bias, f"{scope}/biases")
    return weights


def _padding(network: Architecture, pads: Sequence[Pads | str], size: tuple[int, int] | None) -> Padding:
    """Return the rule that pads as the model does at its size.

    Without a configuration the model is taken to be keras.applications': V1 pads ((0, 1), (0, 1)) always, V2 as SAME
    of the size that it was built for, but the stem, whose padding has changed over Keras's versions.
    """
    preferred = _PREFERRED[network.name]
    if not pads:
        if network.name == "mobilenet_v1" and size and any(side % 2 for side in size):
            raise Unfit("weights of V1 alone do not say how its stem pads odd sizes; use the whole model's file")
        return preferred[0]
    if size is None:
        explicit = {one for one, unit in zip(pads, network.units, strict=True) if unit.stride > 1 and one != _SAME}
        return "same" if not explicit else "bottom_right" if explicit == {_BOTTOM_RIGHT} else "symmetric"
    for padding in preferred:
        height, width = size
        for unit, one in zip(network.units, pads, strict=True):
            if _pads_of(unit, height, width, padding) != _resolved(unit, height, width, one):
                break
            height = output_size(height, unit.kernel_size, unit.stride, padding)
            width = output_size(width, unit.kernel_size, unit.stride, padding)
        else:
            return padding
    raise Unfit(f"it pads images of {size[0]}x{size[1]} in a way that a module cannot record")


def _pads_of(unit: ConvUnit, height: int, width: int, padding: Padding) -> Pads:
    return (
        pad_amounts(height, unit.kernel_size, unit.stride, padding),
        pad_amounts(width, unit.kernel_size, unit.stride, padding),
    )


def _resolved(unit: ConvUnit, height: int, width: int, pads: Pads | str) -> Pads:
    return pads if not isinstance(pads, str) else _pads_of(unit, height, width, "same")


def _flat(config: Any, depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (class, configuration) of every layer, those of models within models in their place."""
    if depth > _MAX_DEPTH or not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise Unfit("its configuration is not that of a Keras model")
    inner = config.get("config")
    if config["class_name"] not in _CONTAINERS:
        if not isinstance(inner, dict):
            raise Unfit(f"its {config['class_name']} layer has no configuration")
        yield config["class_name"], inner
        return
    layers = inner.get("layers") if isinstance(inner, dict) else inner
    if not isinstance(layers, list):
        raise Unfit("its configuration has no list of layers")
    for layer in layers:
        yield from _flat(layer, depth + 1)


def _check_config(config: Any, network: Architecture) -> _Facts:
    facts = _Facts()
    pads: Pads | None = None
    layers = [(kind, layer) for kind, layer in _flat(config) if kind not in _INERT]
    for kind, layer in layers:
        if kind == "InputLayer":
            facts.image_size = facts.image_size or _image_size(layer)
        elif kind == "ZeroPadding2D":
            pads = _explicit_pads(layer)
            continue
        elif kind in ("Conv2D", "DepthwiseConv2D") and len(facts.pads) < len(network.units):
            facts.pads.append(_unit_pads(kind, layer, network.units[len(facts.pads)], pads))
        elif kind in ("Dense", "Conv2D"):
            facts.head.append(_activation(layer.get("activation", "linear")))
        else:
            _check_between(kind, layer, facts)
        if pads and kind not in ("Conv2D", "DepthwiseConv2D"):
            raise Unfit(f"zero padding is followed by a {kind} layer")
        pads = None
    _check_order(network, layers, facts)
    return facts


def _check_between(kind: str, layer: dict[str, Any], facts: _Facts) -> None:
    """Take in a layer without a kernel."""
    at = len(facts.pads) - 1
    if kind == "BatchNormalization":
        epsilon = float(layer.get("epsilon", BATCH_NORM_EPSILON))
        facts.epsilons.add(BATCH_NORM_EPSILON if isclose(epsilon, BATCH_NORM_EPSILON, rel_tol=1e-6) else epsilon)
    elif kind in ("ReLU", "Activation") and not facts.head and not facts.pooled:
        if not _is_relu6(kind, layer):
            raise Unfit(f"the activation {layer.get('name', kind)} is not ReLU6")
        facts.relu6.add(at)
    elif kind == "Activation" and facts.head:
        facts.head[-1] = _activation(layer.get("activation"))
    elif kind == "Softmax" and facts.head:
        facts.head[-1] = "softmax"
    elif kind == "Add":
        facts.adds.add(at)
    elif kind == "GlobalAveragePooling2D" and not facts.pooled:
        facts.pooled = True
    elif kind == "Rescaling" and at < 0 and _is_to_unit_range(layer):
        pass
    else:
        raise Unfit(f"its layer {layer.get('name', '')} ({kind}) is no part of a MobileNet that a module can hold")


def _check_order(network: Architecture, layers: Sequence[tuple[str, dict[str, Any]]], facts: _Facts) -> None:
    if len(facts.pads) != len(network.units):
        raise Unfit(f"its configuration has {len(facts.pads)} convolutions, not {len(network.units)}")
    if facts.head and not facts.pooled:
        raise Unfit("its classifier does not follow a global average pooling")
    for what, found, wanted in (
        ("ReLU6", facts.relu6, {at for at, unit in enumerate(network.units) if unit.relu6}),
        ("a residual sum", facts.adds, {at for at, unit in enumerate(network.units) if unit.adds is not None}),
    ):
        if found != wanted:
            unit = network.units[min(found ^ wanted)]
            raise Unfit(f"{unit.scope} is {'not ' if unit.relu6 else ''}to be followed by {what} as it is here")
    kinds = [kind for kind, _ in layers]
    after = {later for earlier, later in pairwise(kinds) if earlier == "BatchNormalization"}
    if "BatchNormalization" in after:
        raise Unfit("two batch norms follow each other")


def _unit_pads(kind: str, layer: dict[str, Any], unit: ConvUnit, pads: Pads | None) -> Pads | str:
    """Check a convolution against its unit, and return how it pads."""
    wanted = {
        "kernel_size": [unit.kernel_size] * 2,
        "strides": [unit.stride] * 2,
        "dilation_rate": [1, 1],
        "use_bias": False,
        "activation": "linear",
        "data_format": "channels_last",
        "groups": 1,
        "depth_multiplier": 1,
    }
    if (kind == "DepthwiseConv2D") != unit.depthwise:
        raise Unfit(f"{layer.get('name')} is a {kind} layer in the place of {unit.scope}")
    for key, value in wanted.items():
        found = layer.get(key, value)
        found = list(found) if isinstance(found, tuple) else found
        if key == "activation":
            found = _activation(found)
        if found != value:
            raise Unfit(f"{layer.get('name')} has {key} {found}; {unit.scope} needs {value}")
    if layer.get("padding") == _SAME and pads is None:
        return _SAME
    if layer.get("padding") != "valid":
        raise Unfit(f"{layer.get('name')} pads {layer.get('padding')!r}")
    return pads or ((0, 0), (0, 0))


def _explicit_pads(layer: dict[str, Any]) -> Pads:
    try:
        (top, bottom), (left, right) = layer["padding"]
        return (int(top), int(bottom)), (int(left), int(right))
    except (KeyError, TypeError, ValueError):
        raise Unfit(f"the padding of {layer.get('name')} is {layer.get('padding')!r}") from None


def _activation(value: Any) -> str:
    """Return the name of an activation, in any of the ways that Keras has written it."""
    if isinstance(value, dict):
        inner = value.get("config")
        value = inner.get("name", value.get("class_name")) if isinstance(inner, dict) else inner
    return "linear" if value is None else str(value)


def _is_relu6(kind: str, layer: dict[str, Any]) -> bool:
    if kind == "Activation":
        return _activation(layer.get("activation")) == "relu6"
    return layer.get("max_value") == 6 and not layer.get("negative_slope") and not layer.get("threshold")


def _is_to_unit_range(layer: dict[str, Any]) -> bool:
    """Tell whether a Rescaling layer takes 0..255 to [-1, 1], where the module takes [0, 1]."""
    scale, offset = layer.get("scale"), layer.get("offset")
    return isinstance(scale, float) and isclose(scale, 1 / 127.5, rel_tol=1e-6) and offset == -1


def _image_size(layer: dict[str, Any]) -> tuple[int, int] | None:
    shape = layer.get("batch_shape") or layer.get("batch_input_shape")
    if not isinstance(shape, list) or len(shape) != 4 or shape[3] != 3:
        raise Unfit(f"its input is {shape}, not images")
    height, width = shape[1:3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
