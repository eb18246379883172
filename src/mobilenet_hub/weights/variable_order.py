"""Variables that bear no names: which is which, by their order, shapes and values.

tf2-preview's modules of before May 2019 have no names (tensorflow/hub issue 287), and Keras's .keras and .weights.h5
files number the variables of a layer. Orders that do not fit the shapes and the trained variables are out; where two
are left they differ in gamma and beta only, and the values decide.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mobilenet_hub.architecture import BUILDERS, Architecture, Variable, architecture
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.identify import fitting_multiplier

Order = Callable[[Architecture], list[Variable]]
_FEW = 0.5  # gammas may have at most this part of the betas' negative values, or the two cannot be told apart


def weights_by_order(
    arrays: Sequence[np.ndarray], path: Path, trainable: Sequence[bool] | None = None
) -> dict[str, np.ndarray]:
    """Return the variables of a MobileNet by TF-Slim name.

    Args:
        arrays: all of them, in the order in which they are stored.
        path: what they come from, for errors, and because its name may tell the depth multiplier.
        trainable: which of them are trained, where that is known.

    Raises:
        InvalidModuleError: they are in no order that makes a MobileNet, or in two, and nothing tells which.
    """
    fits = [
        weights
        for name in BUILDERS
        for num_classes in (0, 1)  # without a classifier and with one; its names do not depend on its size
        for order in _ORDERS
        if (weights := _fit(arrays, trainable, architecture(name, 1.0, num_classes), order, path))
    ]
    if not fits:
        raise InvalidModuleError(
            f"{path}: its {len(arrays)} variables have no TF-Slim names and are in no known order of a MobileNet"
        )
    if len(fits) == 1:
        return fits[0]
    ranked = sorted(fits, key=_negative_gammas)
    if _negative_gammas(ranked[0]) > _FEW * _negative_gammas(ranked[1]) or not _negative_gammas(ranked[1]):
        raise InvalidModuleError(
            f"{path}: its variables have no names, and nothing tells batch norm's gammas from its betas"
        )
    return ranked[0]


def _by_name(network: Architecture) -> list[Variable]:
    return sorted(network.variables.values(), key=lambda variable: variable.name)


def _as_made(network: Architecture) -> list[Variable]:
    return list(network.variables.values())


def _beta_first(network: Architecture) -> list[Variable]:
    """The order of TF-Slim's own batch_norm, before it called tf.layers."""
    variables = _as_made(network)
    gammas = [at for at, variable in enumerate(variables) if variable.name.endswith("/gamma")]
    for at in gammas:
        variables[at], variables[at + 1] = variables[at + 1], variables[at]
    return variables


def _trained_first(order: Order) -> Order:
    """Keras's order: what is trained, then the moving statistics."""
    return lambda network: sorted(order(network), key=lambda variable: not variable.trainable)


_MADE: tuple[Order, ...] = (_by_name, _as_made, _beta_first)
_ORDERS: tuple[Order, ...] = (*_MADE, *map(_trained_first, _MADE))


def _fit(
    arrays: Sequence[np.ndarray], trainable: Sequence[bool] | None, network: Architecture, order: Order, path: Path
) -> dict[str, np.ndarray] | None:
    """Name the variables by an order; None where their number, shapes or training do not fit."""
    variables = order(network)
    pairs = list(zip(arrays, variables, strict=False))
    if len(arrays) != len(variables) or any(array.ndim != len(variable.shape) for array, variable in pairs):
        return None
    if trainable and any(trainable) and list(trainable) != [variable.trainable for variable in variables]:
        return None
    weights = {variable.name: array for array, variable in pairs}
    multiplier = fitting_multiplier(weights, network.name, path)
    if multiplier is None:
        return None
    num_classes = weights[network.classifier[-1].name].shape[0] if network.classifier else 0
    exact = architecture(network.name, multiplier, num_classes).variables
    return weights if all(exact[name].shape == array.shape for name, array in weights.items()) else None


def _negative_gammas(weights: Mapping[str, np.ndarray]) -> int:
    """Count negative gammas. Training starts them at one and rarely takes one below zero; betas start at zero."""
    return sum(int((array < 0).sum()) for name, array in weights.items() if name.endswith("/gamma"))
