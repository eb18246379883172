"""LiteRT (TensorFlow Lite) files, read without an interpreter: what they compute, in the words of `operations`.

Field numbers and codes: tensorflow/lite/schema/schema.fbs. Weights in integers are widened by the scales that stand
beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from mobilenet_hub.weights.flatbuffer import Table
from mobilenet_hub.weights.operation import INERT, MAX, NORMALIZED, RESHAPE, Operation
from mobilenet_hub.weights.reading import Unusable, array_from, as_float32

_IDENTIFIER = b"TFL3"
_ADD, _AVERAGE_POOL, _CONV, _DEPTHWISE, _DEQUANTIZE, _FULLY_CONNECTED, _LOGISTIC = 0, 1, 3, 4, 6, 9, 14
_MAX_POOL, _MUL, _RELU, _RELU6, _RESHAPE, _SOFTMAX, _CUSTOM, _PAD, _MEAN, _SUB, _DIV = (
    17,
    18,
    19,
    21,
    22,
    25,
    32,
    34,
    40,
    41,
    42,
)
_SQUEEZE, _CAST, _REDUCE_MAX, _QUANTIZE, _HARD_SWISH = 43, 53, 82, 114, 117
_NAMES = {  # of what is refused, in words that a person understands
    2: "concatenation", 5: "depth to space", 11: NORMALIZED, 12: "L2 pooling", 13: "local normalization",
    _MAX_POOL: "max pooling", 20: "ReLU from -1 to 1", 23: "bilinear resizing", 26: "space to depth",
    _CUSTOM: "an operator of somebody's own", 36: "gathering", 37: "batch to space", 38: "space to batch",
    39: "transpose", _MEAN: "mean over other axes", 45: "strided slice", 47: "exponential", 49: "splitting",
    50: "log softmax", _CAST: "rounding to integers", 55: "maximum", 56: "arg max", 57: "minimum",
    59: "negation", 60: "padding by a value", 65: "slice", 67: "transposed convolution", 73: "logarithm", 74: "sum",
    75: "square root", 76: "reciprocal square root", 77: "shape", 78: "power", _REDUCE_MAX: "maximum", 83: "packing",
    92: "square", 97: "nearest resizing", 99: "squared difference", 100: "mirrored padding",
    101: "absolute value", 102: "splitting", 105: "reversal", _HARD_SWISH: "HardSwish",
    126: "a product of two branches", 152: "ReLU from 0 to 1",
}  # fmt: skip
_FUNCTIONS = {_LOGISTIC: "sigmoid", _RELU: "relu", _RELU6: "relu6", _SOFTMAX: "softmax", _HARD_SWISH: "hard_swish",
              28: "tanh", 54: "PReLU", 98: "leaky ReLU", 111: "ELU", 150: "GELU"}  # fmt: skip
_FUSED = {0: "linear", 1: "relu", 2: "ReLU from -1 to 1", 3: "relu6", 4: "tanh", 5: "sign"}  # ActivationFunctionType
_FUSED_AT = {_CONV: 3, _DEPTHWISE: 4, _AVERAGE_POOL: 5, _FULLY_CONNECTED: 0, _ADD: 0, _MUL: 0, _SUB: 0, _DIV: 0}
_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 7: "<i2", 9: "i1", 10: "<f8"}  # TensorType
_FLOATS, _INT16 = (0, 1, 10), 7
_INTEGERS = {3: (0, 255), 9: (-128, 127)}
_OUTPUTS = ("logits", "Logits", "probabilities", "Predictions", "features")  # as our exports call them
_EDGE_TPU = b"edgetpu-custom-op"
_NAMED = 5  # tensors in an error
_MAX_OPERATORS, _MAX_INPUTS, _MAX_NAME = 1000, 256, 2048
_SHARED = 4  # how many times its own size a file's constants may be: some stand for several tensors
_CLAMPED = 6.1  # where quantization ends that stands for ReLU6: a step above 6 at most


@dataclass(frozen=True)
class _Operator:
    code: int
    inputs: list[int]
    output: int
    options: Table | None

    def option(self, field: int, kind: str = "i", default: int = 0) -> int:
        return self.options.number(field, kind, default) if self.options else default


def _signature_outputs(model: Table) -> dict[str, int]:
    """Return the output tensors of a model's one signature by name."""
    signatures = model.tables(7)
    outputs = signatures[0].tables(1) if len(signatures) == 1 else []
    return {str(one.bytes(0), "utf-8", "replace"): one.number(1, "I") for one in outputs}


class LiteRtGraph:
    """The one graph of a model: its operations, and what is at its ends."""

    def __init__(self, data: bytes, *, any_output: bool = False):
        """Take the graph in.

        Args:
            data: the file's content.
            any_output: of several outputs take the classes, or the features, by their names in the signature.

        Raises:
            ValueError: the data are damaged.
            Unusable: it is of another kind than can be read.
        """
        if data[4:8] != _IDENTIFIER:
            raise ValueError("it does not begin as a LiteRT file")
        model = Table.root(data)
        codes = model.tables(1)
        if any(code.bytes(1) == _EDGE_TPU for code in codes):
            raise Unusable(
                "it is compiled for the Edge TPU and runs there only; use the file that it was compiled from, whose "
                "name lacks _edgetpu"
            )
        graphs = model.tables(2)
        if len(graphs) != 1:
            raise ValueError(f"it has {len(graphs)} graphs, not one")
        self._buffers = model.tables(4)
        self._constants: dict[int, np.ndarray | None] = {}
        self._left = _SHARED * len(data)
        self._tensors = graphs[0].tables(0)
        self.input = self._one(graphs[0].numbers(1), "inputs")
        outputs = graphs[0].numbers(2)
        named = _signature_outputs(model) if any_output and len(outputs) > 1 else {}
        self.output = self._one(
            [named[name] for name in _OUTPUTS if named.get(name) in outputs][:1] or outputs, "outputs"
        )
        self.outputs = len(outputs)
        self.output_at = graphs[0].place(2)
        operators = graphs[0].tables(3)
        if len(operators) > _MAX_OPERATORS:
            raise ValueError(f"it has {len(operators)} operators")
        kinds = [max(code.number(0, "b"), code.number(3)) for code in codes]
        self._operators = [self._operator(one, kinds) for one in operators]
        self._makers = {one.output: one for one in self._operators}
        # Activations in integers are a quantized network; weights alone in integers are one whose weights are packed.
        self.quantized = any(
            one.code in (_CONV, _DEPTHWISE) and self._type(one.output) not in _FLOATS for one in self._operators
        )

    def _one(self, tensors: list[int], which: str) -> int:
        if len(tensors) != 1:
            names = ", ".join(self.name(self._checked(one)) for one in tensors[:_NAMED] if one >= 0)
            raise Unusable(f"it has {len(tensors)} {which} ({names or 'none'}), where a module has one")
        if self._checked(tensors[0]) < 0:
            raise ValueError("an output is absent")
        return tensors[0]

    def _checked(self, tensor: int) -> int:
        if not -1 <= tensor < len(self._tensors):
            raise ValueError(f"it refers to tensor {tensor} of {len(self._tensors)}")
        return tensor

    def _operator(self, table: Table, codes: list[int]) -> _Operator:
        code = table.number(0, "I")
        if code >= len(codes):
            raise ValueError(f"it refers to operator code {code} of {len(codes)}")
        inputs = [self._checked(tensor) for tensor in table.numbers(1)]
        if len(inputs) > _MAX_INPUTS:
            raise ValueError(f"an operator has {len(inputs)} inputs")
        return _Operator(codes[code], inputs, self._one(table.numbers(2), "outputs of one operator"), table.table(4))

    def _type(self, tensor: int) -> int:
        return self._tensors[tensor].number(1, "b")

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self._tensors[tensor].numbers(0))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of the images, -1 where the file leaves it open (and has 1 in its place elsewhere)."""
        return tuple(self._tensors[self.input].numbers(7)) or self.shape(self.input)

    def name(self, tensor: int) -> str:
        """Return a tensor's name."""
        return str(self._tensors[tensor].bytes(3)[:_MAX_NAME], "utf-8", "replace")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors."""
        return tuple(map(self.name, range(len(self._tensors))))

    def _stored(self, tensor: int) -> np.ndarray | None:
        """Return a constant as it is stored, None where a tensor is computed."""
        if tensor in self._makers:
            return None
        table = self._tensors[tensor]
        buffer, kind = table.number(2, "I"), table.number(1, "b")
        data = self._buffers[buffer].bytes(0) if buffer < len(self._buffers) else memoryview(b"")
        shape = self.shape(tensor)
        if not len(data) and prod(shape):
            return None
        if kind not in _TYPES:
            raise Unusable(f"{self.name(tensor)} is stored as type {kind}, which no MobileNet's weights are")
        return array_from(data, np.dtype(_TYPES[kind]), shape, self.name(tensor))

    def constant(self, tensor: int) -> np.ndarray | None:
        """Return the float32 value of a constant, None where it is computed from the images.

        Raises:
            Unusable: a type or a quantization that is not known.
            ValueError: it does not fit its shape.
        """
        maker = self._makers.get(tensor)
        if maker is not None and maker.code == _DEQUANTIZE:
            return self.constant(maker.inputs[0])
        if tensor not in self._constants:
            self._constants[tensor] = self._widened(tensor)
        return self._constants[tensor]

    def _widened(self, tensor: int) -> np.ndarray | None:
        stored = self._stored(tensor)
        self._left -= 0 if stored is None else stored.nbytes
        if self._left < 0:
            raise ValueError("its constants are many times as large as it is")
        if stored is None or stored.dtype.kind == "f":
            return None if stored is None else as_float32(stored, self.name(tensor))
        scales, zeros, axis = self._quantization(tensor)
        if not len(scales):
            return stored.astype(np.float32)
        if len(scales) > 1 and (not 0 <= axis < stored.ndim or stored.shape[axis] != len(scales)):
            raise ValueError(f"{self.name(tensor)} has {len(scales)} scales for the shape {list(stored.shape)}")
        form = [1] * stored.ndim
        if len(scales) > 1:
            form[axis] = len(scales)
        scale, zero = (
            scales.reshape(form) if stored.ndim else scales[0],
            zeros.reshape(form) if stored.ndim else zeros[0],
        )
        return as_float32((stored.astype(np.float64) - zero) * scale, self.name(tensor))

    def _quantization(self, tensor: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the scales, zero points and axis of a quantized tensor; no scales where it is none."""
        table = self._tensors[tensor].table(4)
        if table is None:
            return np.zeros(0), np.zeros(0), 0
        scales = np.array(table.numbers(2, "f"), np.float64)
        zeros = np.array(table.numbers(3, "q"), np.float64)
        if len(zeros) not in (0, 1, len(scales)):
            raise ValueError(f"{self.name(tensor)} has {len(scales)} scales and {len(zeros)} zero points")
        return scales, np.broadcast_to(zeros if len(zeros) else 0.0, scales.shape), table.number(6)

    @property
    def takes_floats(self) -> bool:
        """Whether images are given as floats."""
        return self._type(self.input) in _FLOATS

    def input_range(self) -> tuple[float, float]:
        """Return the least and the greatest real number that a quantized input can be; zeros for one of floats.

        Raises:
            Unusable: it is of 16 bits, whose range is the same on both sides of zero whatever images are.
        """
        quantizers = [one for one in self._operators if one.code == _QUANTIZE and self.input in one.inputs]
        tensor = quantizers[0].output if len(quantizers) == 1 else self.input
        kind = self._type(tensor)
        if kind == _INT16:
            raise Unusable("its images are 16-bit integers, and nothing says how an image becomes such ones")
        scales, zeros, _ = self._quantization(tensor)
        if kind not in _INTEGERS or len(scales) != 1:
            return 0.0, 0.0
        low, high = _INTEGERS[kind]
        return float((low - zeros[0]) * scales[0]), float((high - zeros[0]) * scales[0])

    def operations(self) -> Iterator[Operation]:
        """Yield what the graph computes of its images."""
        for one in self._operators:
            # The shape that a reshape takes is that of its output.
            given = one.inputs[:1] if one.code == _RESHAPE else one.inputs
            computed = tuple(tensor for tensor in given if tensor >= 0 and self.constant(tensor) is None)
            if not computed:
                continue  # the computation of a constant or of a shape
            kind, values = self._what(one, computed)
            name = self.name(one.output) or f"operator {one.code}"
            if one.code == _SOFTMAX and (beta := one.option(0, "f", 1)) not in (0, 1):  # that of a temperature
                scaled: Any = ("scaled", one.output)
                yield Operation("affine", name, computed, scaled, {"scale": beta, "shift": 0.0})
                computed = (scaled,)
            function = self._fused(one)
            between: Any = one.output if function == "linear" else ("before", one.output)
            yield Operation(kind, name, computed, between, values)
            if function != "linear":
                yield Operation("activation", name, (between,), one.output, {"function": function})

    def _fused(self, one: _Operator) -> str:
        """Return the activation that an operator ends with; in integers, its range may stand for ReLU6."""
        code = one.option(_FUSED_AT[one.code], "b") if one.code in _FUSED_AT else 0
        if code == 0 and one.code in (_CONV, _DEPTHWISE) and self._type(one.output) in _INTEGERS:
            scales, zeros, _ = self._quantization(one.output)
            low, high = _INTEGERS[self._type(one.output)]
            if len(scales) == 1 and zeros[0] == low and (high - low) * scales[0] <= _CLAMPED:
                return "relu6"
        return _FUSED.get(code, f"activation {code}")

    def _what(  # noqa: PLR0911 (one for each kind)
        self, one: _Operator, computed: tuple[int, ...]
    ) -> tuple[str, dict[str, Any]]:
        if one.code in (_CONV, _DEPTHWISE, _FULLY_CONNECTED):
            return self._with_kernel(one)
        if one.code in (_ADD, _MUL, _SUB, _DIV):
            return self._arithmetic(one, computed)
        if one.code in _FUNCTIONS:
            return "activation", {"function": _FUNCTIONS[one.code]}
        if one.code == _PAD:
            amounts = self.constant(one.inputs[1])
            if amounts is None or amounts.shape != (4, 2) or amounts[[0, 3]].any():
                raise Unusable(f"{self.name(one.output)} pads otherwise than height and width")
            (_, height, width, _) = amounts.astype(int).tolist()
            return "pad", {"pads": (tuple(height), tuple(width))}
        if one.code == _AVERAGE_POOL:
            window = (one.option(4), one.option(3))
            whole = window == self.shape(one.inputs[0])[1:3] and prod(self.shape(one.output)[1:3]) == 1
            return "pool", {"window": window, "whole": whole}
        axes = self.constant(one.inputs[1]) if one.code in (_MEAN, _REDUCE_MAX) and len(one.inputs) > 1 else None
        if axes is not None and sorted(axes.reshape(-1).astype(int) % 4) == [1, 2]:
            return ("mean" if one.code == _MEAN else MAX), {}
        if one.code in (_RESHAPE, _SQUEEZE):
            return RESHAPE, {"shape": self.shape(one.output)}
        if one.code in (_QUANTIZE, _DEQUANTIZE) or (one.code == _CAST and self._type(one.output) in _FLOATS):
            return INERT, {}
        return _NAMES.get(one.code, f"operator {one.code}"), {}

    def _arithmetic(self, one: _Operator, computed: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
        if len(computed) == 2:
            return ("add" if one.code == _ADD else "a product or difference of two branches"), {}
        others = [tensor for tensor in one.inputs if tensor not in computed]
        if len(others) != 1:
            raise ValueError(f"{self.name(one.output)} has {len(one.inputs)} inputs")
        constant = self.constant(others[0]) if others[0] >= 0 else None
        if constant is None or (one.code in (_SUB, _DIV) and one.inputs[0] != computed[0]):
            return "a constant minus or divided by the images", {}
        scale = {_MUL: constant, _DIV: 1 / np.where(constant == 0, np.nan, constant)}.get(one.code, np.float32(1))
        shift = {_ADD: constant, _SUB: -constant}.get(one.code, np.float32(0))
        return "affine", {"scale": scale, "shift": shift}

    def _with_kernel(self, one: _Operator) -> tuple[str, dict[str, Any]]:
        name = self.name(one.output)
        kernel = self.constant(one.inputs[1]) if len(one.inputs) > 1 and one.inputs[1] >= 0 else None
        bias = self.constant(one.inputs[2]) if len(one.inputs) > 2 and one.inputs[2] >= 0 else None
        if kernel is None or (bias is None and len(one.inputs) > 2 and one.inputs[2] >= 0):
            raise Unusable(f"{name} computes its weights or its bias, which no MobileNet does")
        if one.code == _FULLY_CONNECTED:
            if kernel.ndim != 2 or one.option(1, "b"):
                raise Unusable(f"{name} has a kernel of shape {list(kernel.shape)} or in an order of its own")
            return "dense", {"kernel": kernel.T, "bias": bias}
        depthwise = one.code == _DEPTHWISE
        if kernel.ndim != 4 or (depthwise and (kernel.shape[0] != 1 or one.option(3, default=1) not in (0, 1))):
            raise Unusable(f"{name} has a kernel of shape {list(kernel.shape)}, unlike a MobileNet's")
        at = 5 if depthwise else 4
        if (one.option(at, default=1), one.option(at + 1, default=1)) not in ((1, 1), (0, 0)):
            raise Unusable(f"{name} is a dilated convolution, which no MobileNet has")
        stride = (one.option(2), one.option(1))
        padding = "valid" if one.option(0, "b") else "same"
        # [1, h, w, c] where depthwise, [out, h, w, in] elsewhere
        values = {"kernel": kernel.transpose(1, 2, 3, 0), "bias": bias, "stride": stride, "padding": padding}
        return ("depthwise" if depthwise else "conv"), values
