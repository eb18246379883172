"""Float LiteRT (TensorFlow Lite) files, read without an interpreter.

Batch norm is folded into kernels and biases in these files, so that the module computes the same and cannot be trained:
its gamma is 1, its beta the bias, its statistics such that nothing else happens. Field numbers and codes:
tensorflow/lite/schema/schema.fbs.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from mobilenet_hub.architecture import BATCH_NORM_EPSILON, BUILDERS, Architecture, ConvUnit, architecture
from mobilenet_hub.weights.flatbuffer import Table
from mobilenet_hub.weights.identify import Source
from mobilenet_hub.weights.reading import Unfit, array_from, as_float32, reading
from mobilenet_hub.weights.tensorflow.graph_def import image_size_of

_IDENTIFIER = b"TFL3"
_ADD, _AVERAGE_POOL, _CONV, _DEPTHWISE, _DEQUANTIZE, _FULLY_CONNECTED = 0, 1, 3, 4, 6, 9
_MUL, _RESHAPE, _SOFTMAX, _MEAN, _SUB, _SQUEEZE = 18, 22, 25, 40, 41, 43
_QUANTIZE = 114
_SHAPE_OPS = (_RESHAPE, _SOFTMAX, _SQUEEZE, 45, 77, 83)  # and StridedSlice, Shape, Pack, which compute shapes
_SAME, _NO_ACTIVATION, _RELU6 = 0, 0, 3
_FLOATS = {0: "<f4", 1: "<f2"}  # TensorType
_OPTIONS = {_CONV: (3, 4), _DEPTHWISE: (4, 5)}  # where activation and dilation stand in their options
_MAX_OPERATORS = 1000
_HUB_SCALING = [(_MUL, 2.0), (_SUB, 1.0)]  # 2x - 1: the hub modules' own, which a module has too


@dataclass(frozen=True)
class _Operator:
    code: int
    inputs: list[int]
    output: int
    options: Table | None

    def option(self, field: int, kind: str = "i", default: int = 0) -> int:
        return self.options.number(field, kind, default) if self.options else default


class _Graph:
    """The one graph of a model: operators in order, and its constants."""

    def __init__(self, data: bytes):
        if data[4:8] != _IDENTIFIER:
            raise ValueError("it does not begin as a LiteRT file")
        model = Table.root(data)
        codes = [max(code.number(0, "b"), code.number(3)) for code in model.tables(1)]
        graphs = model.tables(2)
        if len(graphs) != 1:
            raise ValueError(f"it has {len(graphs)} graphs, not one")
        self._buffers = model.tables(4)
        self._tensors = graphs[0].tables(0)
        self.input, self.output = (self._one(graphs[0].numbers(field)) for field in (1, 2))
        operators = graphs[0].tables(3)
        if len(operators) > _MAX_OPERATORS:
            raise ValueError(f"it has {len(operators)} operators")
        self.operators = [self._operator(one, codes) for one in operators]
        self._widened = {one.output: one.inputs[0] for one in self.operators if one.code == _DEQUANTIZE}

    def _one(self, tensors: list[int]) -> int:
        if len(tensors) != 1:
            raise ValueError(f"it has {len(tensors)} inputs or outputs where a MobileNet has one")
        return self._checked(tensors[0])

    def _checked(self, tensor: int) -> int:
        if not -1 <= tensor < len(self._tensors):
            raise ValueError(f"it refers to tensor {tensor} of {len(self._tensors)}")
        return tensor

    def _operator(self, table: Table, codes: list[int]) -> _Operator:
        code = table.number(0, "I")
        if code >= len(codes):
            raise ValueError(f"it refers to operator code {code} of {len(codes)}")
        inputs = [self._checked(tensor) for tensor in table.numbers(1)]
        return _Operator(codes[code], inputs, self._one(table.numbers(2)), table.table(4))

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(self._tensors[tensor].numbers(0))

    def constant(self, tensor: int) -> np.ndarray:
        """Return the value of a float constant, float16 widened.

        Raises:
            Unfit: it is quantized.
            ValueError: it is computed, or does not fit its shape.
        """
        tensor = self._widened.get(tensor, tensor)
        table = self._tensors[tensor]
        name, kind = str(table.bytes(3), "utf-8", "replace"), table.number(1, "b")
        if kind not in _FLOATS:
            raise Unfit(
                f"{name} is quantized (type {kind}); use the float file of the same network and quantize on export"
            )
        buffer = table.number(2, "I")
        data = self._buffers[buffer].bytes(0) if buffer < len(self._buffers) else memoryview(b"")
        return as_float32(array_from(data, np.dtype(_FLOATS[kind]), self.shape(tensor), name), name)


def read_litert(file: Path) -> Source:
    """Read a float .tflite file as a network whose batch norm is folded: for inference only.

    Raises:
        CorruptFileError: the file is damaged; says where.
        InvalidModuleError: the network is quantized or no MobileNet.
    """
    with reading(file, "a float LiteRT file of a MobileNet"):
        graph = _Graph(file.read_bytes())
        if _QUANTIZE in [one.code for one in graph.operators]:
            raise Unfit("it is quantized; use the float file of the same network and quantize on export")
        convolutions = sum(one.code in _OPTIONS for one in graph.operators)
        networks = [architecture(name, 1.0, 0) for name in BUILDERS]
        fitting = [one for one in networks if convolutions in (len(one.units), len(one.units) + 1)]
        if not fitting:
            raise Unfit(f"it has {convolutions} convolutions, which no MobileNet has")
        weights = _follow(graph, fitting[0])
        size = image_size_of(graph.shape(graph.input))
    return Source(file, "LiteRT file", weights, size, batch_norm_folded=True)


def _follow(graph: _Graph, network: Architecture) -> dict[str, np.ndarray]:
    """Go along the graph from its input, holding every operator against the architecture."""
    weights: dict[str, np.ndarray] = {}
    outputs: list[int] = []  # of every unit
    current, pooled, scaling = graph.input, False, []
    for one in graph.operators:
        if one.code == _DEQUANTIZE and current not in one.inputs:
            continue  # a float16 constant
        if one.code in _SHAPE_OPS and current not in one.inputs:
            continue  # the computation of a shape
        if current not in one.inputs:
            raise Unfit(f"operator {one.code} does not take what comes before it")
        at = len(outputs)
        if one.code in _OPTIONS and at < len(network.units):
            weights |= _unit(graph, one, network.units[at])
            outputs.append(one.output)
        elif one.code == _ADD and at and network.units[at - 1].adds is not None:
            _check_sum(one, outputs, network.units[at - 1])
            outputs[-1] = one.output
        elif one.code in (_MUL, _SUB) and not at and one.inputs[0] == current:
            scaling.append((one.code, float(graph.constant(one.inputs[1]).reshape(()))))
        elif one.code in (_MEAN, _AVERAGE_POOL) and at == len(network.units) and not pooled:
            pooled = _is_global(graph, one)
        elif one.code in (_CONV, _FULLY_CONNECTED) and pooled and len(weights) == 5 * len(network.units):
            weights |= _classifier(graph, one, network)
        elif one.code not in _SHAPE_OPS:
            raise Unfit(f"operator {one.code} is no part of a MobileNet, after {at} convolutions")
        current = one.output
    if len(outputs) != len(network.units) or not pooled or current != graph.output:
        raise Unfit("its graph is not a whole MobileNet")
    if scaling not in ([], _HUB_SCALING):
        raise Unfit("it scales its input otherwise than a module does")
    return weights


def _unit(graph: _Graph, one: _Operator, unit: ConvUnit) -> dict[str, np.ndarray]:
    activation, dilation = _OPTIONS[one.code]
    found = (one.option(1), one.option(2), one.option(activation, "b"), one.option(0, "b"))
    wanted = (unit.stride, unit.stride, _RELU6 if unit.relu6 else _NO_ACTIVATION, _SAME)
    dilations = (one.option(dilation, default=1), one.option(dilation + 1, default=1))
    if found[:3] != wanted[:3] or (found[3] != _SAME and unit.kernel_size > 1) or dilations != (1, 1):
        raise Unfit(f"{unit.scope} has other strides, padding or activation than TF-Slim's")
    if (one.code == _DEPTHWISE) != unit.depthwise or len(one.inputs) != 3:
        raise Unfit(f"operator {one.code} with {len(one.inputs)} inputs is in the place of {unit.scope}")
    kernel, bias = graph.constant(one.inputs[1]), graph.constant(one.inputs[2])
    if kernel.ndim != 4 or bias.ndim != 1:
        raise Unfit(f"{unit.scope} has a kernel of shape {list(kernel.shape)}")
    norm = {
        "gamma": np.ones_like(bias),
        "beta": bias,
        "moving_mean": np.zeros_like(bias),
        "moving_variance": np.full_like(bias, 1 - BATCH_NORM_EPSILON),  # so that it divides by 1
    }
    # [1, h, w, c] where depthwise, [out, h, w, in] elsewhere
    axes = (1, 2, 3, 0)
    return {unit.kernel.name: kernel.transpose(axes)} | {f"{unit.scope}/BatchNorm/{k}": v for k, v in norm.items()}


def _check_sum(one: _Operator, outputs: list[int], unit: ConvUnit) -> None:
    assert unit.adds is not None
    if sorted(one.inputs) != sorted((outputs[-1], outputs[unit.adds])) or one.option(0, "b") != _NO_ACTIVATION:
        raise Unfit(f"the sum after {unit.scope} is not that of TF-Slim's residual")


def _is_global(graph: _Graph, one: _Operator) -> bool:
    shape = graph.shape(one.output)
    if prod(shape[1:-1]) != 1:
        raise Unfit(f"its pooling leaves {list(shape)}")
    return True


def _classifier(graph: _Graph, one: _Operator, network: Architecture) -> dict[str, np.ndarray]:
    activation = one.option(_OPTIONS[_CONV][0] if one.code == _CONV else 0, "b")
    if activation != _NO_ACTIVATION or len(one.inputs) != 3:
        raise Unfit("its classifier is not linear with a bias")
    kernel = graph.constant(one.inputs[1])
    scope = f"{network.scope}/Logits/Conv2d_1c_1x1"
    kernel = kernel.reshape(kernel.shape[0], -1).T[None, None]
    return {f"{scope}/weights": np.ascontiguousarray(kernel), f"{scope}/biases": graph.constant(one.inputs[2])}
