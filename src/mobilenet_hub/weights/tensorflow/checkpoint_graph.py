"""The graph beside a checkpoint (.meta), and what it says of a network that is otherwise known by its variables' names.

A graph that was made to classify is followed from the images to its output. One that trains or measures has more ends
than one, and computes batch norm otherwise: of it each convolution and each activation of the network is looked at.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from mobilenet_hub.architecture import BUILDERS, ConvUnit, architecture
from mobilenet_hub.weights.identify import Found, slim_name
from mobilenet_hub.weights.operations import as_found, recognize
from mobilenet_hub.weights.reading import Unusable
from mobilenet_hub.weights.tensorflow.graph_def import CONVOLUTIONS, Node, image_size_of, nodes_of, variant_of
from mobilenet_hub.weights.tensorflow.graph_operations import TensorFlowGraph
from mobilenet_hub.weights.tensorflow.protobuf import Message
from mobilenet_hub.weights.tensorflow.variables import Variables

_PASSING = ("Identity", "ReadVariableOp", "Cast")
_OTHER_ACTIVATIONS = ("Relu", "LeakyRelu", "Elu", "Selu", "Tanh", "Softplus", "Softsign", "Sigmoid")
_NO_ENDS = ("Assert", "NoOp", "Shape", "SaveV2", "Assign")
_TRAINING = ("Grad", "BackpropInput", "BackpropFilter")
_MAX_STEPS = 20


def read_graph(graph: Message, values: Mapping[str, np.ndarray], size: tuple[int, int] | None) -> Found | None:
    """Follow a graph that classifies; of any other, refuse what contradicts a MobileNet.

    Args:
        graph: the GraphDef.
        values: the checkpoint's variables by the graph's names.
        size: (height, width) of its images, where it says it.

    Returns:
        The network; None where the graph is another than one that classifies.

    Raises:
        Unusable: the graph computes something else than a MobileNet; names the node.
    """
    nodes = list(nodes_of(graph))
    if not any(node.op in CONVOLUTIONS for node in nodes):
        return None
    ends = _ends(nodes)
    if ends is None:
        _check_parts(nodes)
        return None
    followed = TensorFlowGraph(graph, Variables(values))
    start, end = map(followed.tensor, ends)
    operations = followed.operations(end)
    return as_found(recognize(operations, start, end, size), size, tuple(one.name for one in operations))


def _ends(nodes: Iterable[Node]) -> tuple[str, str] | None:
    """Return the images and the only output of a graph that classifies; None where it is for something else."""
    nodes = list(nodes)
    if any(node.op.endswith(_TRAINING) or node.op.startswith("Apply") or _trains(node) for node in nodes):
        return None
    images = [node for node in nodes if node.op == "Placeholder" and image_size_of(_fixed(node)) is not None]
    if len(images) != 1:
        return None
    reached = {images[0].name}
    takers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            takers.setdefault(name, []).append(node)
    stack = [images[0].name]
    while stack:
        for node in takers.get(stack.pop(), ()):
            if node.name not in reached:
                reached.add(node.name)
                stack.append(node.name)
    ends = [
        node.name
        for node in nodes
        if node.name in reached
        and not any(taker.name in reached and taker.op not in _NO_ENDS for taker in takers.get(node.name, ()))
        and node.op not in _NO_ENDS
        and not node.op.endswith("Summary")
    ]
    return (images[0].name, ends[0]) if len(ends) == 1 else None


def _fixed(node: Node) -> tuple[int, ...] | None:
    """Return a placeholder's shape, any size in the place of one that is free: what matters is that they are images."""
    shape = node.shape()
    return None if shape is None or len(shape) != 4 else (1, *(abs(n) or 1 for n in shape[1:]))


def _trains(node: Node) -> bool:
    return node.op.startswith("FusedBatchNorm") and node.flag("is_training")


def _check_parts(nodes: list[Node]) -> None:
    """Hold each convolution and activation of a graph that does more than classify against the architectures."""
    by_name = {node.name: node for node in nodes}
    units = {unit.kernel.name: unit for name in BUILDERS for unit in architecture(name, 1.0, 0).units}
    scopes = tuple(f"{architecture(name, 1.0, 0).scope}/" for name in BUILDERS)
    for node in nodes:
        if node.op in CONVOLUTIONS and len(node.inputs) >= 2:
            unit = units.get(slim_name(_behind(node.inputs[1], by_name)))
            if unit is not None:
                _check_convolution(node, unit, by_name)
        elif node.op in _OTHER_ACTIVATIONS and any(scope in node.name for scope in scopes):
            raise Unusable(f"node {node.name} is {node.op}, where a MobileNet has Relu6")
    variant_of(nodes)


def _check_convolution(node: Node, unit: ConvUnit, by_name: Mapping[str, Node]) -> None:
    strides, dilations = node.integers("strides"), node.integers("dilations")
    if strides[1:3] != [unit.stride] * 2:
        raise Unusable(f"node {node.name} has the strides {strides}; {unit.scope} needs {unit.stride}")
    before = by_name.get(node.inputs[0])
    if any(n != 1 for n in dilations) or (before is not None and before.op.startswith("SpaceToBatch")):
        raise Unusable(f"node {node.name} is dilated, which no MobileNet's convolution is")


def _behind(name: str, by_name: Mapping[str, Node]) -> str:
    """Return the variable that identities pass on."""
    for _ in range(_MAX_STEPS):
        node = by_name.get(name)
        if node is None or node.op not in _PASSING or not node.inputs:
            break
        name = node.inputs[0]
    return name
