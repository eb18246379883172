"""What a Keras model computes, as the operations of a network, for Keras's files and TensorFlow.js's.

The models are those of keras.applications, as they are or with what people put before and behind them. Weights belong
to the layers that bear their names; files without a configuration are read by the layers' order, in keras_weights.py.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.architecture import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_LEAVES,
    BUILDERS,
    architecture,
)
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.identify import Found, is_slim, slim_name
from mobilenet_hub.weights.keras_graph import KerasGraph, Layer, read_graph
from mobilenet_hub.weights.keras_weights import Arrays, imagenet_labels_of, read_by_order
from mobilenet_hub.weights.likeness import network_of
from mobilenet_hub.weights.operation import INERT, RESHAPE, Operation
from mobilenet_hub.weights.operations import as_found, recognize
from mobilenet_hub.weights.reading import Unusable, as_float32
from mobilenet_hub.weights.variable_order import weights_by_order

_INERT = (
    "InputLayer", "Dropout", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "Identity",
    "ActivityRegularization", "RandomFlip", "RandomRotation", "RandomZoom", "RandomContrast", "RandomTranslation",
    "RandomBrightness", "RandomShear", "RandomHue", "RandomSaturation", "RandomColorJitter", "RandomErasing",
    "RandomGaussianBlur", "RandomPerspective", "RandomSharpness", "RandomInvert", "RandomPosterization",
)  # fmt: skip
_SAME_IN_TRAINING = ("InputLayer", "Identity", "ActivityRegularization")
_ARITHMETIC = {
    "TrueDivide": "divide", "Divide": "divide", "math.truediv": "divide", "math.divide": "divide",
    "__operators__.truediv": "divide", "Subtract": "subtract", "math.subtract": "subtract",
    "__operators__.sub": "subtract", "Multiply": "multiply", "math.multiply": "multiply",
    "__operators__.mul": "multiply", "Add": "add", "math.add": "add", "__operators__.add": "add",
    "RealDiv": "divide", "Sub": "subtract", "Mul": "multiply", "AddV2": "add",
}  # fmt: skip
_NORMS = ("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2")  # as TensorFlow 1.13 and 1.14 wrote it
_OPERATION = "TensorFlowOpLayer"  # what TensorFlow 2.0 to 2.3 made of `x / 127.5`: a node of a graph
_OTHER_NAMES = {"softmax_v2": "softmax"}  # as TensorFlow calls its own function
_LEAST_DEVIATION = 1e-7  # keras.config.epsilon(): what Normalization divides by at least
_SCALES = {"divide": lambda c: (1 / c, 0.0), "subtract": lambda c: (1.0, -c), "multiply": lambda c: (c, 0.0),
           "add": lambda c: (1.0, c)}  # fmt: skip
_BY_NAME = {  # refused, in words that say why
    "Flatten": "it flattens the feature map, where a module has global average pooling",
    "GlobalMaxPooling2D": "it has global max pooling, where a module has global average pooling",
    "Lambda": "a Lambda layer is code of its own, which is never run",
    "Resizing": "it resizes its images inside; save the model without its Resizing layer",
    "CenterCrop": "it crops its images inside; save the model without its CenterCrop layer",
}


def read_network(stored: Mapping[str, Arrays], config: Any, size: tuple[int, int] | None) -> Found:
    """Find the network in a Keras model.

    Args:
        stored: the arrays of each layer by the layer's path, e.g. "model1/Conv1", each by its leaf name; in order.
        config: the model's configuration (its JSON, parsed), None where the file has weights only.
        size: (height, width), where it is known from elsewhere.

    Raises:
        Unusable: the model is no MobileNet that a module can be; names the layer.
    """
    if config is None:
        return read_by_order(list(stored.values()), size)
    graph = read_graph(config)
    weights = _Weights(stored)
    try:
        operations = [one for layer in graph.layers for one in _operations(layer, weights)]
    except Unusable:
        _refuse_another_network(graph)  # that it is another network altogether says more
        raise
    size = _image_size(graph) or size
    found = recognize(operations, graph.start, graph.end, size)
    if left := weights.unused():
        raise Unusable(f"it holds weights of {left[0]}, a layer that its configuration has no place for")
    whole = as_found(found, size, tuple(layer.name for layer in graph.layers))
    return replace(whole, labels=imagenet_labels_of(whole.weights))


def _refuse_another_network(graph: KerasGraph) -> None:
    """Refuse a graph whose convolutions no MobileNet has, whatever else is wrong with it."""
    if any(layer.kind == "KerasLayer" for layer in graph.layers):
        return
    kinds = {"Conv2D": "conv", "DepthwiseConv2D": "depthwise", "Dense": "dense", "Activation": "activation"}
    network_of(
        [
            Operation(
                kinds.get(layer.kind, layer.kind),
                layer.name,
                layer.inputs,
                layer.output,
                {"function": _activation(layer.config.get("activation"))},
            )
            for layer in graph.layers
        ]
    )


def _image_size(graph: KerasGraph) -> tuple[int, int] | None:
    if graph.image_shape is None:
        return None
    height, width, channels = graph.image_shape
    if channels not in (3, None):
        what = "gray images" if channels == 1 else f"images of {channels} channels"
        raise Unusable(f"its input is {what}, where a module takes colours")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


class _Weights:
    """The arrays of layers, found by the layers' names."""

    def __init__(self, stored: Mapping[str, Arrays]):
        self._by_name: dict[str, list[str]] = {}
        self._stored = stored
        for path in stored:
            self._by_name.setdefault(path.rpartition("/")[2], []).append(path)
        self._used: set[str] = set()

    def of(self, layer: Layer) -> Arrays:
        """Return the arrays of a layer, if there are some."""
        found = self._by_name.get(layer.name, [])
        if not found:  # renamed after its variables were made: only the group that a file has for it bears its name
            found = [path for path in self._stored if path.partition("/")[0] == layer.name]
            found = found if len(found) == 1 and len(layer.path) == 1 else []
        if len(found) > 1:
            around = set(layer.path[:-1])
            scores = [len(around & set(path.split("/")[:-1])) for path in found]
            found = [path for path, score in zip(found, scores, strict=True) if score == max(scores)]
        if len(found) > 1:
            raise Unusable(f"several of its layers are called {layer.name}, and nothing says whose weights are whose")
        if not found:
            return {}
        self._used.add(found[0])
        return self._stored[found[0]]

    def below(self, layer: Layer) -> dict[str, np.ndarray]:
        """Return all variables of a network within one layer, by TF-Slim name."""
        found = {}
        for path, arrays in self._stored.items():
            for leaf, array in arrays.items():
                if is_slim(name := slim_name(f"{path}/{leaf}")):
                    if name in found:
                        raise Unusable(f"{name} occurs twice: it has several published networks")
                    found[name] = as_float32(array, name)
                    self._used.add(path)
        return found or self._by_order(layer)

    def _by_order(self, layer: Layer) -> dict[str, np.ndarray]:
        arrays = self.of(layer)
        if not arrays:
            raise Unusable(f"the weights of the module in {layer.name} are not in this file")
        try:
            named = weights_by_order(list(arrays.values()), Path(layer.name))
        except InvalidModuleError as error:
            raise Unusable(str(error)) from None
        return {name: as_float32(array, name) for name, array in named.items()}

    def unused(self) -> list[str]:
        return [path for path in self._stored if path not in self._used and self._stored[path]]


_NOTHING = _Weights({})


def _operations(layer: Layer, weights: _Weights) -> Iterator[Operation]:
    """Yield what a layer computes: one operation, and an activation of its own where it has one."""
    kind, values = _what(layer, weights)
    function = _activation(layer.config.get("activation")) if kind in ("conv", "depthwise", "dense") else "linear"
    between = f"{layer.output}/linear" if function != "linear" else layer.output
    yield Operation(kind, layer.name, layer.inputs, between, values)
    if function != "linear":
        yield Operation("activation", f"{layer.name}/{function}", (between,), layer.output, {"function": function})


def _what(layer: Layer, weights: _Weights) -> tuple[str, dict[str, Any]]:  # noqa: PLR0911 (one for each kind)
    kind, config = layer.kind, layer.config
    if kind == _OPERATION:
        return _operation_of(layer)
    if layer.training and kind in (*_INERT, *_NORMS) and kind not in _SAME_IN_TRAINING:
        raise Unusable(
            f"its layer {layer.name} ({kind}) is called with training=True, which no module does to classify"
        )
    if kind in _INERT:
        return INERT, {}
    if kind in _BY_NAME and kind != "Flatten":
        raise Unusable(_BY_NAME[kind])
    if kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
        return _with_kernel(layer, weights.of(layer))
    if kind in _NORMS:
        return "norm", _norm(layer, weights.of(layer))
    if kind == "Add" and len(layer.inputs) == 2 and not layer.constants:
        return "add", {}
    arithmetic = _ARITHMETIC.get(str(config.get("function")) if kind == "TFOpLambda" else kind)
    if arithmetic in ("divide", "subtract") and layer.constant_first:
        return "a constant minus or divided by what comes before it", {}
    if arithmetic and len(layer.inputs) == 1 and len(layer.constants) == 1:
        scale, shift = _SCALES[arithmetic](np.asarray(layer.constants[0], np.float64))
        return "affine", {"scale": scale, "shift": shift}
    if kind == "Rescaling":
        return "affine", {"scale": np.asarray(config["scale"], float), "shift": np.asarray(config["offset"], float)}
    if kind == "Normalization":
        return "affine", _normalization(layer, weights.of(layer))
    if kind == "KerasLayer":
        return "network", _published(layer, weights)
    return _without_weights(layer)


def _operation_of(layer: Layer) -> tuple[str, dict[str, Any]]:
    """Return what a layer computes that is one node of a TensorFlow graph, its constants by their place beside it."""
    node = layer.config.get("node_def")
    node = json.loads(node) if isinstance(node, str) else node
    constants = layer.config.get("constants") or {}
    if not isinstance(node, dict) or not isinstance(constants, dict):
        raise Unusable(f"its layer {layer.name} does not say what it computes")
    kind, values = str(node.get("op")), tuple(constants.values())
    if kind in _ARITHMETIC or kind in ("Relu", "Relu6", "Softmax", "Sigmoid"):
        return _what(replace(layer, kind=kind, config={}, constants=values, constant_first="0" in constants), _NOTHING)
    if kind == "Cast" and node.get("attr", {}).get("DstT", {}).get("type") == "DT_FLOAT":
        return INERT, {}
    return f"TensorFlow's {kind}", {}


def _normalization(layer: Layer, arrays: Arrays) -> dict[str, Any]:
    mean, variance = (
        np.asarray(one if (one := layer.config.get(key)) is not None else arrays.get(key, np.nan), np.float64)
        for key in ("mean", "variance")
    )
    if layer.config.get("invert") or not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise Unusable(f"its layer {layer.name} (Normalization) does not say by which mean and variance it divides")
    scale = 1 / np.maximum(np.sqrt(variance), _LEAST_DEVIATION)
    return {"scale": scale, "shift": -mean * scale}


def _without_weights(layer: Layer) -> tuple[str, dict[str, Any]]:  # noqa: PLR0911 (one for each kind)
    kind, config = layer.kind, layer.config
    if kind in ("ReLU", "ReLU6", "Relu", "Relu6", "Activation", "Softmax", "Sigmoid"):
        return "activation", {"function": _function(kind, config)}
    if kind == "Cast" and str(config.get("dtype")) in ("float32", "float16", "bfloat16"):
        return INERT, {}
    if kind == "TFOpLambda" and str(config.get("function", "")).startswith("nn."):
        function = str(config["function"]).removeprefix("nn.")
        return "activation", {"function": function if layer.constants in ((), (-1,)) else f"{function} of an axis"}
    if kind == "TFOpLambda" and config.get("function") == "cast" and layer.constants == ("float32",):
        return INERT, {}
    if kind == "ZeroPadding2D":
        return "pad", {"pads": _explicit_pads(layer)}
    last = config.get("data_format", "channels_last") == "channels_last"
    if kind == "GlobalAveragePooling2D" and last:
        return "mean", {}
    if kind == "AveragePooling2D" and last:
        window, strides = (tuple(config.get(key) or config["pool_size"]) for key in ("pool_size", "strides"))
        if config.get("padding") == "valid" or strides == window:  # nothing is padded where all of the map is taken
            return "pool", {"window": window}
    if kind in ("Flatten", "Reshape"):
        return RESHAPE, {"shape": (-1, *(config["target_shape"] if kind == "Reshape" else (-1,)))}
    return f"a {kind} layer", {}


def _with_kernel(layer: Layer, arrays: Arrays) -> tuple[str, dict[str, Any]]:
    config = layer.config
    kernel = arrays.get("kernel", arrays.get("depthwise_kernel"))
    if kernel is None:
        raise Unusable(f"the weights of its layer {layer.name} are not in the file under that name")
    if bool(config.get("use_bias", True)) != ("bias" in arrays):
        raise Unusable(f"the bias of its layer {layer.name} is {'not ' if 'bias' not in arrays else ''}in the file")
    if extra := arrays.keys() - {"kernel", "depthwise_kernel", "bias"}:
        raise Unusable(f"its layer {layer.name} has {', '.join(sorted(extra))}, which no MobileNet has")
    values = {"kernel": kernel, "bias": arrays.get("bias")}
    if layer.kind == "Dense":
        return "dense", values
    wanted = {"dilation_rate": [1, 1], "data_format": "channels_last", "groups": 1, "depth_multiplier": 1}
    for key, value in wanted.items():
        found = config.get(key, value)
        if (list(found) if isinstance(found, tuple) else found) != value:
            raise Unusable(f"{layer.name} has {key} {found}, where a MobileNet has {value}")
    if config.get("padding") not in ("same", "valid"):
        raise Unusable(f"{layer.name} pads {config.get('padding')!r}")
    values |= {"stride": tuple(config.get("strides", (1, 1))), "padding": config["padding"]}
    return ("depthwise" if layer.kind == "DepthwiseConv2D" else "conv"), values


def _norm(layer: Layer, arrays: Arrays) -> dict[str, Any]:
    if "moving_mean" not in arrays or "moving_variance" not in arrays:
        raise Unusable(f"the statistics of its layer {layer.name} are not in the file under that name")
    mean = arrays["moving_mean"]
    axis = layer.config.get("axis", -1)
    if axis not in (-1, 3, [3], [-1]) and not (axis in (1, [1]) and mean.ndim == 1):
        raise Unusable(f"{layer.name} normalizes the axis {axis}, not the channels")
    for leaf, key in (("gamma", "scale"), ("beta", "center")):
        if bool(layer.config.get(key, True)) != (leaf in arrays):
            raise Unusable(f"{leaf} of its layer {layer.name} is {'not ' if leaf not in arrays else ''}in the file")
    if extra := arrays.keys() - set(BATCH_NORM_LEAVES):
        raise Unusable(f"its layer {layer.name} has {', '.join(sorted(extra))}, which no MobileNet has")
    usual = {"gamma": np.ones_like(mean), "beta": np.zeros_like(mean)}
    return {leaf: arrays.get(leaf, usual.get(leaf)) for leaf in BATCH_NORM_LEAVES} | {
        "epsilon": layer.config.get("epsilon", BATCH_NORM_EPSILON)
    }


def _published(layer: Layer, weights: _Weights) -> dict[str, Any]:
    """Return the network of a hub.KerasLayer."""
    for key in ("signature", "output_key", "arguments"):
        value = layer.config.get(key)
        if key == "arguments" and isinstance(value, dict):  # the momentum says something of training only
            value = {name: one for name, one in value.items() if name != "batch_norm_momentum"}
        if value not in (None, {}, "default"):
            raise Unusable(f"its layer {layer.name} is a module called with {key}={value!r}")
    found = weights.below(layer)
    scopes = {name.partition("/")[0] for name in found}
    networks = [name for name in BUILDERS if architecture(name, 1.0, 0).scope in scopes]
    if len(networks) != 1 or len(scopes) != 1:
        raise Unusable(f"its layer {layer.name} holds {', '.join(sorted(scopes))}, not one MobileNet")
    return {"network": networks[0], "weights": found}


def _explicit_pads(layer: Layer) -> Any:
    try:
        (top, bottom), (left, right) = layer.config["padding"]
        return (int(top), int(bottom)), (int(left), int(right))
    except (KeyError, TypeError, ValueError):
        raise Unusable(f"the padding of {layer.name} is {layer.config.get('padding')!r}") from None


def _activation(value: Any) -> str:
    """Return the name of an activation, in any of the ways that Keras has written it."""
    if isinstance(value, dict):
        inner = value.get("config")
        if isinstance(inner, dict):  # a layer in the place of a function, whatever it is called
            return _function(str(value.get("class_name")), inner)
        value = inner
    return "linear" if value is None else _OTHER_NAMES.get(str(value), str(value))


def _function(kind: str, config: Mapping[str, Any]) -> str:
    if kind == "Activation":
        return _activation(config.get("activation"))
    if kind != "ReLU":
        return (
            {"ReLU6": "relu6"}.get(kind, kind.lower()) if config.get("axis", -1) in (-1, [-1]) else f"{kind} of an axis"
        )
    if config.get("negative_slope") or config.get("threshold"):
        return "leaky ReLU"
    top = config.get("max_value")
    return "relu" if top is None else "relu6" if top == 6 else f"ReLU up to {top}"
