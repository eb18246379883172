"""Frozen TensorFlow graphs: networks whose variables have become constants, followed from the images to the output.

TF-Slim's own, those of retrain.py (TensorFlow for Poets) with their new layer, and what optimize_for_inference made of
either, batch norm folded or not.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mobilenet_hub.weights.identify import LEAVES, Source, to_source
from mobilenet_hub.weights.operation import Operation
from mobilenet_hub.weights.operations import as_found, recognize
from mobilenet_hub.weights.reading import Unusable, reading
from mobilenet_hub.weights.tensorflow.graph_def import Node, image_size_of, nodes_of, refuse_quantized
from mobilenet_hub.weights.tensorflow.graph_operations import TensorFlowGraph
from mobilenet_hub.weights.tensorflow.protobuf import Message

WHAT = "a frozen TensorFlow graph"
_NODE = 1  # GraphDef.node; behind it stand library, version and versions (tensorflow/core/framework/graph.proto)
_NO_OUTPUTS = ("Const", "NoOp", "Placeholder", "Assert", "VarHandleOp", "VariableV2")


def read_frozen_graph(file: Path, given: tuple[int, int] | None = None) -> Source:
    """Read the network of a frozen graph (.pb).

    Args:
        file: the file.
        given: (height, width) of the images, where the caller says it; it matters where the file does not.

    Raises:
        CorruptFileError: the file is damaged, cut off, or no frozen graph; says where.
        InvalidModuleError: the graph is quantized or holds another network.
    """
    with reading(file, WHAT):
        message = Message(file.read_bytes())
        if _NODE not in message:
            raise ValueError("it has no nodes")
        nodes = list(nodes_of(message))
        _check_wiring(nodes)
        refuse_quantized(nodes)
        graph = TensorFlowGraph(message)
        end = graph.tensor(output_of(nodes))
        operations = graph.operations(end)
        if message.last == _NODE and not (operations and _is_an_end(operations[-1])):
            # Optimized graphs have nothing behind their nodes; one cut off between two may be a smaller network.
            raise ValueError("it ends with a node, and not with classes: it was cut off")
        start, size = input_of(graph, operations)
        found = recognize(operations, start, end, size or given)
        return to_source(file, "frozen graph", as_found(found, size, tuple(one.name for one in operations)))


def _is_an_end(last: Operation) -> bool:
    return last.kind == "activation" and last.values["function"] in ("softmax", "sigmoid")


def output_of(nodes: Sequence[Node]) -> str:
    """Return the name of the one node that no other takes.

    Raises:
        Unusable: there are none or several.
    """
    used = {name for node in nodes for name in node.inputs}
    ends = [node.name for node in nodes if node.name not in used and not node.op.endswith("Summary")]
    ends = [
        name for name, op in ((node.name, node.op) for node in nodes) if name in set(ends) and op not in _NO_OUTPUTS
    ]
    if len(ends) != 1:
        raise Unusable(f"it has {len(ends)} outputs ({', '.join(ends[:5])}), where a network has one")
    return ends[0]


def input_of(graph: TensorFlowGraph, operations: list[Operation]) -> tuple[tuple[str, int], tuple[int, int] | None]:
    """Return the placeholder of the images, and their size where it is fixed."""
    taken = {tensor for one in operations for tensor in one.inputs}
    starts = [node for node in graph.nodes if node.op == "Placeholder" and (node.name, 0) in taken]
    starts.sort(key=lambda node: image_size_of(node.shape()) is None)
    if not starts:
        raise Unusable("its output depends on no placeholder: it takes no images")
    return (starts[0].name, 0), image_size_of(starts[0].shape())


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
