"""From an architecture and its weights to a LiteRT model (.tflite): batch norm folded, padding exactly TF-Slim's.

Written with `flatbuffers` and the schema that LiteRT ships; no TensorFlow. Codes and options: tensorflow's
lite/schema/schema.fbs. Nothing is marked as quantized here; `quantize` does that with a model of this kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobilenet_hub.architecture import Architecture, ConvUnit, height_and_width, pad_amounts
from mobilenet_hub.inference.graph import INPUT, InputType, checked_outputs, dense_layers, fold_batch_norm

SIGNATURE = "serving_default"
_IDENTIFIER = b"TFL3"
_VERSION = 3
_ALIGNMENT = 16  # of buffers, as the schema demands


def build_litert(
    network: Architecture,
    weights: Mapping[str, np.ndarray],
    image_size: tuple[int, int],
    outputs: Sequence[str],
    *,
    batch_size: int | None = 1,
    input_type: InputType = "float32",
    half: bool = False,
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
        half: keep kernels in float16, half the file; what is computed is float32.
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
    height_and_width(image_size)
    outputs = checked_outputs(network, outputs)
    model = _Model(batch_size, half=half)
    kind = model.schema.TensorType.UINT8 if input_type == "uint8" else model.schema.TensorType.FLOAT32
    images = model.tensor(INPUT, (*image_size, 3), kind)
    values = _add_units(
        model, network, weights, _scaled(model, images, network, (*image_size, 3), input_type), image_size
    )
    _add_head(model, network, weights, values, outputs)
    return model.finish(images, {signature_name(n): values[o] for n, o in zip(names or outputs, outputs, strict=True)})


def signature_name(output: str) -> str:
    """Return an output's name in the signature, which may hold no slash.

    Example:
        >>> signature_name("layer_7/output")
        'layer_7_output'
    """
    return output.replace("/", "_")


def _scaled(model: "_Model", images: int, network: Architecture, shape: tuple[int, ...], input_type: InputType) -> int:
    """Take [0, 1] or 0..255 to what the network wants, before any padding: TensorFlow pads with zeros after scaling."""
    schema, scale, offset = model.schema, network.variant.input_scale, network.variant.input_offset
    if input_type == "uint8":
        options = schema.CastOptionsT()
        options.inDataType, options.outDataType = schema.TensorType.UINT8, schema.TensorType.FLOAT32
        images, scale = model.operator("CAST", [images], "floats", shape, options), scale / 255
    scaled = model.operator(
        "MUL", [images, model.constant("scale", np.float32(scale))], "scaled", shape, schema.MulOptionsT()
    )
    offset = model.constant("offset", np.float32(network.variant.input_offset))
    return model.operator("ADD", [scaled, offset], "centered", shape, schema.AddOptionsT())


def _add_units(
    model: "_Model", network: Architecture, weights: Mapping[str, np.ndarray], value: int, size: tuple[int, int]
) -> dict[str, int]:
    """Add all units; return the endpoints' tensors by name, and the last one as "last"."""
    values, made = {}, []
    for unit, output_size in zip(network.units, network.output_sizes(*size), strict=True):
        value = _convolution(model, unit, fold_batch_norm(network, unit, weights), value, (size, output_size), network)
        if unit.adds is not None:
            shape = (*output_size, unit.out_channels)
            value = model.operator(
                "ADD", [value, made[unit.adds]], f"{unit.scope}/add", shape, model.schema.AddOptionsT()
            )
        values.update(dict.fromkeys(unit.endpoints, value))
        made.append(value)
        size = output_size
    values["last"] = value
    return values


def _convolution(
    model: "_Model",
    unit: ConvUnit,
    layer: tuple[np.ndarray, np.ndarray],
    value: int,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    network: Architecture,
) -> int:
    """Add a unit's convolution; where its padding is not LiteRT's SAME, the zeros are put around its input first."""
    schema, (kernel, bias) = model.schema, layer
    before, after = sizes
    padding = network.variant.padding
    amounts = [pad_amounts(n, unit.kernel_size, unit.stride, padding) for n in before]
    options = schema.DepthwiseConv2DOptionsT() if unit.depthwise else schema.Conv2DOptionsT()
    if amounts == [pad_amounts(n, unit.kernel_size, unit.stride) for n in before]:
        options.padding = schema.Padding.SAME
    else:
        options.padding = schema.Padding.VALID
        zeros = model.constant(f"{unit.scope}/zeros", np.array([(0, 0), *amounts, (0, 0)], np.int32))
        padded = tuple(n + sum(amount) for n, amount in zip(before, amounts, strict=True))
        shape = (*padded, unit.in_channels)
        value = model.operator("PAD", [value, zeros], f"{unit.scope}/pad", shape, schema.PadOptionsT())
    options.strideW = options.strideH = unit.stride
    options.dilationWFactor = options.dilationHFactor = 1
    options.fusedActivationFunction = (
        schema.ActivationFunctionType.RELU6 if unit.relu6 else schema.ActivationFunctionType.NONE
    )
    if unit.depthwise:
        options.depthMultiplier = 1
    inputs = [
        value,
        model.kernel(unit.kernel.name, kernel.transpose(3, 0, 1, 2)),  # [out, k, k, in], or [1, k, k, in]
        model.constant(f"{unit.scope}/bias", bias),
    ]
    code = "DEPTHWISE_CONV_2D" if unit.depthwise else "CONV_2D"
    return model.operator(code, inputs, unit.scope, (*after, unit.out_channels), options)


def _add_head(
    model: "_Model",
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
        return model.operator("MEAN", [last, axes], name, shape, options)

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


class _Model:
    """A model while it is built: one graph, whose tensors are numbered as they are added."""

    def __init__(self, batch_size: int | None, *, half: bool):
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self._batch_size, self._half = batch_size, half
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators, self._graph.name = [], [], "main"
        self._buffers = [schema.BufferT()]  # the first is empty: that of whatever is computed
        self._codes: dict[str, int] = {}

    def tensor(self, name: str, shape: tuple[int, ...], kind: int | None = None) -> int:
        """Add what is computed or put in, of this shape behind the batch axis; return its number."""
        tensor = self._tensor(name, (self._batch_size or 1, *shape), kind)
        if self._batch_size is None:
            tensor.shapeSignature = [-1, *shape]
        return len(self._graph.tensors) - 1

    def constant(self, name: str, value: np.ndarray | np.generic) -> int:
        """Add a constant, float32, float16 or int32; return its number."""
        kinds = {name: getattr(self.schema.TensorType, name.upper()) for name in ("float32", "float16", "int32")}
        tensor = self._tensor(name, value.shape, kinds[str(value.dtype)])
        tensor.buffer = len(self._buffers)
        self._buffers.append(aligned_buffer(self.schema, np.ascontiguousarray(value).tobytes()))
        return len(self._graph.tensors) - 1

    def kernel(self, name: str, value: np.ndarray) -> int:
        """Add a kernel, float32 or, where such are wanted, float16 that is widened; return its number."""
        if not self._half:
            return self.constant(name, value)
        with np.errstate(over="ignore"):  # what it cannot hold is infinite, and the proof of an export says so
            near = value.astype(np.float16)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault("DEQUANTIZE", len(self._codes))
        operator.builtinOptionsType = self.schema.BuiltinOptions.DequantizeOptions
        operator.builtinOptions = self.schema.DequantizeOptionsT()
        operator.inputs = [self.constant(f"{name}/float16", near)]
        self._tensor(name, value.shape, self.schema.TensorType.FLOAT32)
        operator.outputs = [len(self._graph.tensors) - 1]
        self._graph.operators.append(operator)
        return operator.outputs[0]

    def operator(self, code: str, inputs: list[int], name: str, shape: tuple[int, ...], options: Any) -> int:
        """Add an operator; return the number of its output, of this shape behind the batch axis."""
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs, operator.outputs = inputs, [self.tensor(name, shape)]
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        operator.builtinOptions = options
        self._graph.operators.append(operator)
        return operator.outputs[0]

    def finish(self, images: int, outputs: Mapping[str, int]) -> bytes:
        """Return the model, which takes this tensor and gives these by name."""
        import flatbuffers

        schema, model = self.schema, self.schema.ModelT()
        self._graph.inputs, self._graph.outputs = [images], list(dict.fromkeys(outputs.values()))
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
        signature.inputs = [self._named(INPUT, images)]
        signature.outputs = [self._named(name, index) for name, index in outputs.items()]
        model.version, model.description = _VERSION, "made by mobilenet-hub"
        model.subgraphs, model.buffers, model.signatureDefs = [self._graph], self._buffers, [signature]
        model.operatorCodes = [self._code(code) for code in self._codes]
        builder = flatbuffers.Builder(sum(len(buffer.data or b"") + 64 for buffer in self._buffers) + (1 << 16))
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int | None) -> Any:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = self.schema.TensorType.FLOAT32 if kind is None else kind
        tensor.hasRank = True
        self._graph.tensors.append(tensor)
        return tensor

    def _named(self, name: str, index: int) -> Any:
        entry = self.schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        return entry

    def _code(self, name: str) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self.schema.BuiltinOperator, name)
        code.version = 3 if name == "DEQUANTIZE" else 1  # from which on it takes float16
        return code


def aligned_buffer(schema: Any, content: bytes) -> Any:
    """Return a buffer that is written aligned; the schema's own writes one byte at a time, anywhere."""

    class Buffer(schema.BufferT):
        def Pack(self, builder: Any) -> int:
            builder.StartVector(1, len(content), _ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            start = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, start)
            return schema.BufferEnd(builder)

    buffer = Buffer()
    buffer.data = content
    return buffer
