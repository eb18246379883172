"""TensorFlow's functions, opened where they are called, and the nodes that a tensor depends on.

Source: tensorflow/core/framework/{function,op_def}.proto.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mobilenet_hub.weights.tensorflow.graph_def import Node
from mobilenet_hub.weights.tensorflow.protobuf import Message

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_MAX_NODES, _MAX_DEPTH = 50_000, 30
_MAX_STEPS = 100_000  # through calls and their arguments

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


class Given(Node):
    """What a function is called with: a "Placeholder", or a variable."""

    def __init__(self, name: str, op: str):
        super().__init__(Message(b""))
        self.name, self.op = name, op


@dataclass(frozen=True)
class _Function:
    arguments: tuple[str, ...]
    returned: tuple[str, ...]
    nodes: Mapping[str, Node]


@dataclass(frozen=True)
class Placed:
    """A node, and the tensors that it takes."""

    node: Node
    inputs: tuple[Key, ...]


class Calls:
    """A GraphDef with its functions, opened where they are called."""

    def __init__(self, graph: Message | Iterable[Node]):
        nodes, library = (
            (map(Node, graph.messages(1)), graph.message(2)) if isinstance(graph, Message) else (graph, None)
        )
        self._top = _Scope("", {node.name: node for node in nodes})
        self._library = dict(_functions(library)) if library is not None else {}
        self._steps = 0

    @property
    def nodes(self) -> Iterable[Node]:
        """The nodes outside of functions."""
        return self._top.nodes.values()

    def tensor(self, name: str) -> Key:
        """Return the tensor of a name such as "final_result:0", calls and their arguments followed."""
        return self._resolved(self._top, name)[0]

    def _resolved(self, scope: _Scope, reference: str) -> tuple[Key, _Scope, Node]:
        while True:
            self._steps += 1
            if self._steps > _MAX_STEPS:
                raise ValueError("its functions call each other without end")
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

    def needed(self, end: Key) -> dict[Key, Placed]:
        """Return the nodes that a tensor depends on, each after its inputs."""
        placed: dict[Key, Placed] = {}
        found: dict[Key, tuple[_Scope, Node]] = {}
        waiting: set[Key] = set()
        start, scope, node = self._resolved_key(end)
        found[start] = (scope, node)
        stack: list[tuple[Key, tuple[Key, ...] | None]] = [(start, None)]
        while stack:
            key, inputs = stack.pop()
            if inputs is not None:
                placed[key] = Placed(found[key][1], inputs)
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

    def arguments_of(self, name: str) -> int:
        """Return how many arguments a function takes; 0 where it is not there."""
        return len(self._library[name].arguments) if name in self._library else 0

    def call(self, name: str, arguments: Sequence[Given]) -> list[Key]:
        """Call a function in place of the graph; return the tensors that it returns.

        Raises:
            ValueError: it is not there, or takes another number of arguments.
        """
        function = self._library.get(name)
        if function is None or len(function.arguments) != len(arguments):
            raise ValueError(f"the function {name} is not there, or does not take {len(arguments)} arguments")
        self._top = _Scope("", {one.name: one for one in arguments})
        given = {one: (self._top, value.name) for one, value in zip(function.arguments, arguments, strict=True)}
        inner = _Scope(f"{name}/", function.nodes, given, function.returned, 1)
        self._top.calls[name] = inner
        return [self._resolved(inner, one)[0] for one in function.returned]

    def _resolved_key(self, key: Key) -> tuple[Key, _Scope, Node]:
        *calls, name = _split(key[0], self._top)
        scope = self._top
        for call in calls:
            scope = scope.calls.get(call) or self._called(scope, scope.nodes[call])
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
