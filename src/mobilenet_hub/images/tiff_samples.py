"""TIFF's samples of every depth and layout, which Pillow reads black, inverted or scrambled, or not at all.

10, 12, 16, 32 bits, planes apart, white as zero, floats: the file is presented to Pillow as what it is to its codecs,
rows of bytes, and the numbers are made of the bytes here.
"""

import ctypes
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.images.limits import check_cost
from mobilenet_hub.images.tiff import (
    BITS,
    COLOR_MAP,
    COMPRESSION,
    EXTRA,
    FORMAT,
    HEIGHT,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLES,
    STRIP_SIZES,
    STRIPS,
    TILE_HEIGHT,
    TILE_SIZES,
    TILE_WIDTH,
    TILES,
    WIDTH,
    Directory,
    Entry,
    rewritten,
)

if TYPE_CHECKING:
    from PIL.Image import Image

# Compressions that know nothing but bytes: none, LZW, deflate, PackBits, LZMA, Zstandard.
_BYTEWISE = frozenset([1, 5, 8, 32773, 32946, 34925, 50000])
_COMPRESSIONS = {6: "old JPEG", 7: "JPEG", 34676: "LogLuv", 34677: "LogLuv", 34712: "JPEG 2000", 50001: "WebP"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}
_KINDS = {3: "palette", 4: "mask", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab", 32803: "camera sensor", 34892: "raw"}
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_MAX_SAMPLES = 64
_BAND_BYTES = 1 << 24


def is_for_pillow(directory: Directory) -> bool:
    """Tell whether Pillow reads the picture's samples rightly."""
    photometric, bits, samples = directory.value(PHOTOMETRIC), directory.bits, directory.samples
    if photometric not in _COLORS:
        return bits <= 8
    unsigned = set(directory.values(FORMAT, (_UNSIGNED,))) <= {_UNSIGNED, _UNDEFINED}
    together = directory.value(PLANAR, 1) == 1 or samples == 1 or directory.value(COMPRESSION, 1) not in _BYTEWISE
    alpha = photometric == _RGB and samples == 4
    plain = bits == 8 and (samples == _COLORS[photometric] or alpha)
    return unsigned and together and (plain or (samples == 1 and bits in (1, 2, 4)))


def read_samples(data: bytes, directory: Directory) -> "np.ndarray | Image":
    """Return the picture as stored, uint8 [height, width, 3], on white; a Pillow image where it is CMYK.

    Raises:
        ImageError: samples whose meaning the file does not say, or a compression that is not read at this depth.
    """
    bits, samples, photometric = directory.bits, directory.samples, directory.value(PHOTOMETRIC)
    sample_format = directory.value(FORMAT, _UNSIGNED)
    if photometric not in _COLORS:
        kind = _KINDS.get(photometric, f"kind {photometric}")
        raise ImageError(f"a TIFF of {bits}-bit {kind} samples, which this library does not read: save it as RGB")
    if sample_format not in (_UNSIGNED, _FLOAT, _UNDEFINED):
        what = "signed" if sample_format == _SIGNED else "complex"
        raise ImageError(
            f"a TIFF of {what} numbers: the file does not say which are black and white; save it as 8 bits"
        )
    if directory.value(COMPRESSION, 1) not in _BYTEWISE:
        name = _COMPRESSIONS.get(directory.value(COMPRESSION, 1), f"number {directory.value(COMPRESSION)}")
        raise ImageError(f"a TIFF of {bits} bits a sample with compression {name}: save it with 8 bits")
    if not (_COLORS[photometric] <= samples <= _MAX_SAMPLES and 1 <= bits <= 64):
        raise ImageError(f"a TIFF of {samples} samples of {bits} bits, which make no picture")
    planes = 1 if directory.value(PLANAR, 1) == 2 else samples
    check_cost(*directory.size, bytes_per_pixel=planes * bits / 8 + 4)
    return _composed(_to_bytes(data, directory), directory)


def _composed(channels: np.ndarray, directory: Directory) -> "np.ndarray | Image":
    """Make colors on white of uint8 [height, width, channels]."""
    photometric, colors = directory.value(PHOTOMETRIC), _COLORS[directory.value(PHOTOMETRIC)]
    if photometric == _CMYK:
        from PIL import Image

        return Image.fromarray(np.ascontiguousarray(channels[:, :, :4]), "CMYK")
    shown = channels[:, :, :colors]
    if photometric == _WHITE_IS_ZERO:
        shown = 255 - shown
    kind = directory.value(EXTRA, 2 if directory.samples == 4 and colors == 3 else 0)
    if channels.shape[2] > colors and kind in (1, 2):
        alpha = channels[:, :, colors : colors + 1].astype(np.uint16)
        weighed = shown * alpha if kind == 2 else np.minimum(shown, alpha) * np.uint16(255)
        shown = ((weighed + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.repeat(shown, 3, axis=2) if colors == 1 else np.ascontiguousarray(shown)


def _to_bytes(data: bytes, directory: Directory) -> np.ndarray:
    """Return the samples that matter reduced to 8 bits, [height, width, channels]."""
    height, width = directory.size
    apart = directory.value(PLANAR, 1) == 2
    wanted = min(directory.samples, _COLORS[directory.value(PHOTOMETRIC)] + 1)
    result = np.empty((height, width, wanted), np.uint8)
    highest = 0
    for plane in range(wanted if apart else 1):
        one = _plane(directory, plane) if apart else directory
        for band in _bands(one):
            rows = np.asarray(_image_of_bytes(data, one, band))
            end = band.top + band.rows
            target = result[band.top : end, :, plane : plane + 1] if apart else result[band.top : end]
            numbers = _numbers(_without_prediction(rows, one), one)
            target[:], high = _reduced(numbers[:, :, : target.shape[2]], directory.bits)
            highest = max(highest, high)
    _check_brightness(highest, directory)
    return result


def _plane(directory: Directory, plane: int) -> Directory:
    """Return a directory of one of the planes that are stored one after the other."""
    entries = dict(directory.entries)
    for tag in (STRIPS, STRIP_SIZES, TILES, TILE_SIZES):
        if values := directory.values(tag):
            count = len(values) // directory.samples
            part = values[plane * count : (plane + 1) * count]
            entries[tag] = Entry(4, len(part), struct.pack(f"{directory.order}{len(part)}I", *part))
    entries[SAMPLES] = Entry(3, 1, struct.pack(directory.order + "H", 1))
    entries[BITS] = Entry(3, 1, struct.pack(directory.order + "H", directory.bits))
    return replace(directory, entries=entries)


@dataclass(frozen=True, slots=True)
class _Band:
    """Some rows of a picture: no more are unpacked at once."""

    top: int
    rows: int
    rows_per_strip: int
    places: tuple[tuple[int, int], ...]  # (offset, size) of the strips or tiles that they are in


def _bands(directory: Directory) -> Iterator[_Band]:
    (height, width), row = directory.size, _bytes_of_row(directory)
    tile = directory.value(TILE_WIDTH)
    per = directory.value(TILE_HEIGHT) if tile else min(directory.value(ROWS_PER_STRIP, height), height)
    if per < 1:
        raise ImageError("a TIFF of strips without rows: damaged")
    across = -(-width // tile) if tile else 1
    offsets = directory.values(TILES if tile else STRIPS)
    sizes = directory.values(TILE_SIZES if tile else STRIP_SIZES, (per * row,) * len(offsets))
    places = tuple(zip(offsets, sizes, strict=False))
    if len(places) < -(-height // per) * across:
        raise ImageError("truncated TIFF: parts of the picture are missing")
    if directory.value(COMPRESSION, 1) == 1 and not tile and per * row > _BAND_BYTES:
        few = max(1, _BAND_BYTES // row)
        for top in range(0, height, per):
            for first in range(top, min(top + per, height), few):
                rows = min(few, top + per - first, height - first)
                yield _Band(first, rows, rows, ((places[top // per][0] + (first - top) * row, rows * row),))
        return
    together = max(1, _BAND_BYTES // (row * per))
    for index in range(0, -(-height // per), together):
        rows = min(together * per, height - index * per)
        yield _Band(index * per, rows, per, places[index * across : (index + together) * across])


def _image_of_bytes(data: bytes, directory: Directory, band: _Band) -> "Image":
    """Return the unpacked bytes of some rows by having them read as a gray picture, [rows, bytes]."""
    from io import BytesIO

    from PIL.TiffImagePlugin import TiffImageFile

    tile = _bytes_of_tile(directory)
    changes: dict[int, int | tuple[int, ...]] = {HEIGHT: band.rows, BITS: 8, SAMPLES: 1, FORMAT: 1}
    changes |= {WIDTH: _bytes_of_row(directory), PHOTOMETRIC: _BLACK_IS_ZERO, PREDICTOR: 1, PLANAR: 1}
    changes |= {EXTRA: (), COLOR_MAP: (), COMPRESSION: directory.value(COMPRESSION, 1)}
    body = b"".join((bytes(8), *(data[offset : offset + size] for offset, size in band.places)))
    sizes = tuple(size for _, size in band.places)
    starts = tuple(accumulate(sizes[:-1], initial=8))  # behind the header
    changes |= {TILES if tile else STRIPS: starts, TILE_SIZES if tile else STRIP_SIZES: sizes}
    changes |= {TILE_WIDTH: tile} if tile else {ROWS_PER_STRIP: band.rows_per_strip}
    silence_libtiff()
    try:
        image = TiffImageFile(BytesIO(rewritten(body, directory, changes)))
        image.load()
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them trip over
        raise ImageError(f"truncated or damaged TIFF ({error})") from error
    return image


def _bytes_of_row(directory: Directory) -> int:
    return -(-directory.size[1] * directory.samples * directory.bits // 8)


def _bytes_of_tile(directory: Directory) -> int:
    return directory.value(TILE_WIDTH) * directory.samples * directory.bits // 8


@cache
def silence_libtiff() -> None:
    """Have libtiff print nothing of damage: it would name no file, and Pillow raises an error as well."""
    from PIL import _imaging  # type: ignore[attr-defined]

    with suppress(OSError, AttributeError):  # another build of Pillow, where libtiff is not to be found
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _without_prediction(rows: np.ndarray, directory: Directory) -> np.ndarray:
    """Undo the differences between neighbors that were stored: TIFF 6 section 14, and Adobe's note 3 for floats."""
    predictor = directory.value(PREDICTOR, 1)
    if predictor == 1:
        return rows
    bits, samples = directory.bits, directory.samples
    if predictor not in (2, 3) or bits not in (8, 16, 32, 64):
        raise ImageError(f"a TIFF of {bits} bits a sample with predictor {predictor}: save it with 8 bits")
    rows, block = rows.copy(), _bytes_of_tile(directory) or rows.shape[1]
    for left in range(0, rows.shape[1], block):
        part = rows[:, left : left + block]
        if predictor == 2:
            numbers = np.ascontiguousarray(part).view(f"{directory.order}u{bits // 8}")
            sums = np.cumsum(numbers.reshape(len(rows), -1, samples), axis=1, dtype=f"u{bits // 8}")
            rows[:, left : left + block] = sums.astype(numbers.dtype).reshape(len(rows), -1).view(np.uint8)
        else:  # the bytes of all numbers, most significant ones first, were put together, then their differences taken
            sums = np.cumsum(part.reshape(len(rows), -1, samples), axis=1, dtype=np.uint8)
            apart = sums.reshape(len(rows), bits // 8, -1).transpose(0, 2, 1)
            ordered = apart if directory.order == ">" else apart[:, :, ::-1]
            rows[:, left : left + block] = ordered.reshape(len(rows), -1)
    return rows


def _numbers(rows: np.ndarray, directory: Directory) -> np.ndarray:
    """Return the samples [rows, width, samples] as floats in [0, 1] or as unsigned integers."""
    bits, samples, width = directory.bits, directory.samples, directory.size[1]
    if directory.value(FORMAT, _UNSIGNED) == _FLOAT:
        if bits not in (16, 32, 64):
            raise ImageError(f"a TIFF of {bits}-bit floating-point samples: save it as 8 bits")
        return np.ascontiguousarray(rows).view(f"{directory.order}f{bits // 8}").reshape(len(rows), width, samples)
    if bits in (8, 16, 32, 64):
        return np.ascontiguousarray(rows).view(f"{directory.order}u{bits // 8}").reshape(len(rows), width, samples)
    if bits % 8 == 0:
        single = rows.reshape(len(rows), width, samples, bits // 8).astype(np.uint64)
        places = np.arange(bits // 8) if directory.order == "<" else np.arange(bits // 8)[::-1]
        return single @ (np.uint64(1) << (8 * places).astype(np.uint64))
    single = np.unpackbits(rows, axis=1)[:, : width * samples * bits].reshape(len(rows), width, samples, bits)
    weights = (1 << np.arange(bits - 1, -1, -1, dtype=np.uint64)).astype(np.uint32 if bits <= 32 else np.uint64)
    return single @ weights


def _reduced(numbers: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Return the upper 8 bits, and the highest number there was."""
    if numbers.dtype.kind == "f":
        low, high = float(numbers.min()), float(numbers.max())
        if not (low >= 0 and high <= 1):
            raise ImageError(
                f"floating-point pixels from {low:g} to {high:g}; only 0 to 1 has one meaning, save it as 8 bits"
            )
        return (numbers * 255 + 0.5).astype(np.uint8), 1
    high = int(numbers.max())
    if bits < 8:
        return (numbers * 255 // (2**bits - 1)).astype(np.uint8), high
    return (numbers >> (bits - 8)).astype(np.uint8), high


def _check_brightness(highest: int, directory: Directory) -> None:
    """Refuse numbers that were plainly not meant to fill the file's depth: they would show black."""
    bits = directory.bits
    if directory.value(FORMAT, _UNSIGNED) == _FLOAT or bits <= 8 or not highest:
        return
    least = 1 << (bits - 1) if bits > 16 else 1 << (bits - 8)
    if highest < least:
        raise ImageError(
            f"{bits}-bit samples that go no higher than {highest} of {2**bits - 1} and would show black; the file does "
            "not say what is white: save it as 8 bits"
        )
