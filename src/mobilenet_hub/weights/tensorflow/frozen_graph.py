"""Frozen TensorFlow graphs: networks whose variables have become constants.

The constants keep the variables' names (read through `<name>/read` nodes), sometimes below the scope of an import.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.identify import LEAVES, Source, is_slim, slim_name
from mobilenet_hub.weights.reading import as_float32, reading
from mobilenet_hub.weights.tensorflow.graph_def import Node, facts_of, nodes_of
from mobilenet_hub.weights.tensorflow.protobuf import Message

WHAT = "a frozen TensorFlow graph"
_NODE = 1  # GraphDef.node; behind it stand library, version and versions (tensorflow/core/framework/graph.proto)


def read_frozen_graph(file: Path) -> Source:
    """Read the weights and the image size of a frozen graph (.pb).

    Raises:
        CorruptFileError: the file is damaged, cut off, or no frozen graph; says where.
        InvalidModuleError: the graph is quantized or holds no MobileNet.
    """
    with reading(file, WHAT):
        graph = Message(file.read_bytes())
        if _NODE not in graph:
            raise ValueError("it has no nodes")
        if graph.last == _NODE:  # cut off between two nodes, a graph may be a smaller network without fault
            raise ValueError("it ends with a node, without the library or the versions that TensorFlow writes last")
        nodes = list(nodes_of(graph))
        _check_wiring(nodes)
        facts = facts_of(nodes)
        weights = _constants(nodes)
        if not weights:
            raise InvalidModuleError(
                f"{file} has no constants named as TF-Slim's variables (MobilenetV1/... or MobilenetV2/...)"
            )
    return Source(file, "frozen graph", weights, facts.image_size, variant=facts.variant)


def _constants(nodes: list[Node]) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    for node in nodes:
        name = slim_name(node.name)
        if node.op != "Const" or not is_slim(name):
            continue
        if name in weights:
            raise ValueError(f"{name} occurs twice, also as {node.name}")
        weights[name] = as_float32(node.constant(), name)
    return weights


def _check_wiring(nodes: list[Node]) -> None:
    """Demand that every node's inputs are there and every constant is used, as in a graph that nothing was cut from."""
    names = Counter(node.name for node in nodes)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ValueError(f"node {twice[0]} occurs twice")
    used: set[str] = set()
    for node in nodes:
        if missing := [name for name in node.inputs if name not in names]:
            raise ValueError(f"node {node.name} takes {missing[0]}, which is not there")
        used.update(node.inputs)
    for node in nodes:
        if node.name not in used and node.op in ("Const", "Identity") and node.name.endswith((*LEAVES, "/read")):
            raise ValueError(f"node {node.name} is used by no other")
