"""TensorFlow graphs, read without TensorFlow: their nodes, constants, and what they say of a network.

Field numbers: tensorflow/core/framework/{graph,node_def,function, attr_value,tensor,tensor_shape}.proto.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isclose, prod

import numpy as np

from mobilenet_hub.architecture import BATCH_NORM_EPSILON, INPUT_CHANNELS, Variant
from mobilenet_hub.weights.reading import Unusable, array_from
from mobilenet_hub.weights.tensorflow.protobuf import Message, varints

DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # types.proto
_MAX_SPLAT = 1 << 16  # elements of a constant that is stored as one value
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_VARIABLE_OPS = ("VarHandleOp", "VariableV2", "Variable")


class Node:
    """A NodeDef."""

    def __init__(self, message: Message):
        self._message = message
        self.name = message.text(1)
        self.op = message.text(2)

    @property
    def inputs(self) -> list[str]:
        """The names of the nodes that this one takes, without output numbers and control marks."""
        return [text.lstrip("^").partition(":")[0] for text in self.references]

    @property
    def references(self) -> list[str]:
        """The tensors that this node takes, as they stand: with output numbers, "^" before what it waits for."""
        return self._message.texts(3)

    @property
    def is_number(self) -> bool:
        """Whether a Const node holds numbers of a type that is known."""
        return "value" in self.attributes and self.attributes["value"].message(8).number(1) in DTYPES

    def integers(self, attribute: str) -> list[int]:
        """The numbers of a list attribute; none where it is absent."""
        return varints(self.attributes[attribute].message(1), 3) if attribute in self.attributes else []

    def text(self, attribute: str) -> str:
        """A string attribute, empty where it is absent."""
        return self.attributes[attribute].text(2) if attribute in self.attributes else ""

    def integer(self, attribute: str) -> int:
        """The value of an attribute that is an integer; 0 where it is missing."""
        return self.attributes[attribute].number(3) if attribute in self.attributes else 0

    def type_number(self, attribute: str) -> int:
        """An attribute that is a type (types.proto), 0 where it is absent."""
        return self.attributes[attribute].number(6) if attribute in self.attributes else 0

    def flag(self, attribute: str) -> bool:
        """A boolean attribute, False where it is absent."""
        return bool(self.attributes[attribute].number(5)) if attribute in self.attributes else False

    def decimal(self, attribute: str, default: float) -> float:
        """A float attribute."""
        data = self.attributes[attribute].bytes(4) if attribute in self.attributes else b""
        return struct.unpack("<f", data)[0] if len(data) == 4 else default

    @cached_property
    def attributes(self) -> dict[str, Message]:
        """The AttrValues by name."""
        return self._message.map(5)

    def shape(self) -> tuple[int, ...] | None:
        """The `shape` attribute, -1 where a dimension is free; None where there is none."""
        return shape_of(self.attributes["shape"].message(7)) if "shape" in self.attributes else None

    def constant(self) -> np.ndarray:
        """The value of a Const node.

        Raises:
            ValueError: the value does not fit its shape, or is of another type than numbers.
        """
        if "value" not in self.attributes:
            raise ValueError(f"{self.name} has no value")
        return _tensor(self.attributes["value"].message(8), self.name)


@dataclass(frozen=True)
class GraphFacts:
    """What a graph says beyond its weights."""

    image_size: tuple[int, int] | None  # (height, width) of its image placeholder, where it is fixed
    variables: dict[str, tuple[int, ...]]  # shapes of its variables by name


def nodes_of(graph: Message) -> Iterator[Node]:
    """Yield the nodes of a GraphDef and of the functions in its library."""
    for message in graph.messages(1):
        yield Node(message)
    for function in graph.message(2).messages(1):
        for message in function.messages(3):
            yield Node(message)


def facts_of(nodes: Iterable[Node]) -> GraphFacts:
    """Collect what a graph says, and refuse a quantized one.

    Raises:
        Unusable: the graph is quantized.
    """
    sizes, variables = set(), {}
    nodes = list(nodes)
    refuse_quantized(nodes)
    for node in nodes:
        if node.op == "Placeholder":
            sizes.add(image_size_of(node.shape()))
        elif node.op in _VARIABLE_OPS:
            variables[node.name] = node.shape()
    sizes.discard(None)
    return GraphFacts(sizes.pop() if len(sizes) == 1 else None, variables)


def variant_of(nodes: Iterable[Node]) -> Variant:
    """Return how a graph computes that is read by its variables' names: its batch norm's epsilon.

    Raises:
        Unusable: the graph pads otherwise than SAME, or mixes epsilons.
    """
    epsilons = set()
    for node in nodes:
        if node.op.startswith("FusedBatchNorm") and "epsilon" in node.attributes:
            epsilons.add(node.decimal("epsilon", 0.0))
        elif node.op == "Const" and node.name.endswith("/batchnorm/add/y"):
            epsilons.add(float(node.constant().reshape(())))
        elif node.op in CONVOLUTIONS:
            _check_padding(node)
    return Variant(_one_epsilon(epsilons))


def refuse_quantized(nodes: Iterable[Node]) -> None:
    """Refuse a graph that computes in integers, or as if it did.

    Raises:
        Unusable: names the node.
    """
    for node in nodes:
        if "FakeQuant" in node.op or node.op in ("Dequantize", "QuantizedConv2D"):
            raise Unusable(
                f"node {node.name} is {node.op}: the network is quantized; "
                "use the float file of the same network and quantize on export"
            )


def image_size_of(shape: tuple[int, ...] | None) -> tuple[int, int] | None:
    """Return (height, width) of the shape [batch, height, width, 3] of images, None where it is none or not fixed."""
    if shape is None or len(shape) != 4 or shape[3] != INPUT_CHANNELS or min(shape[1:3]) <= 0:
        return None
    return shape[1], shape[2]


def shape_of(message: Message) -> tuple[int, ...] | None:
    """Return a TensorShapeProto, -1 where a dimension is free; None where the rank is unknown."""
    if message.number(3):
        return None
    return tuple(dimension.signed(1) for dimension in message.messages(2))


def _check_padding(node: Node) -> None:
    """A 1x1 convolution pads nothing either way; those with a stride, and the depthwise ones, are 3x3."""
    padding = node.attributes["padding"].text(2) if "padding" in node.attributes else ""
    strided = node.attributes["strides"].message(1).bytes(3) != b"\1\1\1\1" if "strides" in node.attributes else False
    if padding != "SAME" and (strided or node.op == "DepthwiseConv2dNative"):
        raise Unusable(f"node {node.name} pads {padding or 'somehow'}, not SAME as TF-Slim's published networks do")


def _one_epsilon(epsilons: set[float]) -> float:
    if len(epsilons) > 1:
        raise Unusable(f"its batch norms have the different epsilons {sorted(epsilons)}")
    epsilon = epsilons.pop() if epsilons else BATCH_NORM_EPSILON
    return BATCH_NORM_EPSILON if isclose(epsilon, BATCH_NORM_EPSILON, rel_tol=1e-6) else epsilon


def _tensor(proto: Message, name: str) -> np.ndarray:
    kind = proto.number(1)
    if kind not in DTYPES:
        raise ValueError(f"{name} is of TensorFlow's type {kind}, not a plain number")
    dtype, shape = np.dtype(DTYPES[kind]), shape_of(proto.message(2))
    if shape is None:
        raise ValueError(f"{name} has no shape")
    if 4 in proto:
        return array_from(proto.bytes(4), dtype, shape, name)
    if dtype.kind == "i":
        values = varints(proto, 7 if kind == 3 else 10)
        if len(values) == 1 and prod(shape) <= _MAX_SPLAT:
            return np.broadcast_to(np.array(values[0], dtype), shape)
        return np.array(values, dtype).reshape(shape) if len(values) == prod(shape) else np.zeros(0, dtype)
    if kind != 1:
        return np.zeros(0, dtype)  # doubles listed one by one are nobody's weights
    data = b"".join(proto.all_bytes(5))
    missing = prod(shape) - len(data) // dtype.itemsize
    along_one = sum(size != 1 for size in shape) <= 1 and prod(shape) <= _MAX_SPLAT
    if data and missing > 0 and along_one:  # TensorFlow leaves out what repeats the last value
        data += data[-dtype.itemsize :] * missing
    return array_from(data, dtype, shape, name)
