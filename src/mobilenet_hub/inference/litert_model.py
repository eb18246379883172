"""The pieces of a LiteRT model (.tflite), put together and written: tensors, constants, operators, quantization.

Written with `flatbuffers` and the schema that LiteRT ships; no TensorFlow. Codes and options: tensorflow's
lite/schema/schema.fbs; versions of operators: its lite/tools/versioning/op_version.cc; how numbers are quantized:
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from mobilenet_hub.inference.graph import INPUT

SIGNATURE = "serving_default"
_IDENTIFIER = b"TFL3"
_VERSION = 3
_ALIGNMENT = 16  # of buffers, as the schema demands
_LOW, _HIGH = -128, 127  # of int8
_MOST_BIAS = 1 << 29  # a bias in steps: room for the sum that it is added to, in 32 bits

# Versions of operators from which on they compute in int8, and with int8 kernels in float32, per channel.
_INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "ADD": 2, "PAD": 2, "DEQUANTIZE": 2}
_HYBRID_VERSIONS = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12}

Storage = Literal["float32", "float16", "int8"]  # of kernels


class Steps(NamedTuple):
    """How 8-bit values stand for real numbers: (value - zero_point) * scale."""

    scale: float
    zero_point: int

    @classmethod
    def spanning(cls, low: float, high: float) -> "Steps":
        """Return the 256 steps from the one number to the other, 0 exactly among them.

        Example:
            >>> Steps.spanning(0.0, 255.0)
            Steps(scale=1.0, zero_point=-128)
        """
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        scale = (high - low) / (_HIGH - _LOW) or 1.0
        return cls(scale, round(_LOW - low / scale))


class ModelBuilder:
    """A model while it is built: one graph, whose tensors are numbered as they are added."""

    def __init__(self, batch_size: int | None, kernels: Storage = "float32"):
        """Begin a model.

        Args:
            batch_size: a fixed batch size; None: any, one to begin with.
            kernels: how kernels are stored.
        """
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self._batch_size, self._kernels = batch_size, kernels
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators, self._graph.name = [], [], "main"
        self._buffers = [schema.BufferT()]  # the first is empty: that of whatever is computed
        self._codes: dict[tuple[str, int], int] = {}
        self._steps: dict[int, Steps] = {}
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._reals: dict[int, int] = {}

    def tensor(self, name: str, shape: tuple[int, ...], kind: int | None = None, steps: Steps | None = None) -> int:
        """Add what is computed or put in, of this shape behind the batch axis; int8 where it has steps."""
        if steps is not None and kind is None:
            kind = self.schema.TensorType.INT8
        tensor = self._tensor(name, (self._batch_size or 1, *shape), kind)
        if self._batch_size is None:
            tensor.shapeSignature = [-1, *shape]
        number = len(self._graph.tensors) - 1
        self._shapes[number] = shape
        if steps is not None:
            self._steps[number] = steps
            self._quantized(tensor, [steps.scale], [steps.zero_point])
        return number

    def steps(self, tensor: int) -> Steps | None:
        """Return what the values of a tensor stand for; None where they are real numbers."""
        return self._steps.get(tensor)

    def constant(self, name: str, value: np.ndarray | np.generic) -> int:
        """Add a constant, float32, float16, int32 or int8; return its number."""
        kind = getattr(self.schema.TensorType, str(value.dtype).upper())
        tensor = self._tensor(name, value.shape, kind)
        tensor.buffer = len(self._buffers)
        self._buffers.append(aligned_buffer(self.schema, np.ascontiguousarray(value).tobytes()))
        return len(self._graph.tensors) - 1

    def kernel(self, name: str, value: np.ndarray, axis: int = 0) -> int:
        """Add a kernel, stored as kernels are; return its number.

        Args:
            name: of the tensor.
            value: float32.
            axis: that of the output channels.
        """
        if self._kernels == "float32":
            return self.constant(name, value)
        if self._kernels == "int8":
            values, scales = quantized_kernel(value, axis)
            return self._stored_kernel(name, values, scales, axis)
        with np.errstate(over="ignore"):  # what it cannot hold is infinite, and the proof of an export says so
            near = self.constant(f"{name}/float16", value.astype(np.float16))
        self._tensor(name, value.shape, self.schema.TensorType.FLOAT32)
        return self._add("DEQUANTIZE", [near], len(self._graph.tensors) - 1, self.schema.DequantizeOptionsT(), 3)

    def int8_layer(self, name: str, kernel: np.ndarray, bias: np.ndarray, axis: int, steps: Steps) -> tuple[int, int]:
        """Add the kernel and the bias of a layer that computes in integers; return their numbers.

        Args:
            name: of the layer.
            kernel: float32.
            bias: float32 [out].
            axis: that of the kernel's output channels.
            steps: of what goes into the layer.
        """
        values, scales = quantized_kernel(kernel, axis, bias / steps.scale)
        sums = scales * steps.scale
        number = self.constant(f"{name}/bias", np.rint(bias / sums).astype(np.int32))
        self._quantized(self._graph.tensors[number], sums.tolist(), [0] * len(sums))
        return self._stored_kernel(f"{name}/kernel", values, scales, axis), number

    def _stored_kernel(self, name: str, values: np.ndarray, scales: np.ndarray, axis: int) -> int:
        number = self.constant(name, values)
        self._quantized(self._graph.tensors[number], scales.tolist(), [0] * len(scales), axis)
        return number

    def operator(
        self,
        code: str,
        inputs: list[int],
        name: str,
        shape: tuple[int, ...],
        options: Any,
        *,
        steps: Steps | None = None,
    ) -> int:
        """Add an operator; return the number of its output, of this shape behind the batch axis; int8 with steps."""
        return self._add(
            code, inputs, self.tensor(name, shape, steps=steps), options, self._version(code, inputs, steps)
        )

    def quantize(self, tensor: int, steps: Steps) -> int:
        """Bring real numbers to int8."""
        options = self.schema.QuantizeOptionsT()
        return self.operator("QUANTIZE", [tensor], "int8", self._shapes[tensor], options, steps=steps)

    def real(self, tensor: int) -> int:
        """Bring 8-bit values to the real numbers that they stand for; what is real stays."""
        if tensor not in self._steps:
            return tensor
        if tensor not in self._reals:
            name, options = f"{self._graph.tensors[tensor].name}/real", self.schema.DequantizeOptionsT()
            self._reals[tensor] = self.operator("DEQUANTIZE", [tensor], name, self._shapes[tensor], options)
        return self._reals[tensor]

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
        model.operatorCodes = [self._code(*code) for code in self._codes]
        builder = flatbuffers.Builder(sum(len(buffer.data or b"") + 64 for buffer in self._buffers) + (1 << 16))
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def _version(self, code: str, inputs: list[int], steps: Steps | None) -> int:
        """Return from which version on an operator computes with these inputs: op_version.cc."""
        if self._steps.keys() & set(inputs):
            unsigned = any(self._graph.tensors[i].type == self.schema.TensorType.UINT8 for i in inputs)
            return _INT8_VERSIONS.get(code, 1) if not unsigned else 1
        return _HYBRID_VERSIONS.get(code, 1) if self._kernels == "int8" and steps is None else 1

    def _add(self, code: str, inputs: list[int], output: int, options: Any, version: int) -> int:
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((code, version), len(self._codes))
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        operator.builtinOptions = options
        self._graph.operators.append(operator)
        return output

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int | None) -> Any:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = self.schema.TensorType.FLOAT32 if kind is None else kind
        tensor.hasRank = True
        self._graph.tensors.append(tensor)
        return tensor

    def _quantized(self, tensor: Any, scales: list[float], zero_points: list[int], axis: int = 0) -> None:
        tensor.quantization = self.schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = scales, zero_points
        tensor.quantization.quantizedDimension = axis

    def _named(self, name: str, index: int) -> Any:
        entry = self.schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        return entry

    def _code(self, name: str, version: int) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self.schema.BuiltinOperator, name)
        code.version = version
        return code


def quantized_kernel(kernel: np.ndarray, axis: int, bias: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel in int8 and the scale of each of its output channels, float32 [out]; zero stays zero.

    Args:
        kernel: float32.
        axis: that of the output channels.
        bias: [out], in steps of what goes into the layer: it has to fit 32 bits in steps of both.

    Example:
        >>> quantized_kernel(np.float32([[127, -2.6], [0, 0]]), 0)[0].tolist()
        [[127, -3], [0, 0]]
    """
    others = tuple(i for i in range(kernel.ndim) if i != axis)
    largest = np.maximum(np.abs(kernel).max(others) / _HIGH, np.abs(bias) / _MOST_BIAS)
    scales = np.where(largest > np.finfo(np.float32).tiny, largest, 1.0).astype(np.float32)
    form = [-1 if i == axis else 1 for i in range(kernel.ndim)]
    return np.clip(np.rint(kernel / scales.reshape(form)), -_HIGH, _HIGH).astype(np.int8), scales


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
