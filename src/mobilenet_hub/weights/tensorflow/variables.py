"""Which value each variable of a SavedModel's graph has: what its own restoring assigns, else what bears its name.

Names need not say it: Keras 3 exports copies with a number behind their names, and layers of models within models can
bear one name. Sources: tensorflow/core/protobuf/saver.proto; tensorflow/python/checkpoint/functional_saver.py, whose
`restore` is a function with one RestoreV2 and an AssignVariableOp for each variable.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mobilenet_hub.weights.tensorflow.graph_def import Node
from mobilenet_hub.weights.tensorflow.protobuf import Message

_ASSIGN, _RESTORE = "AssignVariableOp", "RestoreV2"
_STRINGS = 8  # TensorProto.string_val
_NUMBERED = re.compile(r"_\d+$")


@dataclass(frozen=True)
class Variables:
    """The values of a graph's variables."""

    by_name: Mapping[str, np.ndarray] = field(default_factory=dict)  # as variables were called in their program
    by_node: Mapping[str, np.ndarray] = field(default_factory=dict)  # of those that restoring assigns; these come first

    def value(self, path: str, node: Node) -> np.ndarray | None:
        """Return the value of a variable's node; None where nothing says it.

        Args:
            path: the node's name below the calls around it.
            node: the node.
        """
        if path in self.by_node:
            return self.by_node[path]
        shared = node.text("shared_name")
        # A copy that Keras 3 exports is numbered in the graph, but not in the checkpoint.
        for name in (shared, node.name, _NUMBERED.sub("", shared), _NUMBERED.sub("", node.name)):
            if name in self.by_name:
                return self.by_name[name]
        return None


def restored_variables(
    meta_graph: Message, tensors: Mapping[str, np.ndarray | tuple[bytes, ...]]
) -> dict[str, np.ndarray]:
    """Return the value of each variable that restoring assigns one, by the name of its node.

    Args:
        meta_graph: the MetaGraphDef.
        tensors: the checkpoint beside it.

    Raises:
        ValueError: the graph is damaged.
    """
    graph = meta_graph.message(2)
    nodes = {node.name: node for node in map(Node, graph.messages(1))}
    restore = nodes.get(meta_graph.message(3).text(3))
    if restore is None or "f" not in restore.attributes:
        return {}
    wanted = restore.attributes["f"].message(10).text(1)
    function = next((one for one in graph.message(2).messages(1) if one.message(1).text(1) == wanted), None)
    if function is None:
        raise ValueError(f"{restore.name} calls {wanted!r}, which is not there")
    arguments = [one.text(1) for one in function.message(1).messages(2)]
    given = dict(zip(arguments, restore.inputs, strict=False))
    found = {}
    for argument, key in _assigned({node.name: node for node in map(Node, function.messages(3))}):
        value = tensors.get(key)
        if argument in given and isinstance(value, np.ndarray):
            found[given[argument]] = value
    return found


def _assigned(nodes: Mapping[str, Node]) -> Iterator[tuple[str, str]]:
    """Yield the argument and the checkpoint's key of each assignment of a restoring function."""
    for node in nodes.values():
        if node.op != _ASSIGN or len(node.references) < 2:
            continue
        passed: set[str] = set()
        name, *rest = node.references[1].split(":")
        while name in nodes and nodes[name].op == "Identity" and nodes[name].references and name not in passed:
            passed.add(name)
            name, *rest = nodes[name].references[0].split(":")
        if name in nodes and nodes[name].op == _RESTORE and rest and rest[-1].isdigit():
            keys = _strings(nodes, nodes[name])
            if int(rest[-1]) < len(keys):
                yield node.inputs[0], keys[int(rest[-1])]


def _strings(nodes: Mapping[str, Node], restore: Node) -> list[str]:
    """Return the keys that a RestoreV2 reads."""
    inputs = restore.inputs
    names = nodes.get(inputs[1]) if len(inputs) > 1 else None
    if names is None or "value" not in names.attributes:
        raise ValueError(f"{restore.name} does not say what it restores")
    return names.attributes["value"].message(8).texts(_STRINGS)
