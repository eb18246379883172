"""How images enter a network: what a file says of it, what the tools that made it feed, and what the caller says."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isclose
from pathlib import Path

import numpy as np

from mobilenet_hub.architecture import INPUT_OFFSET, INPUT_SCALE, ConvUnit, Variant
from mobilenet_hub.errors import InputError, InvalidModuleError
from mobilenet_hub.weights.reading import Unusable

PIXEL_RANGE = 255.0
# What programs make of pixels x of 0 to 255, and the scale and offset that do the same to images in [0, 1].
FED = {"x/127.5-1": (INPUT_SCALE, INPUT_OFFSET), "x/255": (1.0, 0.0), "x": (PIXEL_RANGE, 0.0)}
TEACHABLE_MACHINE_SCALE, _TEACHABLE_MACHINE_HIDDEN = PIXEL_RANGE / 127, 100
_TENSORFLOW_JS = re.compile(r"dense_Dense\d+|GlobalAveragePooling2D\d+")
_NESTED = re.compile(r"sequential_\d+_input")
PIXELS = "images enter as pixels / 127.5 - 1, which the file does not say; else set input_scale and input_offset"
SMALL = (
    "images enter as pixels of 0 to 255, which the file does not say: the weights of its first layer are as small as "
    "for these alone; else set input_scale and input_offset"
)
_OPEN = "which the file does not say"
_LEAST_REACH = 0.5  # of images in [-1, 1] in the first layer: 3.4 to 34 in trained networks, 0.02 to 0.14 by 1 / 255
PIXEL_SCALE = 0.1  # what takes 0..255 to about one is below, what takes [0, 1] there above
_LEAST_SPREAD, _FARTHEST = 0.5, 4.0  # of the numbers that pixels become: wider than any in use
_RANGES, _NEAR = ((-1.0, 1.0), (0.0, 1.0)), 0.02  # what images in [0, 1] become in the networks of TF Hub and its like


def is_open(assumed: Iterable[object]) -> bool:
    """Tell whether the file left open how images enter."""
    return any(_OPEN in str(one) for one in assumed)


def with_pixels(
    variant: Variant, assumed: tuple[str, ...], pixels: str | None, path: Path | None
) -> tuple[Variant, tuple[str, ...]]:
    """Return how images enter where the caller says it, and what is still assumed.

    Args:
        variant: with what the file says, or what is assumed.
        assumed: what the file leaves open, and what was taken for it.
        pixels: one of `FED`, None where the caller says nothing.
        path: the file, for errors.

    Raises:
        InputError: `pixels` is none that is known.
        InvalidModuleError: the file itself says something else.
    """
    if pixels is None:
        return variant, assumed
    if pixels not in FED:
        raise InputError(f"pixels must be one of {', '.join(FED)}, not {pixels!r}")
    scale, offset = FED[pixels]
    if not is_open(assumed):
        if not np.allclose((variant.input_scale, variant.input_offset), (scale, offset), rtol=1e-5, atol=1e-6):
            raise InvalidModuleError(
                f"{path} says itself that images enter as {_formula(variant)} of pixels x, not as {pixels}"
            )
        return variant, assumed
    return replace(variant, input_scale=scale, input_offset=offset), tuple(one for one in assumed if _OPEN not in one)


def _formula(variant: Variant) -> str:
    factor = variant.input_scale / PIXEL_RANGE
    scaled = "x" if factor == 1 else f"x/{1 / factor:.6g}"
    return scaled + (f"{variant.input_offset:+.6g}" if variant.input_offset else "")


def scaling_of_images(scale: float, offset: float) -> tuple[float, float]:
    """Return what takes images in [0, 1] to what a graph makes of the images that it is given.

    Raises:
        Unusable: neither pixels nor images in [0, 1] become numbers such as networks take.
    """
    of_pixels = abs(scale) < PIXEL_SCALE
    factor = scale * PIXEL_RANGE if of_pixels else scale
    low, high = sorted((offset, offset + factor))
    usual = high - low >= _LEAST_SPREAD and max(-low, high) <= _FARTHEST
    if factor <= 0 or not (usual if of_pixels else any(np.allclose((low, high), one, atol=_NEAR) for one in _RANGES)):
        raise Unusable(
            f"it makes x * {scale:.6g} + {offset:.6g} of its images, and nothing says from which numbers: pixels would "
            f"become {offset:.6g} to {offset + PIXEL_RANGE * scale:.6g}, images in [0, 1] {offset:.6g} to "
            f"{offset + scale:.6g}"
        )
    return factor, offset


def is_teachable_machine(names: Iterable[str], hidden_units: tuple[int, ...]) -> bool:
    """Tell whether layers are named as TensorFlow.js names them, or the head is theirs and its models nested."""
    names = tuple(names)
    if any(_TENSORFLOW_JS.search(name) for name in names):
        return True
    return any(_NESTED.search(name) for name in names) and hidden_units == (_TEACHABLE_MACHINE_HIDDEN,)


def takes_pixels(weights: Mapping[str, np.ndarray], first: ConvUnit, epsilon: float) -> bool:
    """Tell whether images in [-1, 1] could not move the first layer's outputs, as pixels of 0 to 255 do.

    A factor of 1 / 255 before a convolution becomes a part of its kernel in LiteRT files; and batch norm that was
    trained on pixels divides by deviations as large as theirs.
    """
    kernel = weights.get(first.kernel.name)
    gamma, _, _, variance = (weights.get(one.name) for one in first.batch_norm)
    if kernel is None or gamma is None or variance is None or kernel.ndim != 4:
        return False
    if not kernel.shape[3] == gamma.size == variance.size or not (variance >= 0).all():
        return False  # reported where all are checked
    factor = np.abs(gamma.reshape(-1)) / np.sqrt(variance.reshape(-1) + epsilon)
    return bool((np.abs(kernel).sum((0, 1, 2)) * factor).mean() < _LEAST_REACH)


def exactly_usual(scale: float) -> float:
    """Return the usual scale where a file has the nearest float32, and others as they are."""
    return INPUT_SCALE if isclose(scale, INPUT_SCALE, rel_tol=1e-6) else scale
