"""TensorFlow.js graph models: TensorFlow's graphs as JSON, their constants in files of bytes beside it.

The converter runs TensorFlow's optimizer, which folds batch norm into kernels and fuses operations. What is fused is
taken apart again, so that these graphs are read as all others. Sources: tensorflowjs/converters,
tf_saved_model_conversion_v2.py and fuse_depthwise_conv2d.py; tensorflow/core/grappler/optimizers/remapper.cc.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from mobilenet_hub.weights.identify import Found
from mobilenet_hub.weights.operations import as_found, recognize
from mobilenet_hub.weights.reading import Unusable
from mobilenet_hub.weights.tensorflow.frozen_graph import input_of, output_of
from mobilenet_hub.weights.tensorflow.graph_def import Node, refuse_quantized
from mobilenet_hub.weights.tensorflow.graph_operations import TensorFlowGraph
from mobilenet_hub.weights.tensorflow.protobuf import Message

_TYPES = {"DT_FLOAT": 1, "DT_DOUBLE": 2, "DT_INT32": 3, "DT_INT64": 9, "DT_HALF": 19}  # types.proto
_FUSED = {
    "_FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedMatMul": "MatMul",
}
_TAKEN = {"BiasAdd": 1, "Prelu": 1, "FusedBatchNorm": 4}  # what a fused part takes besides what comes before it
_MAX_NODES = 50_000


class _JsonNode(Node):
    """A NodeDef as JSON."""

    def __init__(self, name: str, op: str, inputs: list[str], attributes: Mapping[str, Any], value: np.ndarray | None):
        super().__init__(Message(b""))
        self.name, self.op, self._taken, self._json, self._value = name, op, inputs, attributes, value

    @property
    def references(self) -> list[str]:
        return self._taken

    @cached_property
    def attributes(self) -> dict[str, Any]:
        return dict(self._json)

    @property
    def is_number(self) -> bool:
        return self._value is not None

    def constant(self) -> np.ndarray:
        assert self._value is not None  # `is_number` was asked
        return self._value

    def integers(self, attribute: str) -> list[int]:
        return [int(one) for one in self._attribute(attribute, "list").get("i", ())]

    def text(self, attribute: str) -> str:
        return _text(self._attribute(attribute, "s"))

    def integer(self, attribute: str) -> int:
        return int(self._attribute(attribute, "i"))

    def type_number(self, attribute: str) -> int:
        return _TYPES.get(self._attribute(attribute, "type"), 0)

    def flag(self, attribute: str) -> bool:
        return bool(self._attribute(attribute, "b"))

    def decimal(self, attribute: str, default: float) -> float:
        return float(self._attribute(attribute, "f")) if attribute in self._json else default

    def shape(self) -> tuple[int, ...] | None:
        if "shape" not in self._json:
            return None
        shape = self._attribute("shape", "shape")
        return None if shape.get("unknownRank") else tuple(int(one.get("size", 0)) for one in shape.get("dim", ()))

    def _attribute(self, name: str, kind: str) -> Any:
        """Return an attribute's value; what is zero or empty need not be written, nor an attribute with its default."""
        empty = {"s": "", "i": 0, "f": 0.0, "type": ""}
        return self._json.get(name, {}).get(kind, empty.get(kind, {}))


def read_graph_model(
    model: Mapping[str, Any], weights: Mapping[str, np.ndarray], given: tuple[int, int] | None = None
) -> Found:
    """Find the network in a graph model.

    Args:
        model: the content of model.json.
        weights: the constants by the names of their nodes.
        given: (height, width) of the images, where the caller says it; it matters where the file does not.

    Raises:
        Unusable: another network, or an operation that a module cannot have; names it.
        ValueError: the file is damaged.
    """
    entries = model["modelTopology"]["node"]
    if not isinstance(entries, list) or len(entries) > _MAX_NODES:
        raise ValueError("it has no list of nodes, or one of too many")
    nodes = [node for entry in entries for node in _nodes(entry, weights)]
    if len({node.name for node in nodes}) != len(nodes):
        raise ValueError("two of its nodes bear one name")
    refuse_quantized(nodes)
    if call := next((node for node in nodes if node.op.endswith("PartitionedCall")), None):
        raise Unusable(f"it calls a function, {call.name}, which the converter opens in every MobileNet")
    graph = TensorFlowGraph(nodes)
    signature = model.get("signature") or (model.get("userDefinedMetadata") or {}).get("signature") or {}
    ends = [one["name"] for one in (signature.get("outputs") or {}).values()]
    if len(ends) > 1:
        raise Unusable(f"it has {len(ends)} outputs ({', '.join(map(str, ends[:5]))}), where a network has one")
    end = graph.tensor(str(ends[0]) if ends else output_of(nodes))
    operations = graph.operations(end)
    start, size = input_of(graph, operations)
    found = recognize(operations, start, end, size or given)
    return as_found(found, size, tuple(one.name for one in operations))


def _nodes(entry: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> Iterator[_JsonNode]:
    """Yield what a node is: itself, or where it is fused the operations that it is fused of."""
    name, op = str(entry["name"]), str(entry["op"])
    attributes, inputs = dict(entry.get("attr") or {}), [str(one) for one in entry.get("input") or ()]
    if op not in _FUSED:
        value = weights.get(name) if op == "Const" else None
        kind = attributes.get("dtype", {}).get("type") if op == "Const" else None
        if kind in _TYPES and value is None:
            raise ValueError(f"its files of weights have no {name}")
        yield _JsonNode(name, op, inputs, attributes, value)
        return
    attributes["is_training"] = {"b": False}  # of a batch norm that is fused, always
    parts = [_text(one) for one in (attributes.get("fused_ops") or {}).get("list", {}).get("s", ())]
    steps = [(_FUSED[op], inputs[:2])]
    given = inputs[2:]
    for part in parts:
        count = _TAKEN.get(part, 0)
        steps.append((part, given[:count]))
        del given[:count]
    if given and not all(one.startswith("^") for one in given):
        raise Unusable(f"{name} ({op}) takes more than its parts, {', '.join(parts)}, say")
    before: list[str] = []
    for at, (kind, extra) in enumerate(steps):
        own = name if at == len(steps) - 1 else f"{name}/{at}"
        yield _JsonNode(own, kind, before + extra, attributes, None)
        before = [own]


def _text(value: Any) -> str:
    """Return a text that JSON has in base64."""
    try:
        return str(base64.b64decode(value, validate=True), "utf-8")
    except (binascii.Error, TypeError, ValueError):
        raise ValueError(f"it has {value!r} in the place of a text") from None
