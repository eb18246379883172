"""What bfloat16 arithmetic needs so that a network's outputs stay what they are: other biases, and some float32.

A bfloat16 has 8 significant bits. Rounding a kernel or a bias to it moves a channel's mean, and what moves every pixel
alike no later layer averages out. Batch norm tells the mean of every channel, without a single image, so each layer's
bias can take back what its own kernel moves, and what the biases before it moved: that costs nothing at run time. What
is left is the noise of rounded activations. Batch norm tells that too, against the signal; where it would add up to too
much the first layers stay float32. docs/engine.md has the figures.

NumPy only; imports architecture.
"""

from collections.abc import Mapping, Sequence
from math import erf, exp, pi, sqrt
from typing import NamedTuple

import numpy as np

from mobilenet_hub.architecture import Architecture, ConvUnit

_NOISE = 2.4e-4  # what rounded activations may add to all layers' signals, in power: features keep a cosine of 0.999
_STEP_POWER = 2.0**-18 / 3  # mean square of the relative error of 8 significant bits
_RELU6 = 6.0

Layer = tuple[np.ndarray, np.ndarray]  # kernel [k, k, in, out], or [k, k, in, 1] where depthwise, and bias [out]


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bfloat16, ties to even, and return it as float32.

    Example:
        >>> to_bfloat16(np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)).tolist()
        [1.0, 1.015625]
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


class Prepared(NamedTuple):
    """What to compute with instead of a network's units."""

    units: list[Layer]
    exact: int  # of the first units, how many are to be computed in float32


def prepare(
    network: Architecture,
    weights: Mapping[str, np.ndarray],
    units: Sequence[Layer],
    exact: int | None = None,
) -> Prepared:
    """Prepare a network for bfloat16 arithmetic; what lies behind the features is computed in float32.

    Args:
        network: the architecture.
        weights: float32 arrays by TF-Slim name.
        units: the units' kernels and biases, batch norm folded in.
        exact: how many of the first units are to be computed in float32; None: as many as `float32_units` says.

    Returns:
        The layers to compute with, float32 arrays of rounded values.
    """
    means = mean_inputs(network, weights)
    exact = float32_units(network, weights, units, means) if exact is None else exact
    return Prepared(rounded_layers(network, weights, units, means, exact), exact)


def mean_inputs(network: Architecture, weights: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return the mean input of every unit, [in], and at the end the mean features, as batch norm tells them.

    Batch norm's outputs have mean beta and deviation gamma over the images that it saw; taken as normal, their mean
    after ReLU6 follows. Of the images themselves nothing is known: 0, the middle of [-1, 1].

    Example:
        >>> from mobilenet_hub.architecture import mobilenet_v1
        >>> network = mobilenet_v1(0.25)
        >>> ones = {name: np.ones(variable.shape, np.float32) for name, variable in network.variables.items()}
        >>> [mean.round(3).tolist()[:1] for mean in mean_inputs(network, ones)[:2]]
        [[0.0], [1.083]]
    """
    means = [np.zeros(network.units[0].in_channels)]
    for unit in network.units:
        beta, gamma = _mean_and_deviation(unit, weights)
        mean = np.array([*map(_mean_after_relu6, beta, gamma)]) if unit.relu6 else beta
        means.append(mean if unit.adds is None else mean + means[unit.adds + 1])
    return means


def float32_units(
    network: Architecture, weights: Mapping[str, np.ndarray], layers: Sequence[Layer], means: Sequence[np.ndarray]
) -> int:
    """Return how many of a network's first units are to be computed in float32.

    0 where batch norm was folded away before the weights came here (float LiteRT files): then it tells nothing.

    Args:
        network: the architecture.
        weights: float32 arrays by TF-Slim name.
        layers: the units' kernels and biases, batch norm folded in.
        means: from `mean_inputs`.
    """
    noise = []
    for unit, (kernel, _), mean in zip(network.units, layers, means[:-1], strict=True):
        added = _applied(np.square(kernel, dtype=np.float64), mean**2, unit.depthwise) * _STEP_POWER
        passed = _passed(unit, weights)
        signal = (passed * _mean_and_deviation(unit, weights)[1] ** 2).sum()
        told = signal and weights[unit.batch_norm[2].name].any()  # a mean of 0 throughout was never measured
        noise.append((passed * added).sum() / signal if told else 0.0)
    return int((np.cumsum(noise[::-1])[::-1] > _NOISE).sum())


def rounded_layers(
    network: Architecture,
    weights: Mapping[str, np.ndarray],
    layers: Sequence[Layer],
    means: Sequence[np.ndarray],
    first: int,
) -> list[Layer]:
    """Round kernels and biases to bfloat16 so that the network's mean outputs stay where they were.

    Args:
        network: the architecture.
        weights: float32 arrays by TF-Slim name.
        layers: the units' kernels and biases, batch norm folded in.
        means: from `mean_inputs`.
        first: the first unit to round; the last unit's bias is not rounded, as OpenVINO leaves it float32.

    Returns:
        What to compute with instead of `layers`, float32.
    """
    result, moved = list(layers[:first]), [np.zeros_like(mean) for mean in means[: first + 1]]
    for index in range(first, len(layers)):
        unit, (kernel, bias), mean = network.units[index], layers[index], means[index]
        near = to_bfloat16(kernel)
        wanted = bias - (_applied(near, mean + moved[-1], unit.depthwise) - _applied(kernel, mean, unit.depthwise))
        given = to_bfloat16(wanted.astype(np.float32)) if index < len(layers) - 1 else wanted.astype(np.float32)
        result.append((near, given))
        moves = (given - wanted) * _passed(unit, weights)
        moved.append(moves if unit.adds is None else moves + moved[unit.adds + 1])
    return result


def _applied(kernel: np.ndarray, values: np.ndarray, depthwise: bool = False) -> np.ndarray:
    """Return what a kernel makes of an image whose every pixel has these values [in]: [out], float64."""
    total = kernel.sum((0, 1), dtype=np.float64)
    return total[:, 0] * values if depthwise else values @ total


def _mean_and_deviation(unit: ConvUnit, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return each channel's mean and standard deviation behind batch norm: beta and |gamma|."""
    gamma, beta, _, _ = (weights[variable.name].astype(np.float64) for variable in unit.batch_norm)
    return beta, np.abs(gamma)


def _passed(unit: ConvUnit, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the share of each channel's values that ReLU6 leaves as they are; 1 where there is none."""
    beta, gamma = _mean_and_deviation(unit, weights)
    if not unit.relu6:
        return np.ones_like(beta)
    return np.array(
        [_share_below(_RELU6, *channel) - _share_below(0.0, *channel) for channel in zip(beta, gamma, strict=True)]
    )


def _mean_after_relu6(mean: float, deviation: float) -> float:
    """Return the mean of a normal variable cut off at 0 and at 6."""
    below_0, below_6 = _share_below(0.0, mean, deviation), _share_below(_RELU6, mean, deviation)
    slope = _density(0.0, mean, deviation) - _density(_RELU6, mean, deviation)
    return mean * (below_6 - below_0) + deviation * slope + _RELU6 * (1 - below_6)


def _share_below(value: float, mean: float, deviation: float) -> float:
    if deviation == 0:
        return float(mean <= value)
    return (1 + erf((value - mean) / deviation / sqrt(2))) / 2


def _density(value: float, mean: float, deviation: float) -> float:
    if deviation == 0:
        return 0.0
    distance = (value - mean) / deviation
    return exp(-distance * distance / 2) / sqrt(2 * pi)
