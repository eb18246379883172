"""From the operations of any graph to a MobileNet: every reader of a format with a graph lists them in these words.

What is followed runs from the images to the output, and everything on the way has a place in the network or is refused
by name: nothing that takes part in an output can be left out. What leads elsewhere has no part in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import isclose

import numpy as np

from mobilenet_hub.architecture import BATCH_NORM_EPSILON, Architecture, ConvUnit, Variant
from mobilenet_hub.weights.head import Affine, Dense, Step, head_weights
from mobilenet_hub.weights.identify import Found
from mobilenet_hub.weights.likeness import network_of
from mobilenet_hub.weights.operation import INERT, MAX, NORMALIZED, RESHAPE, Operation, Tensor
from mobilenet_hub.weights.padding import SAME, Pads, padding_rule
from mobilenet_hub.weights.reading import Unusable, as_float32


@dataclass
class _Unit:
    """What a file has in the place of one unit of the architecture."""

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None = None  # before batch norm
    norm: dict[str, np.ndarray] | None = None
    pads: Pads | str = SAME
    relu6: bool = False
    adds: bool = False


@dataclass(frozen=True)
class Recognized:
    """A MobileNet that was found among operations."""

    network: Architecture  # of depth multiplier 1: its names, not its widths
    weights: dict[str, np.ndarray]  # of the units, by TF-Slim name
    head: tuple[Step, ...]
    scaling: tuple[float, float] | None  # scale and offset of the graph's input, None where there is neither
    variant: Variant  # batch norm's epsilon and the padding
    batch_norm_folded: bool
    features: Tensor  # the pooled features


def recognize(
    operations: Iterable[Operation],
    start: Tensor,
    end: Tensor,
    size: tuple[int, int] | None = None,
    *,
    kept: bool = False,
) -> Recognized:
    """Find the MobileNet that leads from one tensor to another.

    Args:
        operations: of the graph, each after those that it takes its inputs from, or not.
        start: the images.
        end: the output.
        size: (height, width) of the images, where it is known.
        kept: the file is run as it is, so that features may be L2-normalized behind the pooling, as Coral's are.

    Raises:
        Unusable: another network, or an operation that a module cannot have; names it.
    """
    operations = list(operations)
    try:
        path = _path(operations, start, end)
    except Unusable:
        network_of(operations)  # that it is another network altogether says more
        raise
    walk = _Walk(network_of(path), start, size, kept=kept)
    for operation in path:
        walk.take(operation)
    return walk.finish()


def as_found(
    found: Recognized, size: tuple[int, int] | None, names: tuple[str, ...], labels: tuple[str, ...] | None = None
) -> Found:
    """Return a recognized network with its head as a module has it.

    Raises:
        Unusable: the head is none that a module can have.
    """
    last = found.network.units[-1].batch_norm[0].name
    head, hidden = head_weights(found.head, found.network.scope, int(np.size(found.weights.get(last, ()))))
    variant = replace(found.variant, hidden_units=hidden)
    return Found({**found.weights, **head}, size, labels, variant, found.batch_norm_folded, found.scaling, names)


def _path(operations: Iterable[Operation], start: Tensor, end: Tensor) -> list[Operation]:
    """Return what leads from start to end, in order."""
    makers: dict[Tensor, Operation] = {}
    for one in operations:
        if one.output in makers:
            raise ValueError(f"{one.name} makes what {makers[one.output].name} makes")
        makers[one.output] = one
    path: list[Operation] = []
    done: set[Tensor] = {start}
    stack = [(end, False)]
    open_ones: set[Tensor] = set()
    while stack:
        tensor, leaving = stack.pop()
        if leaving:
            path.append(makers[tensor])
            done.add(tensor)
            continue
        if tensor in done:
            continue
        if tensor not in makers or tensor in open_ones:
            raise Unusable(f"its output depends on {tensor}, which is not computed from the images")
        open_ones.add(tensor)
        stack.append((tensor, True))
        stack += [(one, False) for one in reversed(makers[tensor].inputs)]
    return path


class _Walk:
    """Goes along a path, holding every operation against the architecture."""

    def __init__(self, network: Architecture, start: Tensor, size: tuple[int, int] | None, *, kept: bool):
        self._network = network
        self._current = start
        self._size = size
        self._kept = kept
        self._scale, self._offset, self._scaled = 1.0, 0.0, False
        self._pads: Pads | None = None
        self._units: list[_Unit] = []
        self._outputs: list[Tensor] = []
        self._epsilons: set[float] = set()
        self._given: dict[str, np.ndarray] = {}  # a whole network's weights, by TF-Slim name
        self._features: Tensor | None = None
        self._widths: dict[Tensor, int] = {}  # of what stands behind the features: its last dimension
        self._head: list[Step] = []

    def take(self, one: Operation) -> None:
        """Take the next operation in."""
        if self._current not in one.inputs:
            raise Unusable(
                f"{one.name} does not take what comes before it: the network has a branch that no MobileNet has"
            )
        if self._pads is not None and one.kind not in ("conv", "depthwise", INERT):
            raise Unusable(f"zero padding is followed by {one.name}")
        if one.kind != "add" and len(set(one.inputs)) != 1:
            raise Unusable(f"{one.name} joins two branches, which no MobileNet does there")
        if one.kind == "affine":
            one = replace(one, values={key: _per_channel(one, key) for key in ("scale", "shift")})
        if one.kind == INERT:
            self._pass(one)
        elif self._features is not None:
            self._take_behind(one)
        elif one.kind == "network":
            self._take_network(one)
        elif not self._units and one.kind == "affine":
            self._take_scaling(one)
        else:
            self._take_within(one)
        self._current = one.output

    def _pass(self, one: Operation) -> None:
        if self._current in self._widths:
            self._widths[one.output] = self._widths[self._current]
        if self._outputs:
            self._outputs = [one.output if tensor == self._current else tensor for tensor in self._outputs]

    def _take_scaling(self, one: Operation) -> None:
        scale, shift = (np.unique(np.asarray(one.values[key], np.float64)) for key in ("scale", "shift"))
        if len(scale) != 1 or len(shift) != 1:
            raise Unusable(f"{one.name} scales the colours of its images differently, which a module cannot")
        self._scale, self._offset = self._scale * float(scale[0]), self._offset * float(scale[0]) + float(shift[0])
        self._scaled = True

    def _take_network(self, one: Operation) -> None:
        """Take a published network as a whole: images in [0, 1] to features, or to logits."""
        self._scale, self._offset, self._scaled = self._scale * 2, self._offset * 2 - 1, True
        weights: dict[str, np.ndarray] = dict(one.values["weights"])
        scope = f"{self._network.scope}/Logits/Conv2d_1c_1x1"
        kernel, bias = weights.pop(f"{scope}/weights", None), weights.pop(f"{scope}/biases", None)
        self._given, self._features = weights, one.output
        last = self._network.units[-1].batch_norm[0].name
        self._widths[one.output] = int(np.size(weights.get(last, ())))
        if kernel is not None and bias is not None:
            self._head.append(Dense(kernel[0, 0], bias))
            self._widths[one.output] = kernel.shape[-1]

    def _take_within(self, one: Operation) -> None:
        at = len(self._units)
        whole = at == len(self._network.units)
        if one.kind == "pad":
            if self._pads is not None or np.any(one.values.get("value", 0)):
                raise Unusable(f"{one.name} pads otherwise than a MobileNet")
            self._pads = one.values["pads"]
        elif one.kind in ("conv", "depthwise") and not whole:
            self._take_convolution(one, self._network.units[at])
        elif not at:
            raise Unusable(f"{one.name} ({one.kind}) stands before the network, where a module has nothing")
        elif one.kind in ("norm", "affine"):
            self._take_norm(one, self._units[-1])
        elif one.kind == "activation":
            self._take_activation(one, self._units[-1])
        elif one.kind == "add":
            self._take_sum(one)
        elif one.kind in ("mean", "pool") and whole:
            self._take_pooling(one)
        elif one.kind == MAX and whole:
            raise Unusable(f"{one.name} is global max pooling, where a module has global average pooling")
        elif one.kind == RESHAPE and whole:
            raise Unusable(f"{one.name} flattens the feature map, where a module has global average pooling")
        else:
            raise Unusable(f"{one.name} ({one.kind}) is no part of a MobileNet, after {at} convolutions")
        if self._outputs and one.kind != "pad":
            self._outputs[-1] = one.output

    def _take_convolution(self, one: Operation, unit: ConvUnit) -> None:
        if (one.kind == "depthwise") != unit.depthwise:
            kind = "a depthwise" if one.kind == "depthwise" else "an ordinary"
            raise Unusable(f"{one.name} is {kind} convolution in the place of {unit.scope}: another network")
        self._close()
        kernel, stride = one.values["kernel"], tuple(one.values["stride"])
        if kernel.ndim != 4 or kernel.shape[:2] != (unit.kernel_size,) * 2:
            raise Unusable(f"{one.name} has a kernel of shape {list(kernel.shape)} in the place of {unit.scope}")
        if stride != (unit.stride,) * 2:
            raise Unusable(f"{one.name} has the stride {list(stride)}; {unit.scope} needs {unit.stride}")
        pads = one.values["padding"]
        if pads == "valid":
            pads = self._pads or ((0, 0), (0, 0))
        elif self._pads is not None:
            raise Unusable(f"{one.name} pads twice")
        self._pads = None
        self._units.append(_Unit(one.name, kernel, pads=pads))
        self._outputs.append(one.output)
        if one.values.get("bias") is not None:
            bias = Operation("affine", one.name, (), one.output, {"scale": 1.0, "shift": one.values["bias"]})
            self._take_norm(bias, self._units[-1])

    def _close(self) -> None:
        """Check the unit before: what it ends with."""
        if not self._units:
            return
        found, wanted = self._units[-1], self._network.units[len(self._units) - 1]
        if found.relu6 != wanted.relu6:
            what = "is to be followed by" if wanted.relu6 else "is followed by"
            raise Unusable(f"{found.name} ({wanted.scope}) {what} ReLU6, as it is {'not ' if wanted.relu6 else ''}here")
        if found.adds != (wanted.adds is not None):
            raise Unusable(
                f"{found.name} ({wanted.scope}) has {'a' if found.adds else 'no'} residual sum, unlike TF-Slim's"
            )

    def _take_norm(self, one: Operation, unit: _Unit) -> None:
        if unit.relu6 or unit.adds:
            raise Unusable(f"{one.name} ({one.kind}) follows an activation or a sum, where a MobileNet has none")
        if one.kind == "norm":
            if unit.norm is not None:
                raise Unusable(f"two batch norms follow each other: {one.name} is the second")
            epsilon = float(one.values["epsilon"])
            self._epsilons.add(BATCH_NORM_EPSILON if isclose(epsilon, BATCH_NORM_EPSILON, rel_tol=1e-6) else epsilon)
            unit.norm = {leaf: one.values[leaf] for leaf in ("gamma", "beta", "moving_mean", "moving_variance")}
            return
        scale, shift = np.asarray(one.values["scale"], np.float64), np.asarray(one.values["shift"], np.float64)
        if unit.norm is not None:
            unit.norm["gamma"] = unit.norm["gamma"] * scale.reshape(-1)
            unit.norm["beta"] = unit.norm["beta"] * scale.reshape(-1) + shift.reshape(-1)
            return
        if scale.size != 1 or scale.item() != 1:
            depthwise = self._network.units[len(self._units) - 1].depthwise
            per_output = scale.reshape(-1, 1) if depthwise else scale.reshape(-1)
            unit.kernel = unit.kernel.astype(np.float64) * per_output
        before = unit.bias if unit.bias is not None else 0.0
        unit.bias = before * scale.reshape(-1) + shift.reshape(-1)

    def _take_activation(self, one: Operation, unit: _Unit) -> None:
        function = one.values["function"]
        if function == "linear":
            return
        if function != "relu6":
            raise Unusable(f"the activation {one.name} is {function}, where a MobileNet has ReLU6")
        if unit.relu6:
            return
        if unit.adds:
            raise Unusable(f"{one.name} follows a sum, where a MobileNet has no activation")
        unit.relu6 = True

    def _take_sum(self, one: Operation) -> None:
        wanted = self._network.units[len(self._units) - 1].adds
        found = self._units[-1]
        others = [tensor for tensor in one.inputs if tensor != self._current]
        if wanted is None or found.adds or others != [self._outputs[wanted]]:
            raise Unusable(f"the sum {one.name} is not that of a MobileNet's residual")
        found.adds = True

    def _take_pooling(self, one: Operation) -> None:
        self._close()
        if one.kind == "pool" and self._size is not None:
            size = self._network.output_sizes(*self._size)[-1]
            if tuple(one.values["window"]) != size:
                raise Unusable(
                    f"{one.name} averages {list(one.values['window'])} of a map of {list(size)}, not all of it"
                )
            if not one.values.get("whole", True):
                raise Unusable(f"{one.name} averages around each place of the map, not all of it once")
        elif one.kind == "pool" and not one.values.get("whole"):
            raise Unusable(f"{one.name} averages over a part of the map, as far as the file says; give the image size")
        self._features = one.output
        self._widths[one.output] = self._units[-1].kernel.shape[3]

    def _take_behind(self, one: Operation) -> None:
        if one.kind == "dense" or (one.kind == "conv" and one.values["kernel"].shape[:2] == (1, 1)):
            kernel = one.values["kernel"]
            self._head.append(Dense(kernel.reshape(kernel.shape[-2:]), one.values.get("bias")))
        elif one.kind == "affine":
            self._head.append(Affine(one.values["scale"], one.values["shift"]))
        elif one.kind == "norm":
            variance = one.values["moving_variance"].astype(np.float64) + one.values["epsilon"]
            factor = one.values["gamma"] / np.sqrt(variance)
            self._head.append(Affine(factor, one.values["beta"] - one.values["moving_mean"] * factor))
        elif one.kind == "activation":
            self._head.append(one.values["function"])
        elif one.kind == RESHAPE:
            self._check_reshape(one, self._widths[self._current])
        elif one.kind == NORMALIZED and self._kept:
            self._head.append(one.kind)
        elif one.kind != "mean":  # of the one position that is left
            raise Unusable(f"{one.name} ({one.kind}) stands behind the features, where a module has dense layers only")
        self._widths[one.output] = self._width_behind(one)

    def _width_behind(self, one: Operation) -> int:
        before = self._widths[self._current]
        if one.kind in ("dense", "conv"):
            return int(one.values["kernel"].shape[-1])
        return max(before, int(np.size(one.values["scale"]))) if one.kind == "affine" else before

    def _check_reshape(self, one: Operation, width: int) -> None:
        """Demand that a reshape leaves the numbers of one image in its last dimension."""
        if (like := one.values.get("like")) is not None:
            kept = self._widths.get(like) == width
        else:
            *before, last = one.values.get("shape") or (1,)
            kept = last == width or (last == -1 and all(n in (1, -1) for n in before))
        if not kept:
            raise Unusable(f"{one.name} distributes its {width} numbers over several dimensions, which no module does")

    def finish(self) -> Recognized:
        """Return the network once the path is at its end."""
        network = self._network
        if self._features is None:
            what = "its features are not pooled" if len(self._units) == len(network.units) else "its graph is cut short"
            raise Unusable(f"{what}: a module has global average pooling behind its last convolution")
        if len(self._epsilons) > 1:
            raise Unusable(f"its batch norms have the different epsilons {sorted(self._epsilons)}")
        epsilon = self._epsilons.pop() if self._epsilons else BATCH_NORM_EPSILON
        weights, folded = dict(self._given), False
        for unit, found in zip(network.units, self._units, strict=False):
            folded |= found.norm is None
            weights |= _named(unit, found, epsilon)
        padding = padding_rule(network, [one.pads for one in self._units], self._size) if self._units else SAME
        scaling = (self._scale, self._offset) if self._scaled else None
        return Recognized(
            network, weights, tuple(self._head), scaling, Variant(epsilon, padding), folded, self._features
        )


def _per_channel(one: Operation, key: str) -> np.ndarray:
    """Return a factor or a summand: one number, or one for each channel."""
    value = np.asarray(one.values[key], np.float64)
    if value.size > 1 and value.size != value.shape[-1]:
        value = np.unique(value)
        if value.size != 1:
            raise Unusable(f"{one.name} differs over the map, where a MobileNet has one number for each channel")
    return value


def _named(unit: ConvUnit, found: _Unit, epsilon: float) -> dict[str, np.ndarray]:
    """Return a unit's weights by TF-Slim name; without batch norm, one that does nothing but add the bias."""
    bias = found.bias if found.bias is not None else np.zeros(1)
    if found.norm is None:
        channels = found.kernel.shape[2 if unit.depthwise else 3]
        norm = {
            "gamma": np.ones(channels),
            "beta": np.broadcast_to(bias, (channels,)),
            "moving_mean": np.zeros(channels),
            "moving_variance": np.full(channels, 1 - epsilon),  # so that it divides by 1
        }
    else:
        norm = dict(found.norm)
        if found.bias is not None:
            norm["moving_mean"] = norm["moving_mean"] - bias
    arrays = {unit.kernel.name: found.kernel} | {f"{unit.scope}/BatchNorm/{leaf}": norm[leaf] for leaf in norm}
    return {name: as_float32(np.asarray(array), name) for name, array in arrays.items()}
