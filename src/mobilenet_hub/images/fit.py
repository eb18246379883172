"""How a picture of any shape is brought to the network's.

docs/images.md has the measurements that `DEFAULT_FIT` and the filter were chosen by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, get_args

import numpy as np

from mobilenet_hub.architecture import height_and_width
from mobilenet_hub.errors import InputError
from mobilenet_hub.images.color import to_srgb
from mobilenet_hub.images.decode import decode_sized
from mobilenet_hub.images.resample import Filter, resample

Fit = Literal["center", "crop", "squash", "pad", "slim"]
FITS: tuple[Fit, ...] = get_args(Fit)
DEFAULT_FIT: Fit = "center"

_CENTRAL_FRACTION = 0.875  # preprocess_for_eval of TF-Slim's inception_preprocessing.py
# A scaled JPEG may fall this far short of the network's input: 375-pixel photos at half size, for 224. Measured.
SCALED_SHARE = 5 / 6
FILTER: Filter = "lanczos"  # Measured
_GRAY = 128  # around a padded picture: 0 to the network


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become a network's input: checked once, held by whoever holds the engine.

    Attributes:
        image_size: (height, width) of the network's input; a side alone stands for both.
        fit: how a picture of another shape is brought to that size; None: `DEFAULT_FIT`.
            "center": the largest central part of the input's shape, nothing distorted.
            "crop": the central 87.5 % of both sides, squashed, as the published accuracies were measured.
            "squash": the whole picture, squashed.
            "pad": the whole picture, undistorted, gray beside it.
            "slim": "crop", decoded and resampled as TensorFlow 1 did (rounded to 8 bits): for the published figures.

    Raises:
        InputError: `fit` or `image_size` means nothing.

    Example:
        >>> Preprocessing(32).load(np.zeros((90, 120, 3), np.uint8)).shape
        (32, 32, 3)
        >>> Preprocessing((32, 48), None).fit
        'center'
    """

    image_size: tuple[int, int]
    fit: Fit = DEFAULT_FIT

    def __init__(self, image_size: int | tuple[int, int], fit: Fit | None = None):
        """Check both."""
        if fit is not None and fit not in FITS:
            raise InputError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")
        object.__setattr__(self, "image_size", height_and_width(image_size))
        object.__setattr__(self, "fit", fit or DEFAULT_FIT)

    def load(self, source: Any) -> np.ndarray:
        """Decode one picture and fit it, uint8 [height, width, 3].

        Args:
            source: as for `decode_image`.

        Raises:
            ImageError: the picture cannot be read.
            InputError: the type of `source` means nothing.
        """
        return self.load_sized(source)[0]

    def load_sized(self, source: Any) -> tuple[np.ndarray, tuple[int, int]]:
        """Load as `load` does, and return beside the pixels the full upright (height, width) of the picture."""
        found = decode_sized(source, self.sufficient_size, as_tensorflow=self.fit == "slim")
        height, width = found.pixels.shape[:2]
        # Colors last, on fewer pixels; docs/images.md has what that changes. What is put beside a picture is sRGB.
        if self.fit == "pad" or height * width <= self.image_size[0] * self.image_size[1]:
            return self.apply(to_srgb(found.pixels, found.profile)), found.size
        return to_srgb(self.apply(found.pixels), found.profile), found.size

    def load_batch(self, sources: Sequence[Any]) -> np.ndarray:
        """Load pictures as `load` does, one after the other, into uint8 [n, height, width, 3].

        Raises:
            ImageError, InputError: as `load` does, at the first bad one.

        Example:
            >>> Preprocessing(32).load_batch([np.zeros((90, 120, 3), np.uint8)] * 2).shape
            (2, 32, 32, 3)
        """
        batch = np.empty((len(sources), *self.image_size, 3), np.uint8)
        for index, source in enumerate(sources):
            batch[index] = self.load(source)
        return batch

    @property
    def sufficient_size(self) -> tuple[int, int] | None:
        """The (height, width) that a picture must have to be fitted without loss; None: all that it has."""
        if self.fit == "slim":
            return None
        share = SCALED_SHARE / (_CENTRAL_FRACTION if self.fit == "crop" else 1)
        return ceil(self.image_size[0] * share), ceil(self.image_size[1] * share)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Bring uint8 pixels [h, w, 3] to uint8 [height, width, 3].

        Example:
            >>> Preprocessing((32, 48), "squash").apply(np.zeros((90, 120, 3), np.uint8)).shape
            (32, 48, 3)
        """
        size = self.image_size
        if self.fit == "slim":
            return _fit_slim(pixels, size)
        height, width = pixels.shape[:2]
        if self.fit == "pad":
            return _fit_pad(pixels, size)
        if self.fit == "squash":
            box_height, box_width = float(height), float(width)
        elif self.fit == "crop":
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
