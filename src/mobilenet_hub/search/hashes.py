"""Perceptual hashes: 63 bits of a picture's coarse light and dark, which gray, size and compression leave alone.

The signs, against their median, of the lowest 8 x 8 frequencies of the picture in gray at 32 x 32 (the constant left
out), after "pHash" (Zauner 2010, Implementation and benchmarking of perceptual image hash functions, section 3.2.1).
"""

from functools import cache

import numpy as np

SIDE = 32  # of the gray picture that frequencies are taken of
BITS = 63
_FREQUENCIES = 8
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as gray copies are made with
_LEAST_CONTRAST = 4.0  # root mean square of the 63 frequencies; a picture with less shows nothing to compare


def hashes_of(pictures: np.ndarray) -> np.ndarray:
    """Return hashes of pictures, uint8 [n, height, width, 3]: uint64 [n, 2], of each picture and of its mirror image.

    0 where a picture is all but flat, and is like nothing.

    Example:
        >>> squares = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), np.uint8).repeat(3, 3)
        >>> picture = squares.repeat(8, 1).repeat(8, 2)
        >>> of = hashes_of(np.concatenate([picture, picture[:, :, ::-1]]))
        >>> bool(of[0, 0] == of[1, 1]), bool(of[0, 0] == of[0, 1])
        (True, False)
    """
    height, width = pictures.shape[1:3]
    gray = pictures.astype(np.float32) @ _LUMA
    small = _to_frequencies(height) @ gray @ _to_frequencies(width).T  # [n, 8, 8]
    mirrored = small * np.where(np.arange(_FREQUENCIES) % 2, -1, 1).astype(np.float32)
    found = np.stack([_bits(small), _bits(mirrored)], axis=1)
    flat = np.sqrt((small.reshape(-1, _FREQUENCIES**2)[:, 1:] ** 2).mean(1)) < _LEAST_CONTRAST
    found[flat] = 0
    return found


def product_of_signs(bits: int) -> int:
    """Return the product of the `signs` of two hashes that differ in so many bits.

    Example:
        >>> product_of_signs(0), product_of_signs(64)
        (64, -64)
    """
    return 64 - 2 * bits


def signs(hashes: np.ndarray) -> np.ndarray:
    """Return the bits of hashes, uint64 [n], as -1 and 1, float32 [n, 64], all 0 where there is no hash.

    The products of two are 64 less twice the number of bits in which they differ.
    """
    bits = np.unpackbits(hashes.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32)
    return (2 * bits - 1) * (hashes != 0)[:, np.newaxis]


def _bits(frequencies: np.ndarray) -> np.ndarray:
    values = frequencies.reshape(-1, _FREQUENCIES**2)[:, 1:]
    bits = np.zeros((len(values), 64), np.uint8)
    bits[:, 1:] = values > np.median(values, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(-1)


@cache
def _to_frequencies(length: int) -> np.ndarray:
    """Return float32 [8, length]: averages over 32 equal stretches, then the lowest of the cosine transform."""
    edges = np.linspace(0, length, SIDE + 1)
    pixels = np.arange(length)
    share = np.clip(np.minimum(edges[1:, np.newaxis], pixels + 1) - np.maximum(edges[:-1, np.newaxis], pixels), 0, 1)
    share /= share.sum(1, keepdims=True)
    angle = np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(_FREQUENCIES)[:, np.newaxis]
    cosines = np.cos(angle) * np.sqrt(np.where(np.arange(_FREQUENCIES) == 0, 1, 2) / SIDE)[:, np.newaxis]
    return (cosines @ share).astype(np.float32)
