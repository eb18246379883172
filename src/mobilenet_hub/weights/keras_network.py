"""What a Keras model computes, as the operations of a network, for Keras's files and TensorFlow.js's.

The models are those of keras.applications, as they are or with what people put before and behind them. Weights belong
to the layers that bear their names; only files without a configuration are read by the layers' order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.architecture import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_LEAVES,
    BUILDERS,
    Architecture,
    Variant,
    architecture,
)
from mobilenet_hub.catalog.labels import imagenet_labels_1000
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.head import Dense, head_weights
from mobilenet_hub.weights.identify import Found, is_slim, slim_name
from mobilenet_hub.weights.keras_graph import KerasGraph, Layer, read_graph
from mobilenet_hub.weights.operation import INERT, RESHAPE, Operation
from mobilenet_hub.weights.operations import as_found, recognize
from mobilenet_hub.weights.padding import preferred_padding
from mobilenet_hub.weights.reading import Unusable, as_float32
from mobilenet_hub.weights.variable_order import weights_by_order

Arrays = Mapping[str, np.ndarray]  # one layer's: "kernel", "bias", "gamma", ...
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
}  # fmt: skip
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
        return _by_order(list(stored.values()), size)
    graph = read_graph(config)
    weights = _Weights(stored)
    operations = [one for layer in graph.layers for one in _operations(layer, weights)]
    size = _image_size(graph) or size
    found = recognize(operations, graph.start, graph.end, size)
    if left := weights.unused():
        raise Unusable(f"it holds weights of {left[0]}, a layer that its configuration has no place for")
    whole = as_found(found, size, tuple(layer.name for layer in graph.layers))
    return replace(whole, labels=_labels(whole.weights))


def _labels(weights: Mapping[str, np.ndarray]) -> tuple[str, ...] | None:
    """Return ImageNet's labels without background where there are as many classes."""
    classes = next((len(array) for name, array in weights.items() if name.endswith("Conv2d_1c_1x1/biases")), 0)
    return imagenet_labels_1000() if classes == len(imagenet_labels_1000()) else None


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
    if layer.training and kind in (*_INERT, "BatchNormalization") and kind not in _SAME_IN_TRAINING:
        raise Unusable(
            f"its layer {layer.name} ({kind}) is called with training=True, which no module does to classify"
        )
    if kind in _INERT:
        return INERT, {}
    if kind in _BY_NAME and kind != "Flatten":
        raise Unusable(_BY_NAME[kind])
    if kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
        return _with_kernel(layer, weights.of(layer))
    if kind == "BatchNormalization":
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
    if kind == "KerasLayer":
        return "network", _published(layer, weights)
    return _without_weights(layer)


def _without_weights(layer: Layer) -> tuple[str, dict[str, Any]]:  # noqa: PLR0911 (one for each kind)
    kind, config = layer.kind, layer.config
    if kind in ("ReLU", "ReLU6", "Activation", "Softmax", "Sigmoid"):
        return "activation", {"function": _function(kind, config)}
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
    if kind == "AveragePooling2D" and config.get("padding") == "valid" and last:
        return "pool", {"window": tuple(config["pool_size"])}
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
    return "linear" if value is None else str(value)


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


def _by_order(layers: Sequence[Arrays], size: tuple[int, int] | None) -> Found:
    """Read weights without a configuration: keras.applications' network with its classifier, another one, or none."""
    convolutions, depthwise, norms, dense = _sorted_by_kind(layers)
    network = _network_of(len(convolutions), len(depthwise), len(norms))
    if network.name == "mobilenet_v1" and size and any(side % 2 for side in size):
        raise Unusable("weights of V1 alone do not say how its stem pads odd sizes; use the whole model's file")
    body = len(network.units) - len(depthwise)
    weights = _unit_weights(network, convolutions[:body], depthwise, norms)
    heads = [*convolutions[body:], *dense]
    if len(heads) > 1:
        raise Unusable(
            f"{len(heads)} layers follow its features, and weights alone do not say how; use the model's file"
        )
    steps = [Dense(one["kernel"].reshape(one["kernel"].shape[-2:]), one.get("bias")) for one in heads]
    if steps and steps[0].kernel.shape[1] == 1:
        raise Unusable(
            "its classifier has one unit, and weights alone do not say of what kind; use the whole model's file"
        )
    head, _ = head_weights(steps, network.scope, 0)
    return Found({**weights, **head}, size, _labels(head), Variant(padding=preferred_padding(network)), False, None, ())


def _sorted_by_kind(layers: Sequence[Arrays]) -> tuple[list[Arrays], list[Arrays], list[Arrays], list[Arrays]]:
    convolutions, depthwise, norms, dense = [], [], [], []
    for arrays in layers:
        if "moving_mean" in arrays:
            norms.append(arrays)
        elif "depthwise_kernel" in arrays:
            depthwise.append({"kernel": arrays["depthwise_kernel"]})
        elif "kernel" not in arrays or arrays["kernel"].ndim not in (2, 4):
            raise Unusable(f"it has a layer with {', '.join(arrays)}, which no MobileNet has")
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
    raise Unusable(
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
            raise Unusable(f"the convolution of {unit.scope} has a bias")
        weights[unit.kernel.name] = as_float32(arrays["kernel"], unit.kernel.name)
        for leaf in BATCH_NORM_LEAVES:
            name = f"{unit.scope}/BatchNorm/{leaf}"
            if leaf not in norm:
                raise Unusable(f"{name} is missing")
            weights[name] = as_float32(norm[leaf], name)
    return weights
