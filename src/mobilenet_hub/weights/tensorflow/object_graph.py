"""The object graph of TF2 checkpoints: which numbered tensor is which variable.

Each variable's `full_name` is its TF-Slim name. Exports made before May 2019 have no names, or one name many times
(tensorflow/hub issue 287): for those the order of the object's `variables` decides.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.identify import is_slim, slim_name
from mobilenet_hub.weights.reading import reading
from mobilenet_hub.weights.tensorflow.graph_def import shape_of
from mobilenet_hub.weights.tensorflow.protobuf import Message
from mobilenet_hub.weights.variable_order import weights_by_order

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "VARIABLE_VALUE"

Tensors = Mapping[str, np.ndarray | tuple[bytes, ...]]


@dataclass(frozen=True)
class _Stored:
    """One variable of the object."""

    name: str  # its TF-Slim name, "" where the file has none
    array: np.ndarray
    trainable: bool


def full_names(tensors: Tensors) -> dict[str, np.ndarray]:
    """Return the variables of a checkpoint by the names that they had in their program.

    Raises:
        ValueError: the object graph is damaged, or one name stands for different values.
    """
    graph = tensors[OBJECT_GRAPH]
    if not isinstance(graph, tuple) or len(graph) != 1:
        raise ValueError("its object graph is not one string")
    found: dict[str, np.ndarray] = {}
    unclear: set[str] = set()
    for node in Message(graph[0]).messages(1):
        for value in node.messages(2):
            name, array = value.text(2), tensors.get(value.text(3))
            if value.text(1) != VALUE or not name or not isinstance(array, np.ndarray):
                continue
            if name in found and not np.array_equal(found[name], array):
                unclear.add(name)
            found[name] = array
    return {name: array for name, array in found.items() if name not in unclear}


def named_variables(tensors: Tensors, objects: Message, folder: Path) -> dict[str, np.ndarray]:
    """Return the variables of a SavedModel by TF-Slim name.

    Args:
        tensors: the checkpoint, its object graph included.
        objects: the SavedObjectGraph of saved_model.pb.
        folder: the SavedModel, for errors.

    Raises:
        CorruptFileError: the two object graphs are damaged or do not belong together.
        InvalidModuleError: variables without names are in no order that makes a MobileNet.
    """
    with reading(folder, "a SavedModel"):
        graph = tensors[OBJECT_GRAPH]
        if not isinstance(graph, tuple) or len(graph) != 1:
            raise ValueError("its object graph is not one string")
        stored = list(_stored_variables(Message(graph[0]).messages(1), objects.messages(1), tensors))
    if not stored:
        raise InvalidModuleError(f"{folder} has no list of `variables`, as reusable SavedModels have")
    named = {one.name: one.array for one in stored if one.name}
    if len(named) == len(stored):
        return named
    return weights_by_order([one.array for one in stored], folder, [one.trainable for one in stored])


def _stored_variables(nodes: list[Message], saved: list[Message], tensors: Tensors) -> Iterator[_Stored]:
    children = _children(nodes, _child(nodes, 0, "variables"))
    twins = _children(saved, _child(saved, 0, "variables"))
    if len(children) != len(twins):
        raise ValueError(f"saved_model.pb has {len(twins)} variables, the weights beside it {len(children)}")
    for at, (child, twin) in enumerate(zip(children, twins, strict=True)):
        values = [one for one in nodes[child].messages(2) if one.text(1) == VALUE]
        if len(values) != 1:
            raise ValueError(f"variable {at} has no value")
        name, key = values[0].text(2), values[0].text(3)
        array = tensors.get(key)
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name or f'variable {at}'} ({key}) is not in the checkpoint")
        variable = saved[twin].message(7)
        names = [one for one in (slim_name(name), slim_name(variable.text(6))) if is_slim(one)]
        if shape_of(variable.message(2)) != array.shape or len(set(names)) > 1:
            raise ValueError(
                f"saved_model.pb does not belong to the weights beside it: variable {at} is {variable.text(6)!r} of "
                f"shape {shape_of(variable.message(2))} there, {name!r} of shape {array.shape} here"
            )
        yield _Stored(names[0] if names else "", array, bool(variable.number(3)))


def _child(nodes: Sequence[Message], node: int, name: str) -> int | None:
    if not nodes:
        raise ValueError("its object graph is empty")
    found = [child.number(1) for child in nodes[node].messages(1) if child.text(2) == name]
    return found[0] if found else None


def _children(nodes: Sequence[Message], node: int | None) -> list[int]:
    """Return the ids of a list's items, in the list's order."""
    if node is None:
        return []
    if node >= len(nodes):
        raise ValueError(f"its object graph refers to node {node} of {len(nodes)}")
    items = {int(child.text(2)): child.number(1) for child in nodes[node].messages(1) if child.text(2).isdigit()}
    if any(child >= len(nodes) for child in items.values()):
        raise ValueError(f"its object graph refers to more than its {len(nodes)} nodes")
    return [items[at] for at in sorted(items)]
