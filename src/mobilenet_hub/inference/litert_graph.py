"""From an architecture and its weights to a LiteRT model (.tflite): batch norm folded, padding exactly TF-Slim's.

In float32, with smaller kernels, or in int8 from the first convolution to the last; what lies behind that is float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mobilenet_hub.architecture import Architecture, ConvUnit, height_and_width, pad_amounts
from mobilenet_hub.inference.graph import INPUT, InputType, checked_outputs, dense_layers, fold_batch_norm
from mobilenet_hub.inference.litert_model import ModelBuilder, Steps, Storage

_PIXELS = Steps(1 / 255, 0)  # a decoded picture as it is, where all is quantized


@dataclass(frozen=True)
class Int8:
    """How a network's units compute in int8; `quantize` measures it.

    Attributes:
        steps: of each unit's convolution.
        sums: of each unit's residual sum; None where there is none.
        biases: of each unit, float32 [out], instead of its own.
    """

    steps: Sequence[Steps]
    sums: Sequence[Steps | None]
    biases: Sequence[np.ndarray]


def build_litert(
    network: Architecture,
    weights: Mapping[str, np.ndarray],
    image_size: tuple[int, int],
    outputs: Sequence[str],
    *,
    batch_size: int | None = 1,
    input_type: InputType = "float32",
    arithmetic: Storage | Int8 = "float32",
    names: Sequence[str] | None = None,
) -> bytes:
    """Build a LiteRT model.

    Args:
        network: the architecture.
        weights: float32 arrays by TF-Slim name, all of `network.variables`.
        image_size: (height, width) of the images, any size from 1x1.
        outputs: names out of `output_names(network)`: "logits" [n, classes], "features" [n, features], endpoints
            [n, h, w, c].
        batch_size: a fixed batch size; None: any, one to begin with.
        input_type: "float32" for images in [0, 1], "uint8" for 0..255.
        arithmetic: "float32"; "float16": kernels kept in it, half the file, computed in float32; "int8": kernels kept
            in it, a quarter, and activations brought to it layer by layer (LiteRT's "dynamic range"); or `Int8`.
        names: what the signature calls the outputs; None: as they are.

    Returns:
        The content of a .tflite file whose signature "serving_default" takes "images" and gives the outputs by name,
        with _ for each /, which names in a signature may not hold.

    Raises:
        InputError: an output that the network does not have, or an impossible image size.

    Example:
        >>> from mobilenet_hub.architecture import mobilenet_v1
        >>> network = mobilenet_v1(0.25, num_classes=0)
        >>> ones = {name: np.ones(variable.shape, np.float32) for name, variable in network.variables.items()}
        >>> build_litert(network, ones, (128, 128), ["features"])[4:8]
        b'TFL3'
    """
    outputs = checked_outputs(network, outputs)
    int8 = arithmetic if isinstance(arithmetic, Int8) else None
    model = ModelBuilder(batch_size, "int8" if isinstance(arithmetic, Int8) else arithmetic)
    images, value = _input(model, network, image_size, input_type, quantized=int8 is not None)
    values = _add_units(model, network, weights, value, image_size, int8)
    _add_head(model, network, weights, values, outputs)
    given = zip(names or outputs, outputs, strict=True)
    return model.finish(images, {signature_name(name): model.real(values[end]) for name, end in given})


def build_probe(network: Architecture, weights: Mapping[str, np.ndarray], size: tuple[int, int]) -> bytes:
    """Build a LiteRT model that takes images in 0..255 and shows what its units give, of "unit 0" on.

    Of a unit with a residual sum, "sum 3", say, is what it gives, and "unit 3" what it adds.
    """
    model = ModelBuilder(1)
    images, value = _input(model, network, size, "uint8", quantized=False)
    values = _add_units(model, network, weights, value, size, None)
    return model.finish(images, {name: end for name, end in values.items() if name.startswith(("unit ", "sum "))})


def signature_name(output: str) -> str:
    """Return an output's name in the signature, which may hold no slash.

    Example:
        >>> signature_name("layer_7/output")
        'layer_7_output'
    """
    return output.replace("/", "_")


def input_steps(network: Architecture) -> Steps:
    """Return the steps of scaled images: 0 exactly among them, for it is padded with."""
    low = network.variant.input_offset
    high = low + network.variant.input_scale
    if low == -high:  # as many steps on either side; Steps.spanning would round every pixel by half a step
        return Steps(high / 127, 0)
    return Steps.spanning(low, high)


def _input(
    model: ModelBuilder, network: Architecture, size: tuple[int, int], input_type: InputType, *, quantized: bool
) -> tuple[int, int]:
    """Add the images; return their tensor, and that of their values scaled, in int8 where the units are."""
    height_and_width(size)
    shape, unsigned = (*size, 3), input_type == "uint8"
    kind = model.schema.TensorType.UINT8 if unsigned else model.schema.TensorType.FLOAT32
    images = model.tensor(INPUT, shape, kind, _PIXELS if unsigned and quantized else None)
    value = _scaled(model, images, network, shape, input_type)
    return images, model.quantize(value, input_steps(network)) if quantized else value


def _scaled(
    model: ModelBuilder, images: int, network: Architecture, shape: tuple[int, ...], input_type: InputType
) -> int:
    """Take [0, 1] or 0..255 to what the network wants, before any padding: TensorFlow pads with zeros after scaling."""
    schema, scale = model.schema, network.variant.input_scale
    if model.steps(images):
        images = model.real(images)
    elif input_type == "uint8":
        options = schema.CastOptionsT()
        options.inDataType, options.outDataType = schema.TensorType.UINT8, schema.TensorType.FLOAT32
        images, scale = model.operator("CAST", [images], "floats", shape, options), scale / 255
    scaled = model.operator(
        "MUL", [images, model.constant("scale", np.float32(scale))], "scaled", shape, schema.MulOptionsT()
    )
    offset = model.constant("offset", np.float32(network.variant.input_offset))
    return model.operator("ADD", [scaled, offset], "centered", shape, schema.AddOptionsT())


def _add_units(
    model: ModelBuilder,
    network: Architecture,
    weights: Mapping[str, np.ndarray],
    value: int,
    size: tuple[int, int],
    int8: Int8 | None,
) -> dict[str, int]:
    """Add all units; return the endpoints' tensors by name, the last one as "last", and all as `build_probe` says."""
    values, made = {}, []
    for number, (unit, output_size) in enumerate(zip(network.units, network.output_sizes(*size), strict=True)):
        kernel, bias = fold_batch_norm(network, unit, weights)
        bias, steps = (int8.biases[number], int8.steps[number]) if int8 else (bias, None)
        value = _convolution(model, unit, (kernel, bias, steps), value, (size, output_size), network)
        values[f"unit {number}"] = value
        if unit.adds is not None:
            shape = (*output_size, unit.out_channels)
            inputs, options = [value, made[unit.adds]], model.schema.AddOptionsT()
            value = model.operator(
                "ADD", inputs, f"{unit.scope}/add", shape, options, steps=int8.sums[number] if int8 else None
            )
            values[f"sum {number}"] = value
        values.update(dict.fromkeys(unit.endpoints, value))
        made.append(value)
        size = output_size
    values["last"] = value
    return values


def _convolution(
    model: ModelBuilder,
    unit: ConvUnit,
    layer: tuple[np.ndarray, np.ndarray, Steps | None],
    value: int,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    network: Architecture,
) -> int:
    """Add a unit's convolution; where its padding is not LiteRT's SAME, the zeros are put around its input first."""
    schema, (kernel, bias, steps) = model.schema, layer
    before, after = sizes
    padding = network.variant.padding
    amounts = [pad_amounts(n, unit.kernel_size, unit.stride, padding) for n in before]
    options = schema.DepthwiseConv2DOptionsT() if unit.depthwise else schema.Conv2DOptionsT()
    given = model.steps(value)
    if amounts == [pad_amounts(n, unit.kernel_size, unit.stride) for n in before]:
        options.padding = schema.Padding.SAME
    else:
        options.padding = schema.Padding.VALID
        zeros = model.constant(f"{unit.scope}/zeros", np.array([(0, 0), *amounts, (0, 0)], np.int32))
        padded = tuple(n + sum(amount) for n, amount in zip(before, amounts, strict=True))
        shape = (*padded, unit.in_channels)
        value = model.operator("PAD", [value, zeros], f"{unit.scope}/pad", shape, schema.PadOptionsT(), steps=given)
    options.strideW = options.strideH = unit.stride
    options.dilationWFactor = options.dilationHFactor = 1
    options.fusedActivationFunction = (
        schema.ActivationFunctionType.RELU6 if unit.relu6 else schema.ActivationFunctionType.NONE
    )
    if unit.depthwise:
        options.depthMultiplier = 1
    kernel, axis = kernel.transpose(3, 0, 1, 2), 3 if unit.depthwise else 0  # [1, k, k, out], or [out, k, k, in]
    if given and steps:
        constants = model.int8_layer(unit.scope, kernel, bias, axis, given)
    else:
        constants = model.kernel(unit.kernel.name, kernel, axis), model.constant(f"{unit.scope}/bias", bias)
    code = "DEPTHWISE_CONV_2D" if unit.depthwise else "CONV_2D"
    return model.operator(code, [value, *constants], unit.scope, (*after, unit.out_channels), options, steps=steps)


def _add_head(
    model: ModelBuilder,
    network: Architecture,
    weights: Mapping[str, np.ndarray],
    values: dict[str, int],
    outputs: Sequence[str],
) -> None:
    """Add what the outputs need of: the pooling, the features, the dense layers with ReLU between them, softmax."""
    schema, last = model.schema, values.pop("last")

    def pooled(name: str, keep: bool) -> int:
        options = schema.ReducerOptionsT()
        options.keepDims = keep
        axes = model.constant(f"{name}/axes", np.array([1, 2], np.int32))
        shape = (1, 1, network.num_features) if keep else (network.num_features,)
        return model.operator("MEAN", [model.real(last), axes], name, shape, options)

    if "global_pool" in outputs:
        values["global_pool"] = pooled("global_pool", True)
    layers = dense_layers(network, weights) if {"logits", "Logits", "Predictions"} & set(outputs) else []
    if not layers and "features" not in outputs:
        return
    values["features"] = value = pooled("features", False)
    for number, (kernel, biases) in enumerate(layers, start=1):
        options = schema.FullyConnectedOptionsT()
        if number < len(layers):
            options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        name = f"hidden_{number}" if number < len(layers) else "logits"
        inputs = [value, model.kernel(f"{name}/weights", kernel[0, 0].T), model.constant(f"{name}/biases", biases)]
        value = model.operator("FULLY_CONNECTED", inputs, name, (len(biases),), options)
    if layers:
        values["logits"] = values["Logits"] = value
    if "Predictions" in outputs:
        options = schema.SoftmaxOptionsT()
        options.beta = 1 / network.variant.temperature
        values["Predictions"] = model.operator("SOFTMAX", [value], "Predictions", (network.num_classes,), options)
