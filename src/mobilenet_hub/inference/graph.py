"""From an architecture and its weights to an OpenVINO graph: batch norm folded, padding and scaling exactly TF-Slim's.

The graph takes images as [batch, height, width, 3] and gives float32, all in the axes of TensorFlow; inside it runs
channels first, as OpenVINO prefers.
"""

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import numpy as np

from mobilenet_hub.architecture import Architecture, ConvUnit, height_and_width, pad_amounts
from mobilenet_hub.errors import InputError
from mobilenet_hub.inference.bfloat16 import Layer, prepare
from mobilenet_hub.inference.openvino_hints import keep_float32, names_up_to

if TYPE_CHECKING:
    from openvino import Model, Node

InputType = Literal["float32", "uint8"]
Arithmetic = Literal["f32", "bf16"]
INPUT = "images"
_SPATIAL_AXES = (2, 3)
_TYPES = {"float32": np.float32, "uint8": np.uint8}


def import_openvino() -> ModuleType:
    """Import OpenVINO without its model converter, which takes half the time and brings a telemetry client.

    `openvino.convert_model` still works: it is loaded when it is asked for.

    Example:
        >>> import_openvino().Core().available_devices
        ['CPU']
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    converter = "openvino.tools.ovc"
    sys.modules[converter] = None  # type: ignore[assignment]  # makes OpenVINO's own optional import of it fail
    try:
        import openvino
    finally:
        del sys.modules[converter]

    def load_converter(name: str) -> object:
        if name != "convert_model":
            raise AttributeError(f"module 'openvino' has no attribute {name!r}")
        from openvino.tools.ovc import convert_model

        return convert_model

    openvino.__getattr__ = load_converter  # type: ignore[attr-defined]
    return openvino


def fold_batch_norm(
    network: Architecture, unit: ConvUnit, weights: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Fold a unit's batch norm into its convolution, in float64, rounding once at the end.

    Returns:
        The kernel in TensorFlow's layout ([k, k, in, out], or [k, k, in, 1] where depthwise) and the bias [out], both
        float32.

    Example:
        >>> from mobilenet_hub.architecture import mobilenet_v1
        >>> network = mobilenet_v1(0.25)
        >>> ones = {name: np.ones(variable.shape, np.float32) for name, variable in network.variables.items()}
        >>> kernel, bias = fold_batch_norm(network, network.units[0], ones)
        >>> kernel.shape, bias.shape
        ((3, 3, 3, 8), (8,))
    """
    gamma, beta, mean, variance = (weights[variable.name].astype(np.float64) for variable in unit.batch_norm)
    scale = gamma / np.sqrt(variance + network.variant.batch_norm_epsilon)
    per_output = scale[:, np.newaxis] if unit.depthwise else scale  # a depthwise kernel's outputs are its third axis
    kernel = weights[unit.kernel.name].astype(np.float64) * per_output
    return kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)


def dense_layers(network: Architecture, weights: Mapping[str, np.ndarray]) -> list[Layer]:
    """Return the kernels and biases of the layers behind the features: none, the classifier, or hidden ones before it.

    Example:
        >>> from mobilenet_hub.architecture import mobilenet_v1
        >>> dense_layers(mobilenet_v1(0.25, num_classes=0), {})
        []
    """
    return [(weights[k.name], weights[b.name]) for k, b in network.dense]


def output_names(network: Architecture) -> tuple[str, ...]:
    """Return what a graph of this network can give: logits (with a classifier), features, and slim's endpoints."""
    return (*(("logits",) if network.num_classes else ()), "features", *network.endpoints)


def checked_outputs(network: Architecture, outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the outputs asked for, if they are different ones of `output_names`.

    Raises:
        InputError: an output that the network does not have, the same one twice, or none.

    Example:
        >>> from mobilenet_hub.architecture import mobilenet_v1
        >>> checked_outputs(mobilenet_v1(0.25), ["features"])
        ('features',)
    """
    names = output_names(network)
    if unknown := [name for name in outputs if name not in names]:
        raise InputError(f"{network.name} has no output {unknown[0]!r}; it has: {', '.join(names)}")
    if not outputs or len(set(outputs)) < len(outputs):
        raise InputError(
            f"the outputs must be one or more different names, not {list(outputs)}; {network.name} has: "
            f"{', '.join(names)}"
        )
    return tuple(outputs)


def build_graph(
    network: Architecture,
    weights: Mapping[str, np.ndarray],
    image_size: tuple[int, int],
    outputs: Sequence[str],
    *,
    batch_size: int | None = None,
    input_type: InputType = "float32",
    precision: Arithmetic = "f32",
) -> "Model":
    """Build the inference graph.

    Args:
        network: the architecture.
        weights: float32 arrays by TF-Slim name, all of `network.variables`.
        image_size: (height, width) of the images, any size from 1x1.
        outputs: names out of `output_names(network)`: "logits" [n, classes], "features" [n, features], endpoints
            [n, h, w, c].
        batch_size: a fixed batch size; None: any.
        input_type: "float32" for images in [0, 1], "uint8" for 0..255.
        precision: what the graph is to be compiled for; for "bf16" it is prepared as `bfloat16` says.

    Returns:
        A graph with the input "images" [n, height, width, 3] and float32 outputs that bear the names asked for; for
        "bf16" the features come last, asked for or not.

    Raises:
        InputError: an output that the network does not have, an impossible image size, or a temporary file that "bf16"
            needs and that cannot be written.

    Example:
        >>> from mobilenet_hub.architecture import mobilenet_v1
        >>> network = mobilenet_v1(0.25, num_classes=0)
        >>> ones = {name: np.ones(variable.shape, np.float32) for name, variable in network.variables.items()}
        >>> build_graph(network, ones, (128, 128), ["features"], batch_size=1).output("features").shape.to_string()
        '[1,256]'
    """
    height_and_width(image_size)
    outputs = checked_outputs(network, outputs)
    import_openvino()
    from openvino import Model, opset13

    images = opset13.parameter([-1 if batch_size is None else batch_size, *image_size, 3], _TYPES[input_type], INPUT)
    images.output(0).set_names({INPUT})
    values = {"images": _scaled(images, network, input_type)}
    units = [fold_batch_norm(network, unit, weights) for unit in network.units]
    dense = dense_layers(network, weights)
    exact = 0
    if precision == "bf16":
        units, exact = prepare(network, weights, units)
    made = _add_units(values, network, units, image_size)
    _add_head(values, network, dense, kept=precision != "f32")
    results = []
    # As an output, the features come as float32 from the last unit; else they would be rounded on the way to the head.
    for name in outputs if precision == "f32" else dict.fromkeys([*outputs, "features"]):
        result = opset13.result(_in_tensorflow_axes(values[name]))
        result.output(0).add_names({name})
        results.append(result)
    model = Model(results, [images], network.name)  # pyright: ignore[reportGeneralTypeIssues]
    if precision == "f32":
        return model
    # Behind the last unit all is float32, so that a classifier says the same wherever its features are computed.
    head = names_up_to(values.values()) - names_up_to(made)
    return keep_float32(model, head | names_up_to(made[exact - 1 : exact] if exact else []))


def _scaled(images: "Node", network: Architecture, input_type: InputType) -> "Node":
    """Take [0, 1] or 0..255 to [-1, 1], before any padding: TensorFlow pads with zeros *after* scaling."""
    from openvino import opset13

    scale, offset = network.variant.input_scale, network.variant.input_offset
    if input_type == "uint8":
        images, scale = opset13.convert(images, np.float32), scale / 255
    scaled = opset13.add(opset13.multiply(images, _constant(np.float32(scale))), _constant(np.float32(offset)))
    return opset13.transpose(scaled, _constant(np.array([0, 3, 1, 2])))


def _add_units(
    values: dict[str, "Node"], network: Architecture, layers: Sequence[Layer], size: tuple[int, int]
) -> list["Node"]:
    """Add all units, and return the output of each."""
    from openvino import opset13

    value, made = values["images"], []
    sizes = network.output_sizes(*size)
    for unit, (kernel, bias), output_size in zip(network.units, layers, sizes, strict=True):
        value = opset13.add(_convolution(value, unit, kernel, size, network), _channels(bias, f"{unit.scope}/bias"))
        if unit.relu6:
            value = opset13.clamp(value, 0.0, 6.0)
        if unit.adds is not None:
            value = opset13.add(value, made[unit.adds])
        values.update(dict.fromkeys(unit.endpoints, value))
        made.append(value)
        size = output_size
    values["last"] = value
    return made


def _convolution(
    value: "Node", unit: ConvUnit, kernel: np.ndarray, size: tuple[int, int], network: Architecture
) -> "Node":
    from openvino import opset13

    height, width = (pad_amounts(n, unit.kernel_size, unit.stride, network.variant.padding) for n in size)
    strides, before, after = [unit.stride] * 2, [height[0], width[0]], [height[1], width[1]]
    if unit.depthwise:  # [k, k, in, 1] -> [groups, out / groups, in / groups, k, k]
        filters = _constant(kernel.transpose(2, 3, 0, 1)[:, :, np.newaxis], unit.kernel.name)
        return opset13.group_convolution(value, filters, strides, before, after, [1, 1])
    filters = _constant(kernel.transpose(3, 2, 0, 1), unit.kernel.name)
    return opset13.convolution(value, filters, strides, before, after, [1, 1])


def _add_head(values: dict[str, "Node"], network: Architecture, dense: Sequence[Layer], *, kept: bool) -> None:
    """Add the pooling and, with ReLU between them, the dense layers, if there are any.

    Where they are to be kept float32 they are convolutions: OpenVINO forgets what a matrix product was marked with.
    """
    from openvino import opset13

    def flat(value: "Node") -> "Node":
        return opset13.squeeze(value, _constant(np.array(_SPATIAL_AXES)))

    pooled = opset13.reduce_mean(values.pop("last"), _constant(np.array(_SPATIAL_AXES)), keep_dims=True)
    values["global_pool"] = pooled
    values["features"] = flat(pooled)
    if not dense:
        return
    value = pooled if kept else values["features"]
    for number, (kernel, biases) in enumerate(dense):
        names = [variable.name for variable in network.dense[number]]
        value = opset13.relu(value) if number else value
        if kept:
            filters = _constant(kernel.transpose(3, 2, 0, 1))
            value = opset13.convolution(value, filters, [1, 1], [0, 0], [0, 0], [1, 1])
            value = opset13.add(value, _channels(biases))
        else:
            value = opset13.matmul(value, _constant(kernel[0, 0], names[0]), transpose_a=False, transpose_b=False)
            value = opset13.add(value, _constant(biases[np.newaxis], names[1]))
    logits = flat(value) if kept else value
    temperature = network.variant.temperature
    values["logits"] = values["Logits"] = logits
    scaled = opset13.divide(logits, _constant(np.array(temperature, np.float32))) if temperature != 1 else logits
    values["Predictions"] = opset13.softmax(scaled, axis=1)


def _in_tensorflow_axes(value: "Node") -> "Node":
    from openvino import opset13

    if len(value.get_output_partial_shape(0)) == 4:
        return opset13.transpose(value, _constant(np.array([0, 2, 3, 1])))
    return value


def _channels(bias: np.ndarray, name: str | None = None) -> "Node":
    return _constant(bias.reshape(1, -1, 1, 1), name)


def _constant(value: np.ndarray | np.generic, name: str | None = None) -> "Node":
    """Return a constant; weights have names, by which they are read back from an export."""
    from openvino import op

    constant = op.Constant(np.ascontiguousarray(value))
    if name is not None:
        constant.set_friendly_name(name)
    return constant
