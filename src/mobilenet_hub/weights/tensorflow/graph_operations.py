"""What a TensorFlow graph computes, in the words of `operations`.

Functions are opened where they are called, and what depends on constants and variables alone is computed.

Sources: tensorflow/core/framework/{function,op_def}.proto for functions, the registrations of the operations
(tensorflow/core/ops/*.cc) for the attributes' meaning and defaults.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mobilenet_hub.weights.operations import INERT, RESHAPE, Operation
from mobilenet_hub.weights.reading import Unusable
from mobilenet_hub.weights.tensorflow.graph_def import Node
from mobilenet_hub.weights.tensorflow.protobuf import Message

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
_STARTS = ("Placeholder",)
_INERT = (
    "Identity", "IdentityN", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "Cast", "EnsureShape",
    "PlaceholderWithDefault", "ReadVariableOp",
)  # fmt: skip
_RESHAPES = ("Reshape", "Squeeze", "ExpandDims")
_ACTIVATIONS = {
    "Relu6": "relu6", "Relu": "relu", "Softmax": "softmax", "Sigmoid": "sigmoid", "LeakyRelu": "leaky ReLU",
    "Elu": "elu", "Selu": "selu", "Tanh": "tanh", "Softplus": "softplus", "LogSoftmax": "log softmax",
}  # fmt: skip
_COMPUTED: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "RealDiv": np.divide,
    "Sqrt": np.sqrt, "Rsqrt": lambda x: 1 / np.sqrt(x),
}  # fmt: skip
_SUMS = ("Add", "AddV2")
_MAX_NODES, _MAX_DEPTH = 50_000, 30
_NUMBERED = re.compile(r"_\d+$")
_EPSILON = 1e-4  # FusedBatchNorm's own, where a graph does not say it

Key = tuple[str, int]  # a tensor: the node's name below the calls around it, and which of its outputs


@dataclass(eq=False)
class _Scope:
    """The whole graph, or a function as it is called: its nodes, and where its arguments come from."""

    prefix: str
    nodes: Mapping[str, Node]
    arguments: dict[str, tuple["_Scope", str]] = field(default_factory=dict)
    returned: tuple[str, ...] = ()
    depth: int = 0
    calls: dict[str, "_Scope"] = field(default_factory=dict)


@dataclass(frozen=True)
class _Function:
    arguments: tuple[str, ...]
    returned: tuple[str, ...]
    nodes: Mapping[str, Node]


@dataclass(frozen=True)
class _Placed:
    """A node, and the tensors that it takes."""

    node: Node
    inputs: tuple[Key, ...]


class TensorFlowGraph:
    """A GraphDef with its functions, and the values of its variables."""

    def __init__(self, graph: Message, variables: Mapping[str, np.ndarray] | None = None):
        self._variables = variables or {}
        self._top = _Scope("", {node.name: node for node in map(Node, graph.messages(1))})
        self._library = dict(_functions(graph.message(2)))

    @property
    def nodes(self) -> Iterable[Node]:
        """The nodes outside of functions."""
        return self._top.nodes.values()

    def tensor(self, name: str) -> Key:
        """Return the tensor of a name such as "final_result:0", calls and their arguments followed."""
        return self._resolved(self._top, name)[0]

    def operations(self, end: Key) -> list[Operation]:
        """Return what leads to a tensor, each operation after those that it takes its inputs from.

        Raises:
            ValueError: the graph is damaged: a node or a function is missing, or it is a circle.
        """
        return list(_Reading(self._needed(end), self._variables).operations())

    def _resolved(self, scope: _Scope, reference: str) -> tuple[Key, _Scope, Node]:
        while True:
            name, *rest = reference.split(":")
            number = int(rest[-1]) if rest and rest[-1].isdigit() else 0
            if name in scope.arguments:
                scope, reference = scope.arguments[name]
                continue
            node = scope.nodes.get(name)
            if node is None:
                raise ValueError(f"{scope.prefix}{name} is not there")
            if node.op not in _CALLS:
                return (f"{scope.prefix}{name}", number), scope, node
            scope = self._called(scope, node)
            if number >= len(scope.returned):
                raise ValueError(f"{scope.prefix} has no output {number}")
            reference = scope.returned[number]

    def _called(self, scope: _Scope, node: Node) -> _Scope:
        if node.name not in scope.calls:
            name = node.attributes["f"].message(10).text(1) if "f" in node.attributes else ""
            function = self._library.get(name)
            if function is None or scope.depth >= _MAX_DEPTH:
                raise ValueError(f"{node.name} calls {name!r}, which is not there or calls itself")
            given = [one for one in node.references if not one.startswith("^")]
            if len(given) != len(function.arguments):
                raise ValueError(f"{node.name} gives {len(given)} arguments to {name}")
            arguments = {one: (scope, value) for one, value in zip(function.arguments, given, strict=True)}
            prefix = f"{scope.prefix}{node.name}/"
            scope.calls[node.name] = _Scope(prefix, function.nodes, arguments, function.returned, scope.depth + 1)
        return scope.calls[node.name]

    def _needed(self, end: Key) -> dict[Key, _Placed]:
        """Return the nodes that a tensor depends on, each after its inputs."""
        placed: dict[Key, _Placed] = {}
        found: dict[Key, tuple[_Scope, Node]] = {}
        waiting: set[Key] = set()
        start, scope, node = self._resolved_key(end)
        found[start] = (scope, node)
        stack: list[tuple[Key, tuple[Key, ...] | None]] = [(start, None)]
        while stack:
            key, inputs = stack.pop()
            if inputs is not None:
                placed[key] = _Placed(found[key][1], inputs)
                waiting.discard(key)
                continue
            if key in placed:
                continue
            if key in waiting:
                raise ValueError(f"{key[0]} depends on itself")
            if len(found) > _MAX_NODES:
                raise ValueError(f"its output depends on more than {_MAX_NODES} nodes")
            waiting.add(key)
            scope, node = found[key]
            taken = []
            for reference in node.references:
                if not reference.startswith("^"):
                    one, its_scope, its_node = self._resolved(scope, reference)
                    found.setdefault(one, (its_scope, its_node))
                    taken.append(one)
            stack.append((key, tuple(taken)))
            stack += [(one, None) for one in reversed(taken) if one not in placed]
        return placed

    def _resolved_key(self, key: Key) -> tuple[Key, _Scope, Node]:
        *calls, name = _split(key[0], self._top)
        scope = self._top
        for call in calls:
            scope = self._called(scope, scope.nodes[call])
        return key, scope, scope.nodes[name]


def _split(path: str, scope: _Scope) -> list[str]:
    """Return the names of the calls around a node, and its own; names may hold slashes."""
    parts: list[str] = []
    while path not in scope.nodes:
        call = next((name for name in scope.calls if path.startswith(f"{name}/")), None)
        if call is None:
            raise ValueError(f"{path} is not there")
        parts.append(call)
        scope, path = scope.calls[call], path[len(call) + 1 :]
    return [*parts, path]


def _functions(library: Message) -> Iterator[tuple[str, _Function]]:
    for message in library.messages(1):
        signature = message.message(1)
        returned = {entry.text(1): entry.text(2) for entry in message.messages(4)}
        outputs = [one.text(1) for one in signature.messages(3)]
        if any(one not in returned for one in outputs):
            raise ValueError(f"the function {signature.text(1)} does not return what it says")
        nodes = {node.name: node for node in map(Node, message.messages(3))}
        arguments = tuple(one.text(1) for one in signature.messages(2))
        yield signature.text(1), _Function(arguments, tuple(returned[one] for one in outputs), nodes)


class _Reading:
    """Goes through nodes in order: computes constants, and lists what is done to the images."""

    def __init__(self, placed: Mapping[Key, _Placed], variables: Mapping[str, np.ndarray]):
        self._placed = placed
        self._variables = variables
        self._constants: dict[Key, np.ndarray | None] = {}  # None: of a kind that is no number

    def operations(self) -> Iterator[Operation]:
        for key, one in self._placed.items():
            if one.node.op in _STARTS:
                continue
            if not self._is_constant(key, one):
                yield self._operation(key, one)

    def _is_constant(self, key: Key, one: _Placed) -> bool:
        if one.node.op == "Const":
            self._constants[key] = one.node.constant() if one.node.is_number else None
        elif one.node.op in _VARIABLES:
            self._constants[key] = self._variable(one.node)
        elif any(taken not in self._constants for taken in one.inputs) or (not one.inputs and key[0]):
            if one.inputs or one.node.op in _STARTS:
                return False
            self._constants[key] = None  # a random number, an iterator: refused where it takes part
        else:
            self._constants[key] = self._computed(one)
        return True

    def _variable(self, node: Node) -> np.ndarray | None:
        shared = node.attributes["shared_name"].text(2) if "shared_name" in node.attributes else ""
        # A copy that Keras 3 exports is numbered in the graph, but not in the checkpoint.
        for name in (shared, node.name, _NUMBERED.sub("", shared), _NUMBERED.sub("", node.name)):
            if name in self._variables:
                return self._variables[name]
        return None

    def _computed(self, one: _Placed) -> np.ndarray | None:
        values = [self._constants[taken] for taken in one.inputs]
        if one.node.op in (*_INERT, *_RESHAPES):
            return values[0]  # shapes are only those of vectors of channels here
        if one.node.op == "StridedSlice":
            return _sliced(one.node, values)
        if one.node.op not in _COMPUTED or any(value is None for value in values):
            return None
        try:
            with np.errstate(all="ignore"):
                return _COMPUTED[one.node.op](*values)
        except (ValueError, TypeError):
            raise ValueError(f"{one.node.name} computes with shapes that do not fit") from None

    def _value(self, key: Key, node: Node, what: str) -> np.ndarray:
        value = self._constants.get(key)
        if value is None:
            raise Unusable(f"{what} of {node.name} ({node.op}) is computed in a way that no MobileNet does")
        return value

    def _operation(self, key: Key, one: _Placed) -> Operation:
        computed = tuple(taken for taken in one.inputs if taken not in self._constants)
        if one.node.op in _SUMS and len(computed) == 1 and (norm := self._batch_norm(one, computed[0])):
            inputs, values = norm
            return Operation("norm", one.node.name, inputs, key, values)
        kind, values = self._what(one, computed)
        if key[1] != 0:
            kind = f"output {key[1]} of {one.node.op}"
        return Operation(kind, one.node.name, computed, key, values)

    def _what(self, one: _Placed, computed: tuple[Key, ...]) -> tuple[str, dict[str, Any]]:  # noqa: PLR0911 (one for each kind)
        node, op = one.node, one.node.op
        if op in (*_INERT, *_RESHAPES):
            return (INERT if op in _INERT else RESHAPE), {}
        if op in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
            return self._with_kernel(one, computed)
        if op.startswith("FusedBatchNorm"):
            return "norm", self._fused(one)
        if op in (*_SUMS, "Sub", "Mul", "RealDiv", "BiasAdd"):
            return self._arithmetic(one, computed)
        if op in _ACTIVATIONS:
            return "activation", {"function": _ACTIVATIONS[op]}
        if op in ("Pad", "PadV2"):
            return "pad", self._pad(one)
        if op == "Mean" and sorted(self._value(one.inputs[1], node, "an axis").reshape(-1).tolist()) == [1, 2]:
            return "mean", {}
        if op == "AvgPool" and node.integers("ksize")[::3] == [1, 1] and node.text("padding") == "VALID":
            return "pool", {"window": tuple(node.integers("ksize")[1:3])}
        return op, {}

    def _with_kernel(self, one: _Placed, computed: tuple[Key, ...]) -> tuple[str, dict[str, Any]]:
        node = one.node
        if len(computed) != 1 or one.inputs[0] != computed[0]:
            return f"a {node.op} of two branches", {}
        kernel = self._value(one.inputs[1], node, "the kernel")
        if node.op == "MatMul":
            if node.flag("transpose_a"):
                return "a transposed MatMul", {}
            return "dense", {"kernel": kernel.T if node.flag("transpose_b") else kernel}
        if node.text("data_format") not in ("", "NHWC") or any(n != 1 for n in node.integers("dilations")):
            raise Unusable(f"{node.name} is dilated or has its channels first, which no MobileNet does")
        padding = node.text("padding")
        if padding not in ("SAME", "VALID") or len(node.integers("strides")) != 4:
            raise Unusable(f"{node.name} pads {padding or 'somehow'}")
        values = {"kernel": kernel, "stride": tuple(node.integers("strides")[1:3]), "padding": padding.lower()}
        return ("conv" if node.op == "Conv2D" else "depthwise"), values

    def _arithmetic(self, one: _Placed, computed: tuple[Key, ...]) -> tuple[str, dict[str, Any]]:
        op = one.node.op
        if len(computed) == 2:
            return ("add" if op in _SUMS else f"a {op} of two branches"), {}
        if op in ("Sub", "RealDiv") and one.inputs[0] != computed[0]:
            return "a constant minus or divided by the images", {}
        other = one.inputs[1] if one.inputs[0] == computed[0] else one.inputs[0]
        constant = np.asarray(self._value(other, one.node, "a constant"), np.float64)
        if constant.size > 1 and constant.size != constant.shape[-1]:
            return f"a {op} that differs over the map", {}
        if op in ("Mul", "RealDiv"):
            return "affine", {"scale": constant if op == "Mul" else 1 / constant, "shift": np.zeros(1)}
        return "affine", {"scale": np.ones(1), "shift": -constant if op == "Sub" else constant}

    def _pad(self, one: _Placed) -> dict[str, Any]:
        amounts = self._value(one.inputs[1], one.node, "the padding").astype(int)
        value = self._value(one.inputs[2], one.node, "the padding") if len(one.inputs) > 2 else 0
        if amounts.shape != (4, 2) or amounts[[0, 3]].any():
            raise Unusable(f"{one.node.name} pads otherwise than height and width")
        (_, height, width, _) = amounts.tolist()
        return {"pads": (tuple(height), tuple(width)), "value": value}

    def _fused(self, one: _Placed) -> dict[str, Any]:
        node = one.node
        if "is_training" not in node.attributes or node.flag("is_training"):
            raise Unusable(f"{node.name} normalizes by the statistics of the batch, as in training")
        if len(one.inputs) != 5 or node.text("data_format") not in ("", "NHWC"):
            raise Unusable(f"{node.name} normalizes otherwise than over the channels")
        leaves = ("gamma", "beta", "moving_mean", "moving_variance")
        values = {leaf: self._value(taken, node, leaf) for leaf, taken in zip(leaves, one.inputs[1:], strict=True)}
        return {**values, "epsilon": node.decimal("epsilon", _EPSILON)}

    def _batch_norm(self, total: _Placed, computed: Key) -> tuple[tuple[Key, ...], dict[str, Any]] | None:
        """Return what `x * gamma / sqrt(variance + epsilon) + (beta - mean * gamma / ...)` normalizes, and by what."""
        product = self._placed[computed]
        factors = [taken for taken in product.inputs if taken in self._constants]
        if product.node.op != "Mul" or len(factors) != 1:
            return None
        summand = next(taken for taken in total.inputs if taken != computed)
        scale, shift = self._behind(factors[0]), self._behind(summand)
        parts = [self._behind(taken) for taken in self._taken(scale, "Mul")]
        roots = [part for part in parts or [scale] if self._placed[part].node.op == "Rsqrt"]
        variance = [
            self._behind(taken)
            for root in roots
            for taken in self._taken(self._behind(self._placed[root].inputs[0]), *_SUMS)
        ]
        differences = [self._behind(taken) for taken in self._taken(shift, "Sub")]
        if len(roots) != 1 or len(variance) != 2 or len(differences) != 2:
            return None
        means = [one for one in map(self._behind, self._taken(differences[1], "Mul")) if one != scale]
        if len(means) != 1:
            return None
        values = [self._constants[one] for one in (variance[0], variance[1], differences[0], means[0])]
        gammas = [self._constants[part] for part in parts if part != roots[0]]
        if any(value is None for value in (*values, *gammas)) or values[1].size != 1:  # pyright: ignore[reportOptionalMemberAccess]
            return None
        spread, epsilon, beta, mean = (np.asarray(value).reshape(-1) for value in values)
        gamma = np.asarray(gammas[0]).reshape(-1) if gammas else np.ones_like(spread)
        inputs = tuple(taken for taken in product.inputs if taken not in self._constants)
        leaves = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": spread}
        return inputs, {**leaves, "epsilon": float(epsilon[0])}

    def _behind(self, key: Key) -> Key:
        """Return the tensor that identities and the like pass on."""
        while self._placed[key].node.op in (*_INERT, *_RESHAPES) and self._placed[key].inputs:
            source = self._placed[key].inputs[0]
            if self._placed[source].node.op in _VARIABLES:
                break
            key = source
        return key

    def _taken(self, key: Key, *operations: str) -> tuple[Key, ...]:
        one = self._placed[key]
        return one.inputs if one.node.op in operations and len(one.inputs) == 2 else ()


def _sliced(node: Node, values: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Return the part of a constant that StridedSlice takes: `kernel[0, 0]`, as our own SavedModels have it."""
    array, *bounds = values
    if array is None or any(bound is None for bound in bounds):
        return None
    masks = [node.integer(f"{name}_mask") for name in ("begin", "end", "shrink_axis", "ellipsis", "new_axis")]
    if masks[3] or masks[4]:
        return None
    indices: list[int | slice] = []
    for axis, (begin, end, stride) in enumerate(
        zip(*(bound.reshape(-1).tolist() for bound in bounds if bound is not None), strict=True)
    ):
        open_begin, open_end, shrunk = (bool(mask >> axis & 1) for mask in masks[:3])
        whole = slice(None if open_begin else begin, None if open_end else end, stride)
        indices.append(begin if shrunk else whole)
    try:
        return array[tuple(indices)]
    except (IndexError, ValueError, TypeError):
        raise ValueError(f"{node.name} takes a part that is not there") from None
