"""Reading of files that are not to be trusted: errors that name the file, sizes that fit.

The parsers of this folder raise ValueError with what is wrong and where in the data, Unusable where the data are sound
but of another network; `reading` adds the file once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import CorruptFileError, InvalidModuleError, MobileNetHubError
from mobilenet_hub.weights.kinds import refuse_stand_in

_FLOATS = ("float32", "float16", "float64")


class Unusable(ValueError):
    """The data are sound, but hold something else than a network that a module can be."""


@contextmanager
def reading(file: Path, what: str) -> Iterator[None]:
    """Turn what a parser raises, or a file that cannot be read, into one error that names the file.

    Args:
        file: the file being read.
        what: what it should be, e.g. "a frozen graph".

    Raises:
        InvalidModuleError: the block raised Unusable, or the file is a Git LFS pointer or a web page.
        CorruptFileError: the block raised what data raise that are damaged or of another structure.
    """
    try:
        yield
    except MobileNetHubError:
        raise
    except Unusable as error:
        raise InvalidModuleError(f"{file} is not {what} that can be used: {error}") from None
    except FileNotFoundError as error:
        raise CorruptFileError(f"{error.filename or file} is missing") from None
    except (ValueError, OSError, RecursionError, OverflowError, MemoryError) as error:
        refuse_stand_in(file)
        reason = str(error) or type(error).__name__
        raise CorruptFileError(f"{file} is damaged, cut off or not {what}: {reason}") from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:  # JSON of another structure than it should have
        raise CorruptFileError(f"{file} is not {what}: {type(error).__name__} {error}") from None


def array_from(data: bytes | memoryview, dtype: np.dtype, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return the array of raw little-endian bytes, which must be exactly as many as dtype and shape say.

    Raises:
        ValueError: another number of bytes, or a negative dimension; names the tensor.
    """
    if any(size < 0 for size in shape):
        raise ValueError(f"{name} has the shape {list(shape)}")
    if len(data) != prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {len(data)} bytes for shape {list(shape)} of {dtype}")
    return np.frombuffer(data, dtype).reshape(shape)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return as float32 the bfloat16 numbers whose bits are given, uint16: they are float32's upper halves.

    Example:
        >>> from_bfloat16(np.array([0x3FC0], np.uint16)).tolist()
        [1.5]
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def as_float32(array: np.ndarray, name: str) -> np.ndarray:
    """Return weights as float32; integers and the like are refused.

    Raises:
        ValueError: the dtype is none of float16, float32, float64; names the tensor.
    """
    if array.dtype.name not in _FLOATS:
        raise ValueError(f"{name} is {array.dtype}, not floating point")
    with np.errstate(over="ignore"):  # an infinity is reported with its name later
        return np.ascontiguousarray(array, np.float32)
