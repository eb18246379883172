"""The functions of a SavedModel's objects, for those that have no signature: what calls them, and with which variables.

Field numbers: tensorflow/core/protobuf/{saved_object_graph,trackable_object_graph,struct}.proto.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mobilenet_hub.weights.tensorflow.graph_calls import Given, Key
from mobilenet_hub.weights.tensorflow.graph_def import Node
from mobilenet_hub.weights.tensorflow.graph_operations import TensorFlowGraph
from mobilenet_hub.weights.tensorflow.object_graph import OBJECT_GRAPH, VALUE, Tensors
from mobilenet_hub.weights.tensorflow.protobuf import Message, varints
from mobilenet_hub.weights.tensorflow.variables import Variables

_FUNCTION, _VARIABLE, _CONSTANT = 6, 7, 9  # SavedObject's kinds
_IMAGES = "images"
_MAX_DEPTH = 20


@dataclass(frozen=True)
class Traced:
    """One trace of a function, called with images."""

    graph: TensorFlowGraph
    start: Key
    end: Key


def traces(graph: Message, objects: Message, tensors: Tensors) -> Iterator[Traced]:
    """Yield the traces of a model's `__call__` that give one tensor, those that are not for training first.

    Args:
        graph: the GraphDef.
        objects: the SavedObjectGraph.
        tensors: the checkpoint, its object graph included.

    Raises:
        ValueError: the objects are damaged.
    """
    nodes = objects.messages(1)
    called = [child.number(1) for child in nodes[0].messages(1) if child.text(2) == "__call__"] if nodes else []
    if not called or called[0] >= len(nodes) or _FUNCTION not in nodes[called[0]]:
        return
    concrete = objects.map(2)
    names = [name for name in nodes[called[0]].message(_FUNCTION).texts(1) if name in concrete]
    values = _values(nodes, tensors)
    constants = {node.name: node for node in map(Node, graph.messages(1)) if node.op == "Const"}
    for name in sorted(names, key=lambda one: _has_true(concrete[one].message(3))):
        bound = varints(concrete[name], 2)
        arguments, variables = [], {}
        for at, number in enumerate(bound):
            saved = nodes[number] if number < len(nodes) else Message(b"")
            value = values.get(number)
            if _CONSTANT in saved and (node := constants.get(saved.message(_CONSTANT).text(1))) and node.is_number:
                value = node.constant()
            if value is not None:
                variables[f"bound/{at}"] = value
            arguments.append(Given(f"bound/{at}", "VarHandleOp" if value is not None else "Placeholder"))
        opened = TensorFlowGraph(graph, Variables(by_node=variables))
        free = opened.arguments_of(name) - len(arguments)
        inputs = [Given(_IMAGES if not at else f"argument/{at}", "Placeholder") for at in range(max(free, 0))]
        returned = opened.call(name, [*inputs, *arguments])
        if len(returned) == 1:
            yield Traced(opened, (_IMAGES, 0), returned[0])


def _values(nodes: list[Message], tensors: Tensors) -> dict[int, np.ndarray]:
    """Return the values of the objects that are variables, by the objects' numbers; both graphs name them alike."""
    text = tensors[OBJECT_GRAPH]
    stored = Message(text[0]).messages(1) if isinstance(text, tuple) and text else []
    found: dict[int, np.ndarray] = {}
    pairs, seen = [(0, 0)], {0}
    while pairs:
        one, other = pairs.pop()
        if one >= len(nodes) or other >= len(stored):
            raise ValueError("its object graph refers to an object that is not there")
        keys = [value.text(3) for value in stored[other].messages(2) if value.text(1) == VALUE]
        if _VARIABLE in nodes[one] and keys and isinstance(array := tensors.get(keys[0]), np.ndarray):
            found[one] = array
        children = {child.text(2): child.number(1) for child in stored[other].messages(1)}
        for child in nodes[one].messages(1):
            if child.text(2) in children and child.number(1) not in seen:
                seen.add(child.number(1))
                pairs.append((child.number(1), children[child.text(2)]))
    return found


def _has_true(value: Message, depth: int = 0) -> bool:
    """Tell whether a function was traced with a True among its arguments (a StructuredValue): for training."""
    if depth > _MAX_DEPTH:
        raise ValueError("its signatures nest too deep")
    inner = [item for field in (51, 52) for item in value.message(field).messages(1)]
    inner += value.message(53).map(1).values()
    return bool(value.number(14)) or any(_has_true(item, depth + 1) for item in inner)
