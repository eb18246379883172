"""One picture to the network's input, and batches that are taken as they are."""

from typing import Any

import numpy as np

from mobilenet_hub.errors import InputError
from mobilenet_hub.images.fit import Fit, Preprocessing


def load_image(source: Any, image_size: int | tuple[int, int], fit: Fit | None = None) -> np.ndarray:
    """Decode one picture and fit it to the network's input, uint8 [height, width, 3]; `Preprocessing` says how.

    Raises:
        ImageError: the picture cannot be read.
        InputError: `fit`, `image_size` or the type of `source` means nothing.

    Example:
        >>> load_image(np.zeros((90, 120, 3), np.uint8), 32).shape
        (32, 32, 3)
    """
    return Preprocessing(image_size, fit).load(source)


# What brings [n, 3, height, width], PyTorch's order, into ours.
CHANNELS_LAST = "images.permute(0, 2, 3, 1), or in NumPy images.transpose(0, 2, 3, 1)"


def check_batch(array: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Check a batch that is taken as it is; return it as float32 [n, height, width, 3], contiguous.

    Args:
        array: floats [n, height, width, 3] in [0, 1]; uint8 images go through `Preprocessing.load_batch` instead.
        size: (height, width) that it must have; None: any.

    Raises:
        InputError: another rank, number of channels, dtype or size, a value that is not finite, or a range that shows
            0..255 or [-1, 1]; the text names the fix.

    Example:
        >>> check_batch(np.full((1, 4, 4, 3), 0.5)).dtype
        dtype('float32')
    """
    received = f"{array.dtype} {list(array.shape)}"
    if array.dtype not in (np.float32, np.float64, np.float16):
        raise InputError(f"a batch must be float32 in [0, 1], not {received}; pass uint8 images as a list of arrays")
    if array.ndim == 4 and array.shape[1] == 3 and array.shape[3] != 3:
        raise InputError(f"a batch must be [n, height, width, 3], not {received}; use {CHANNELS_LAST}")
    if array.ndim == 3 and array.shape[2] == 3:
        raise InputError(f"a batch must be [n, height, width, 3], not {received}; use images[np.newaxis]")
    if array.ndim != 4 or array.shape[3] != 3:
        raise InputError(f"a batch must be [n, height, width, 3], RGB, not {received}")
    if size is not None and array.shape[1:3] != tuple(size):
        raise InputError(f"a batch of {size[0]}x{size[1]} images is needed, not {received}")
    if array.size:
        _check_range(float(array.min()), float(array.max()))
    return np.ascontiguousarray(array, np.float32)


_ROUNDING = 1e-3  # what resizing in floating point may overshoot


def _check_range(low: float, high: float) -> None:
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the batch holds values that are not finite (NaN or infinity)")
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return
    received = f"the batch's values must lie in [0, 1], and these go from {low:g} to {high:g}"
    if low >= -1 - _ROUNDING and high <= 1 + _ROUNDING:
        raise InputError(f"{received}: scaled to [-1, 1], which the network does itself; use (images + 1) / 2")
    if low >= -_ROUNDING and high <= 255 + _ROUNDING:
        raise InputError(f"{received}: 0..255; use images / 255")
    raise InputError(f"{received}; undo the normalization: the network wants plain RGB in [0, 1]")
