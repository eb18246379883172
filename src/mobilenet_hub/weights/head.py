"""What stands behind the features of a network, as a module has it: hidden layers with ReLU, and a linear classifier.

Linear layers that follow each other are one, computed exactly (in float64, rounded once): a new layer on an old one's
logits as retrain.py makes, a batch norm before or behind a dense layer. One unit with a sigmoid, or one linear one, is
two classes with the logits (0, z), whose softmax is what the sigmoid says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobilenet_hub.weights.reading import Unusable, as_float32

_MAX_HIDDEN = 16  # hidden layers
_MAX_WIDTH = 2048  # of a batch norm between two activations, which becomes a dense layer


@dataclass(frozen=True)
class Dense:
    """A fully connected layer: the kernel [inputs, outputs], and a bias [outputs] where it has one."""

    kernel: np.ndarray
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class Affine:
    """A factor and a summand for each channel, or for all: a batch norm, a bias."""

    scale: Any
    shift: Any


Step = Dense | Affine | str  # an activation by its name


@dataclass(frozen=True)
class _Linear:
    kernel: np.ndarray  # float64 [inputs, outputs], or [outputs] where each output has one input
    bias: np.ndarray

    def then(self, step: Dense | Affine) -> "_Linear":
        if isinstance(step, Affine):
            scale, shift = (np.asarray(one, np.float64).reshape(-1) for one in (step.scale, step.shift))
            return _Linear(self.kernel * scale, self.bias * scale + shift)
        kernel = np.asarray(step.kernel, np.float64)
        width = kernel.shape[0]
        if self.bias.size not in (1, width):
            raise Unusable(f"a layer of {width} inputs follows one of {self.bias.size} outputs")
        added = 0.0 if step.bias is None else np.asarray(step.bias, np.float64)
        joined = (
            self.kernel @ kernel if self.kernel.ndim == 2 else np.broadcast_to(self.kernel, (width,))[:, None] * kernel
        )
        return _Linear(joined, np.broadcast_to(self.bias, (width,)) @ kernel + added)


_NOTHING = _Linear(np.ones(1), np.zeros(1))


def head_weights(steps: Sequence[Step], scope: str, features: int) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """Return a head's weights by TF-Slim name, and the widths of its hidden layers.

    Args:
        steps: the layers and activations behind the features, in order.
        scope: the network's, e.g. "MobilenetV2".
        features: how many there are.

    Raises:
        Unusable: a head that a module cannot have; says which layer.
    """
    layers = _layers(steps)
    if not layers:
        return {}, ()
    *hidden, (last, activation) = layers
    if len(hidden) > _MAX_HIDDEN:
        raise Unusable(f"{len(hidden)} hidden layers stand behind its features; at most {_MAX_HIDDEN} are taken")
    if any(function != "relu" for _, function in hidden):
        functions = ", ".join(function for _, function in hidden if function != "relu")
        raise Unusable(f"a hidden layer behind its features has the activation {functions}, where a module has ReLU")
    found = [_dense(one, features) for one, _ in hidden]
    width = found[-1].bias.size if found else features
    found.append(_two_classes(_dense(last, width), activation))
    names = [f"Hidden_{at}" if at else "Hidden" for at in range(len(hidden))] + ["Conv2d_1c_1x1"]
    weights = {}
    for name, one in zip(names, found, strict=True):
        for leaf, array in (("weights", one.kernel[None, None]), ("biases", one.bias)):
            variable = f"{scope}/Logits/{name}/{leaf}"
            weights[variable] = as_float32(array, variable)
    return weights, tuple(one.bias.size for one in found[:-1])


def _layers(steps: Sequence[Step]) -> list[tuple[_Linear, str]]:
    """Join what is linear; return each linear piece with the activation behind it."""
    layers: list[tuple[_Linear, str]] = []
    current: _Linear | None = None
    for step in steps:
        if layers and layers[-1][1] in ("softmax", "sigmoid") and step != "linear":
            raise Unusable(f"another layer follows its {layers[-1][1]}")
        if not isinstance(step, str):
            if isinstance(step, Dense) and step.kernel.ndim != 2:
                raise Unusable(f"a dense layer has a kernel of shape {list(step.kernel.shape)}")
            current = (current or _NOTHING).then(step)
        elif step == "linear" or (step in ("relu", "relu6") and current is None and not layers):
            continue  # features are means of 0 to 6
        elif current is None and not (step == "relu" and layers):
            raise Unusable(f"a {step} follows its features or another activation, without a layer before it")
        elif current is not None:
            layers.append((current, step))
            current = None
    return layers if current is None else [*layers, (current, "linear")]


def _dense(one: _Linear, inputs: int) -> _Linear:
    if one.kernel.ndim == 2:
        return one
    if inputs > _MAX_WIDTH:
        raise Unusable(f"a layer of {inputs} single factors stands behind its features")
    return _Linear(np.diag(np.broadcast_to(one.kernel, (inputs,))), np.broadcast_to(one.bias, (inputs,)))


def _two_classes(last: _Linear, activation: str) -> _Linear:
    units = last.bias.size
    if activation not in ("linear", "softmax", "sigmoid"):
        raise Unusable(f"its classifier has the activation {activation}, where a module has softmax")
    if units == 1:
        if activation == "softmax":
            raise Unusable(
                "its classifier is a softmax of one unit, which is 1 for every photo: no classes can be told"
            )
        return _Linear(np.concatenate([np.zeros_like(last.kernel), last.kernel], 1), np.array([0.0, last.bias[0]]))
    if activation == "sigmoid":
        raise Unusable(
            f"its {units} classes are independent of each other (a sigmoid each), where a module's exclude each other"
        )
    return last
