"""The graph that a Keras model's configuration describes: its layers, those of models within models in their place.

Configurations are those of Keras 1 to 3, tf.keras and TensorFlow.js: `inbound_nodes` say what each layer takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from mobilenet_hub.weights.reading import Unusable

_SEQUENTIAL, _FUNCTIONAL = ("Sequential",), ("Functional", "Model")
CONTAINERS = (*_SEQUENTIAL, *_FUNCTIONAL)
_MAX_DEPTH = 10


@dataclass(frozen=True)
class Layer:
    """One layer of a model, as it is called."""

    kind: str  # its class
    path: tuple[str, ...]  # the names of the models around it below the outermost, and its own
    config: dict[str, Any]
    inputs: tuple[str, ...]  # the tensors that it takes, each named by the path of the layer that makes it
    constants: tuple[Any, ...] = ()  # what it takes besides, in order
    training: bool = False  # it is called as in training, whatever the model is called as
    constant_first: bool = False  # `1 - x`

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path[-1]

    @property
    def output(self) -> str:
        """The tensor that it makes."""
        return "/".join(self.path)


@dataclass(frozen=True)
class KerasGraph:
    """All layers of a model, and the tensors at its ends."""

    layers: tuple[Layer, ...]
    start: str
    end: str
    image_shape: tuple[Any, ...] | None  # (height, width, channels) as far as the configuration says


@dataclass
class _Call:
    """What a layer is called with: the layers whose outputs it takes, and constants."""

    names: list[str] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    training: bool = False
    constant_first: bool = False

    def take(self, name: str | None, value: Any) -> None:
        """Take the next argument in: a layer's output, or a value where there is no name."""
        if name is not None:
            self.names.append(name)
            return
        self.constant_first |= not self.names
        self.constants.append(value)


@dataclass
class _Reader:
    layers: list[Layer] = field(default_factory=list)
    shape: tuple[Any, ...] | None = None

    def model(self, config: Any, path: tuple[str, ...], source: str) -> str:
        """Read a model whose input is the tensor `source`; return its output tensor."""
        if len(path) > _MAX_DEPTH or not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
            raise Unusable("its configuration is not that of a Keras model")
        inner = config.get("config")
        entries = inner.get("layers") if isinstance(inner, dict) else inner
        if config["class_name"] not in CONTAINERS or not isinstance(entries, list):
            raise Unusable(f"it is a {config['class_name']}, whose configuration has no list of layers")
        if config["class_name"] in _SEQUENTIAL:
            for at, entry in enumerate(entries):
                source = self._layer(entry, path, (source,), at=at)
            return source
        return self._functional(inner, entries, path, source)

    def _functional(self, inner: Any, entries: list[Any], path: tuple[str, ...], source: str) -> str:
        starts, ends = (_ends(inner.get(key)) for key in ("input_layers", "output_layers"))
        if len(starts) != 1 or len(ends) != 1:
            raise Unusable(f"it has {len(starts)} inputs and {len(ends)} outputs, where a module has one of each")
        made: dict[str, str] = {}
        for entry in entries:
            name = _name(entry)
            if name in made:
                raise Unusable(f"two of its layers are called {name}")
            nodes = entry.get("inbound_nodes") or []
            if name == starts[0]:
                made[name] = self._layer(entry, path, (source,))
                continue
            if len(nodes) != 1:
                raise Unusable(f"its layer {name} is used {len(nodes)} times, where a MobileNet uses each once")
            call = _node(nodes[0])
            names = call.names
            if missing := [one for one in names if one not in made]:
                raise Unusable(f"its layer {name} takes {missing[0]}, which is not before it")
            made[name] = self._layer(entry, path, tuple(made[one] for one in names), call)
        if ends[0] not in made:
            raise Unusable(f"its output {ends[0]} is none of its layers")
        return made[ends[0]]

    def _layer(
        self,
        entry: Any,
        path: tuple[str, ...],
        inputs: tuple[str, ...],
        call: "_Call | None" = None,
        at: int = 0,
    ) -> str:
        name, call = _name(entry, str(at)), call or _Call()
        if entry["class_name"] in CONTAINERS:
            if len(inputs) != 1:
                raise Unusable(f"its model {name} has {len(inputs)} inputs")
            before = len(self.layers)
            output = self.model(entry, (*path, name), inputs[0])
            if call.training:
                self.layers[before:] = [_as_in_training(one) for one in self.layers[before:]]
            return output
        config = entry.get("config")
        if not isinstance(config, dict):
            raise Unusable(f"its {entry['class_name']} layer has no configuration")
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        if self.shape is None and isinstance(shape, list) and len(shape) == 4:
            self.shape = tuple(shape[1:])
        constants = tuple(call.constants)
        layer = Layer(entry["class_name"], (*path, name), config, inputs, constants, call.training, call.constant_first)
        self.layers.append(layer)
        return layer.output


def read_graph(config: Any) -> KerasGraph:
    """Return the graph of a model's configuration (its JSON, parsed).

    Raises:
        Unusable: it is none, or of a shape that no MobileNet has; names the layer.
    """
    reader, start = _Reader(), ""
    end = reader.model(config, (), start)
    return KerasGraph(tuple(reader.layers), start, end, reader.shape)


def _as_in_training(layer: Layer) -> Layer:
    return replace(layer, training=True)


def _name(entry: Any, otherwise: str = "") -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
        raise Unusable("its configuration is not that of a Keras model")
    config = entry.get("config")
    name = entry.get("name") or (config.get("name") if isinstance(config, dict) else None)
    return str(name or f"{entry['class_name']} {otherwise}".strip())


def _ends(value: Any) -> list[str]:
    """Return the names of a model's first or last layers: Keras 3 writes a single one without a list around it."""
    if not isinstance(value, list):
        return []
    if value and isinstance(value[0], str):
        value = [value]
    return [str(one[0]) for one in value if isinstance(one, list) and one]


def _node(node: Any) -> _Call:
    """Return what a layer is called with."""
    found = _Call()
    if isinstance(node, dict):  # Keras 3, where the whole model's `training` comes before a layer's
        kwargs = {key: value for key, value in (node.get("kwargs") or {}).items() if key not in _QUIET}
        for value in _flat([*node.get("args", ()), *kwargs.values()]):
            found.take(str(value["config"]["keras_history"][0]) if _is_tensor(value) else None, value)
        return found
    calls = [node] if node and isinstance(node[0], str) else node
    for call in calls:
        extra = call[3] if len(call) > 3 and isinstance(call[3], dict) else {}
        found.training |= extra.get("training") in (True, 1)
        found.take(None if call[0] == _CONSTANT else str(call[0]), call[2] if call[0] == _CONSTANT else None)
        for key, value in extra.items():
            if key not in _QUIET and value is not None:
                found.take(value[0] if _is_reference(value) else None, value)
    return found


_QUIET = ("training", "mask", "name")
_CONSTANT = "_CONSTANT_VALUE"  # tf.keras's, in the place of a layer's name


def _is_reference(value: Any) -> bool:
    """Tell whether an argument of a call is another layer's output, as tf.keras writes it."""
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int)


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"
