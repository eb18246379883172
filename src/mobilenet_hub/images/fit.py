"""How a picture of any shape is brought to the network's.

docs/images.md has the measurements that `DEFAULT_FIT` and the filter were chosen by.
"""

from math import ceil
from typing import Literal, get_args

import numpy as np

from mobilenet_hub.errors import InputError
from mobilenet_hub.images.resample import Filter, resample

Fit = Literal["center", "crop", "squash", "pad", "slim"]
FITS: tuple[Fit, ...] = get_args(Fit)
DEFAULT_FIT: Fit = "center"

_CENTRAL_FRACTION = 0.875  # preprocess_for_eval of TF-Slim's inception_preprocessing.py
# A scaled JPEG may fall this far short of the network's input: 375-pixel photos at half size, for 224. Measured.
SCALED_SHARE = 5 / 6
FILTER: Filter = "lanczos"  # Measured
_GRAY = 128  # around a padded picture: 0 to the network


def checked_fit(fit: Fit | None) -> Fit:
    """Return a fit's name, the default's for None.

    Raises:
        InputError: no such fit.

    Example:
        >>> checked_fit("pad")
        'pad'
    """
    if fit is None:
        return DEFAULT_FIT
    if fit not in FITS:
        raise InputError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")
    return fit


def sufficient_size(size: tuple[int, int], fit: Fit) -> tuple[int, int] | None:
    """Return the (height, width) that a picture must have to be fitted without loss; None: all that it has."""
    if fit == "slim":
        return None
    share = SCALED_SHARE / (_CENTRAL_FRACTION if fit == "crop" else 1)
    return ceil(size[0] * share), ceil(size[1] * share)


def fit_image(pixels: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """Bring uint8 [h, w, 3] pixels to (height, width), as `load_image` describes the fits.

    Example:
        >>> fit_image(np.zeros((90, 120, 3), np.uint8), (32, 48), "squash").shape
        (32, 48, 3)
    """
    if fit == "slim":
        return _fit_slim(pixels, size)
    height, width = pixels.shape[:2]
    if fit == "pad":
        return _fit_pad(pixels, size)
    if fit == "squash":
        box_height, box_width = float(height), float(width)
    elif fit == "crop":
        box_height, box_width = height * _CENTRAL_FRACTION, width * _CENTRAL_FRACTION
    else:
        scale = min(height / size[0], width / size[1])
        box_height, box_width = min(size[0] * scale, height), min(size[1] * scale, width)  # not an ulp outside
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return resample(pixels, size, (left, top, left + box_width, top + box_height), FILTER)


def _fit_pad(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    padded = np.full((*size, 3), _GRAY, np.uint8)
    padded[top : top + inner[0], left : left + inner[1]] = resample(pixels, inner, (0, 0, width, height), FILTER)
    return padded


def _fit_slim(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Crop as tf.image.central_crop, resize as TensorFlow 1's resize_bilinear (align_corners=False, no antialias)."""
    height, width = pixels.shape[:2]
    top, left = (int((side - side * _CENTRAL_FRACTION) / 2) for side in (height, width))
    central = pixels[top : height - top, left : width - left].astype(np.float32)
    rows, next_rows, row_share = _legacy_taps(central.shape[0], size[0])
    columns, next_columns, column_share = _legacy_taps(central.shape[1], size[1])
    mixed = central[rows] + (central[next_rows] - central[rows]) * row_share[:, np.newaxis, np.newaxis]
    mixed = mixed[:, columns] + (mixed[:, next_columns] - mixed[:, columns]) * column_share[:, np.newaxis]
    return (mixed + np.float32(0.5)).astype(np.uint8)


def _legacy_taps(length: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each output the two inputs it lies between and the share of the second."""
    position = np.arange(target, dtype=np.float32) * np.float32(length / target)
    first = position.astype(np.int64)
    return first, np.minimum(first + 1, length - 1), position - first
