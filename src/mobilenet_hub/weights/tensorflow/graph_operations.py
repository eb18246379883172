"""What a TensorFlow graph computes, in the words of `operations`.

What depends on constants and variables alone is computed. Source: the registrations of the operations
(tensorflow/core/ops/*.cc) for the attributes' meaning and defaults.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from mobilenet_hub.weights.operation import INERT, MAX, RESHAPE, Operation
from mobilenet_hub.weights.reading import Unusable
from mobilenet_hub.weights.tensorflow.graph_calls import Calls, Key, Placed
from mobilenet_hub.weights.tensorflow.graph_def import CONVOLUTIONS, DTYPES, Node
from mobilenet_hub.weights.tensorflow.protobuf import Message
from mobilenet_hub.weights.tensorflow.variables import Variables

_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
_STARTS = ("Placeholder",)
_INERT = (
    "Identity", "IdentityN", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "EnsureShape",
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
_CAST_FLOATS = (1, 2, 19)  # of DTYPES
_MAX_CONSTANTS = 1 << 28  # bytes; a node of a few bytes may stand for many equal numbers
_EPSILON = 1e-4  # FusedBatchNorm's own, where a graph does not say it


class TensorFlowGraph(Calls):
    """A GraphDef with its functions, or nodes alone, and the values of its variables."""

    def __init__(self, graph: Message | Iterable[Node], variables: Variables | None = None):
        super().__init__(graph)
        self._variables = variables or Variables()

    def operations(self, end: Key) -> list[Operation]:
        """Return what leads to a tensor, each operation after those that it takes its inputs from.

        Raises:
            ValueError: the graph is damaged: a node or a function is missing, or it is a circle.
        """
        return list(_Reading(self.needed(end), self._variables).operations())


class _Reading:
    """Goes through nodes in order: computes constants, and lists what is done to the images."""

    def __init__(self, placed: Mapping[Key, Placed], variables: Variables):
        self._placed = placed
        self._variables = variables
        self._constants: dict[Key, np.ndarray | None] = {}  # None: of a kind that is no number
        self._left = _MAX_CONSTANTS
        self._shapes: dict[Key, Key] = {}  # of what the shape of another tensor is asked for

    def operations(self) -> Iterator[Operation]:
        before = takewhile(lambda one: one.node.op not in CONVOLUTIONS, self._placed.values())
        if chance := next((one.node.name for one in before if "Random" in one.node.op), None):
            raise Unusable(
                f"it changes its images at random whenever it answers ({chance}): Keras exports augmentation as in "
                "training; save the model as .keras, or export it without its augmentation"
            )
        for key, one in self._placed.items():
            if one.node.op in _STARTS:
                continue
            if not self._is_constant(key, one):
                yield self._operation(key, one)

    def _is_constant(self, key: Key, one: Placed) -> bool:
        if one.node.op == "Const":
            self._constants[key] = value = one.node.constant() if one.node.is_number else None
            self._left -= 0 if value is None else value.nbytes
            if self._left < 0:
                raise ValueError(f"its constants are more than {_MAX_CONSTANTS} bytes")
        elif one.node.op in _VARIABLES:
            self._constants[key] = self._variables.value(key[0], one.node)
        elif one.node.op == "Shape":  # of the batch's size, nothing of the images
            self._constants[key], self._shapes[key] = None, one.inputs[0]
        elif "Random" in one.node.op:  # of a shape alone, and no constant
            return False
        elif any(taken not in self._constants for taken in one.inputs) or (not one.inputs and key[0]):
            if one.inputs or one.node.op in _STARTS:
                return False
            self._constants[key] = None  # a random number, an iterator: refused where it takes part
        else:
            self._constants[key] = self._computed(one)
        return True

    def _computed(self, one: Placed) -> np.ndarray | None:
        values = [self._constants[taken] for taken in one.inputs]
        if one.node.op in _INERT:
            return values[0]
        if one.node.op == "Pack":  # a shape, in which -1 stands for what is not known
            sizes = [-1 if value is None else value for value in values]
            return np.array(sizes) if all(np.ndim(size) == 0 for size in sizes) else None
        if any(value is None for value in values):
            return None
        try:
            with np.errstate(all="ignore"):
                return _moved(one.node, [np.asarray(value) for value in values])
        except (ValueError, TypeError, IndexError):
            raise ValueError(f"{one.node.name} computes with shapes that do not fit") from None

    def _value(self, key: Key, node: Node, what: str) -> np.ndarray:
        value = self._constants.get(key)
        if value is None:
            raise Unusable(f"{what} of {node.name} ({node.op}) is computed in a way that no MobileNet does")
        return value

    def _operation(self, key: Key, one: Placed) -> Operation:
        computed = tuple(taken for taken in one.inputs if taken not in self._constants)
        if one.node.op in _SUMS and len(computed) == 1 and (norm := self._batch_norm(one, computed[0])):
            inputs, values = norm
            return Operation("norm", one.node.name, inputs, key, values)
        kind, values = self._what(one, computed)
        if key[1] != 0:
            kind = f"output {key[1]} of {one.node.op}"
        return Operation(kind, one.node.name, computed, key, values)

    def _what(self, one: Placed, computed: tuple[Key, ...]) -> tuple[str, dict[str, Any]]:  # noqa: PLR0911 (one for each kind)
        node, op = one.node, one.node.op
        if op in _INERT or (op == "Cast" and node.type_number("DstT") in _CAST_FLOATS):
            return INERT, {}
        if op in _RESHAPES:
            return RESHAPE, self._target(one)
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
        if op == "Mean" and sorted(self._value(one.inputs[1], node, "an axis").reshape(-1) % 4) == [1, 2]:
            return "mean", {}
        if op == "Max" and sorted(self._value(one.inputs[1], node, "an axis").reshape(-1) % 4) == [1, 2]:
            return MAX, {}
        if op == "AvgPool" and node.integers("ksize")[::3] == [1, 1] and node.text("padding") == "VALID":
            _check_channels_last(node)
            return "pool", {"window": tuple(node.integers("ksize")[1:3])}
        return op, {}

    def _target(self, one: Placed) -> dict[str, Any]:
        """Return the shape that a reshape gives, as far as it matters behind the features."""
        node, kept, last_is_one = one.node, {"shape": (-1,)}, {"shape": (-1, 1)}
        if node.op == "Squeeze":
            return last_is_one if set(node.integers("squeeze_dims")) & {3, -1} else kept
        value = self._constants.get(one.inputs[1])
        if node.op == "ExpandDims":
            return kept if value is not None and value.item() in (0, 1, -2) else last_is_one
        if value is not None:
            return {"shape": tuple(value.reshape(-1).tolist())}
        return {"like": self._shapes[one.inputs[1]]} if one.inputs[1] in self._shapes else {}

    def _with_kernel(self, one: Placed, computed: tuple[Key, ...]) -> tuple[str, dict[str, Any]]:
        node = one.node
        if len(computed) != 1 or one.inputs[0] != computed[0]:
            return f"a {node.op} of two branches", {}
        kernel = self._value(one.inputs[1], node, "the kernel")
        if node.op == "MatMul":
            if node.flag("transpose_a"):
                return "a transposed MatMul", {}
            return "dense", {"kernel": kernel.T if node.flag("transpose_b") else kernel}
        _check_channels_last(node)
        if any(n != 1 for n in node.integers("dilations")):
            raise Unusable(f"{node.name} is dilated, which no MobileNet's convolution is")
        padding = node.text("padding")
        if padding not in ("SAME", "VALID") or len(node.integers("strides")) != 4:
            raise Unusable(f"{node.name} pads {padding or 'somehow'}")
        values = {"kernel": kernel, "stride": tuple(node.integers("strides")[1:3]), "padding": padding.lower()}
        return ("conv" if node.op == "Conv2D" else "depthwise"), values

    def _arithmetic(self, one: Placed, computed: tuple[Key, ...]) -> tuple[str, dict[str, Any]]:
        op = one.node.op
        if len(computed) == 2:
            return ("add" if op in _SUMS else f"a {op} of two branches"), {}
        if op in ("Sub", "RealDiv") and one.inputs[0] != computed[0]:
            return "a constant minus or divided by the images", {}
        other = one.inputs[1] if one.inputs[0] == computed[0] else one.inputs[0]
        constant = np.asarray(self._value(other, one.node, "a constant"), np.float64)
        _check_channels_last(one.node)
        if op in ("Mul", "RealDiv"):
            return "affine", {"scale": constant if op == "Mul" else 1 / constant, "shift": np.zeros(1)}
        return "affine", {"scale": np.ones(1), "shift": -constant if op == "Sub" else constant}

    def _pad(self, one: Placed) -> dict[str, Any]:
        amounts = self._value(one.inputs[1], one.node, "the padding").astype(int)
        value = self._value(one.inputs[2], one.node, "the padding") if len(one.inputs) > 2 else 0
        if amounts.shape != (4, 2) or amounts[[0, 3]].any():
            raise Unusable(f"{one.node.name} pads otherwise than height and width")
        (_, height, width, _) = amounts.tolist()
        return {"pads": (tuple(height), tuple(width)), "value": value}

    def _fused(self, one: Placed) -> dict[str, Any]:
        node = one.node
        if "is_training" not in node.attributes or node.flag("is_training"):
            raise Unusable(f"{node.name} normalizes by the statistics of the batch, as in training")
        _check_channels_last(node)
        if len(one.inputs) != 5:
            raise Unusable(f"{node.name} normalizes by {len(one.inputs) - 1} vectors, not by four")
        leaves = ("gamma", "beta", "moving_mean", "moving_variance")
        values = {leaf: self._value(taken, node, leaf) for leaf, taken in zip(leaves, one.inputs[1:], strict=True)}
        return {**values, "epsilon": node.decimal("epsilon", _EPSILON)}

    def _batch_norm(self, total: Placed, computed: Key) -> tuple[tuple[Key, ...], dict[str, Any]] | None:
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
        while self._placed[key].node.op in (*_INERT, *_RESHAPES, "Cast") and self._placed[key].inputs:
            source = self._placed[key].inputs[0]
            if self._placed[source].node.op in _VARIABLES:
                break
            key = source
        return key

    def _taken(self, key: Key, *operations: str) -> tuple[Key, ...]:
        one = self._placed[key]
        return one.inputs if one.node.op in operations and len(one.inputs) == 2 else ()


def _check_channels_last(node: Node) -> None:
    if node.text("data_format") not in ("", "NHWC"):
        raise Unusable(f"{node.name} has its channels first, which no module has")


def _moved(  # noqa: PLR0911 (one for each kind)
    node: Node, values: Sequence[np.ndarray]
) -> np.ndarray | None:
    """Compute a node of constants; None where it is of a kind that is not known."""
    op = node.op
    if op == "StridedSlice":
        return _sliced(node, values)
    if op == "Cast":
        kind = node.type_number("DstT")
        return values[0].astype(DTYPES[kind]) if kind in DTYPES else None
    if op == "Reshape":
        return values[0].reshape(values[1].reshape(-1).astype(int))
    if op == "Squeeze":
        return np.squeeze(values[0], tuple(node.integers("squeeze_dims")) or None)
    if op == "ExpandDims":
        return np.expand_dims(values[0], int(values[1].item()))
    if op == "Transpose":
        return values[0].transpose(values[1].reshape(-1).astype(int))
    return _COMPUTED[op](*values) if op in _COMPUTED else None


def _sliced(node: Node, values: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the part of a constant that StridedSlice takes: `kernel[0, 0]`, as our own SavedModels have it."""
    array, *bounds = values
    masks = [node.integer(f"{name}_mask") for name in ("begin", "end", "shrink_axis", "ellipsis", "new_axis")]
    if masks[3] or masks[4]:
        return None
    indices: list[int | slice] = []
    for axis, (begin, end, stride) in enumerate(zip(*(bound.reshape(-1).tolist() for bound in bounds), strict=True)):
        open_begin, open_end, shrunk = (bool(mask >> axis & 1) for mask in masks[:3])
        whole = slice(None if open_begin else begin, None if open_end else end, stride)
        indices.append(begin if shrunk else whole)
    try:
        return array[tuple(indices)]
    except (IndexError, ValueError, TypeError):
        raise ValueError(f"{node.name} takes a part that is not there") from None
