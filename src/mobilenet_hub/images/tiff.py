"""TIFF before and instead of Pillow: the directory of the first picture, and every depth that Pillow gets wrong.

Pillow reads 8 bits a channel well, and these it is left, with a directory that holds nothing but what it needs: wrong
entries, BigTIFF and byte order cannot mislead it. Of other depths (10, 12, 16, 32 bits, planes apart, white as zero,
floats) it reads some, some black, some inverted, some scrambled. For these the file is presented to it as what it is to
its codecs, rows of bytes, and the numbers are made of the bytes here.
"""

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.images.orientation import orientation_of

if TYPE_CHECKING:
    from PIL.Image import Image

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BIG = 43  # the version of BigTIFF
_STRUCT = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SIZES = {5: 8, 10: 8, 11: 4, 12: 8} | {kind: struct.calcsize("=" + code) for kind, code in _STRUCT.items()}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES = 273, 274, 277, 278, 279
_PLANAR, _PREDICTOR, _TILE_WIDTH, _TILES, _TILE_SIZES = 284, 317, 322, 324, 325
_EXTRA, _FORMAT, _XMP, _ICC = 338, 339, 700, 34675
# Also the tables of compressions (CCITT's, JPEG's) and of colors; what is not here, Pillow does not see.
_NEEDED = frozenset(
    (
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _SAMPLES, _ROWS_PER_STRIP),
        *(_STRIP_SIZES, _PLANAR, 292, 293, _PREDICTOR, 320, _TILE_WIDTH, 323, _TILES, _TILE_SIZES, 332, _EXTRA),
        *(_FORMAT, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
    )
)
_BYTEWISE = frozenset(
    [1, 5, 8, 32773, 32946, 34925, 50000]
)  # compressions that know bytes only: none, LZW, deflate, ...
_COMPRESSIONS = {6: "old JPEG", 7: "JPEG", 34676: "LogLuv", 34677: "LogLuv", 34712: "JPEG 2000", 50001: "WebP"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}
_KINDS = {3: "palette", 4: "mask", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab", 32803: "camera sensor", 34892: "raw"}
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_MAX_SAMPLES = 64
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: int
    count: int
    raw: bytes


@dataclass(frozen=True)
class Directory:
    """The first directory of a TIFF file: what its first picture is and where it lies."""

    order: str  # "<" or ">"
    entries: dict[int, _Entry]

    def values(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the whole numbers of an entry."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _STRUCT:
            return default
        return struct.unpack(f"{self.order}{entry.count}{_STRUCT[entry.kind]}", entry.raw) or default

    def value(self, tag: int, default: int = 0) -> int:
        """Return the first number of an entry."""
        return self.values(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as stored."""
        return self.value(_HEIGHT), self.value(_WIDTH)

    @property
    def orientation(self) -> int:
        """1 (upright) to 8."""
        own = self.value(_ORIENTATION)
        return own if 1 <= own <= 8 else orientation_of([], [self.raw(_XMP)])

    @property
    def icc(self) -> bytes:
        """The color profile, empty where there is none."""
        return self.raw(_ICC)

    def raw(self, tag: int) -> bytes:
        """Return the bytes of an entry, empty where there is none."""
        return self.entries[tag].raw if tag in self.entries else b""

    @property
    def samples(self) -> int:
        """Channels of a pixel, alpha and what else there is included."""
        return self.value(_SAMPLES, max(1, len(self.values(_BITS))))

    @property
    def bits(self) -> int:
        """Bits of a sample.

        Raises:
            ImageError: not the same number for each.
        """
        found = set(self.values(_BITS, (1,))[: self.samples])
        if len(found) > 1:
            raise ImageError(f"a TIFF with channels of {', '.join(map(str, sorted(found)))} bits: save it with 8 bits")
        return found.pop()


def read_directory(data: bytes) -> Directory:
    """Read the first directory.

    Raises:
        ImageError: the file ends before it, or it makes no sense.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = _BIG in data[2:4]
    try:
        at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        first, step, inline = (at + 8, 20, 8) if big else (at + 2, 12, 4)
        entries = {}
        for position in range(first, min(first + step * count, len(data) - step + 1), step):
            tag, kind, length = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, position)
            size = length * _SIZES.get(kind, 0)
            place = position + step - inline
            if size > inline:
                place = struct.unpack_from(order + ("Q" if big else "I"), data, place)[0]
            if size and place + size <= len(data):
                entries.setdefault(tag, _Entry(kind, length, data[place : place + size]))
    except struct.error:
        raise ImageError("truncated TIFF: the file ends before its directory") from None
    directory = Directory(order, entries)
    if not all(directory.size):
        raise ImageError("a TIFF without a picture's size, or cut off before it")
    return directory


def rewritten(data: bytes, directory: Directory, changes: dict[int, int | tuple[int, ...]] | None = None) -> bytes:
    """Return the file as classic TIFF with a directory of what its decoding needs, with changes, and nothing else."""
    kept: dict[int, tuple[int, ...]] = {tag: directory.values(tag) for tag in directory.entries if tag in _NEEDED}
    kept |= {tag: value if isinstance(value, tuple) else (value,) for tag, value in (changes or {}).items()}
    order, at = directory.order, len(data) + len(data) % 2
    kept = {tag: values for tag, values in sorted(kept.items()) if values}
    extra_at, table, extra = at + 2 + 12 * len(kept) + 4, b"", b""
    for tag, values in kept.items():
        entry = directory.entries.get(tag)
        kind = entry.kind if entry and entry.kind in (1, 2, 3, 7) and tag not in (changes or {}) else 4
        packed = struct.pack(f"{order}{len(values)}{_STRUCT[kind]}", *values)
        if len(packed) > 4:
            place, extra = struct.pack(order + "I", extra_at + len(extra)), extra + packed + bytes(len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        table += struct.pack(order + "HHI", tag, kind, len(values)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    end = struct.pack(order + "H", len(kept)) + table + bytes(4) + extra
    return b"".join((head, memoryview(data)[8:], bytes(len(data) % 2), end))


def is_for_pillow(directory: Directory) -> bool:
    """Tell whether Pillow reads the picture's samples rightly."""
    photometric, bits, samples = directory.value(_PHOTOMETRIC), directory.bits, directory.samples
    if photometric not in _COLORS:
        return bits <= 8
    unsigned = set(directory.values(_FORMAT, (_UNSIGNED,))) <= {_UNSIGNED, _UNDEFINED}
    together = directory.value(_PLANAR, 1) == 1 or samples == 1 or directory.value(_COMPRESSION, 1) not in _BYTEWISE
    alpha = photometric == _RGB and samples == 4
    plain = bits == 8 and (samples == _COLORS[photometric] or alpha)
    return unsigned and together and (plain or (samples == 1 and bits in (1, 2, 4)))


def read_samples(data: bytes, directory: Directory) -> "np.ndarray | Image":
    """Return the picture as stored, uint8 [height, width, 3], on white; a Pillow image where it is CMYK.

    Raises:
        ImageError: samples whose meaning the file does not say, or a compression that is not read at this depth.
    """
    bits, samples, photometric = directory.bits, directory.samples, directory.value(_PHOTOMETRIC)
    sample_format = directory.value(_FORMAT, _UNSIGNED)
    if photometric not in _COLORS:
        kind = _KINDS.get(photometric, f"kind {photometric}")
        raise ImageError(f"a TIFF of {bits}-bit {kind} samples, which this library does not read: save it as RGB")
    if sample_format not in (_UNSIGNED, _FLOAT, _UNDEFINED):
        what = "signed" if sample_format == _SIGNED else "complex"
        raise ImageError(
            f"a TIFF of {what} numbers: the file does not say which are black and white; save it as 8 bits"
        )
    if directory.value(_COMPRESSION, 1) not in _BYTEWISE:
        name = _COMPRESSIONS.get(directory.value(_COMPRESSION, 1), f"number {directory.value(_COMPRESSION)}")
        raise ImageError(f"a TIFF of {bits} bits a sample with compression {name}: save it with 8 bits")
    if not (_COLORS[photometric] <= samples <= _MAX_SAMPLES and 1 <= bits <= 64):
        raise ImageError(f"a TIFF of {samples} samples of {bits} bits, which make no picture")
    return _composed(_to_bytes(data, directory), directory)


def _composed(channels: np.ndarray, directory: Directory) -> "np.ndarray | Image":
    """Make colors on white of uint8 [height, width, channels]."""
    photometric, colors = directory.value(_PHOTOMETRIC), _COLORS[directory.value(_PHOTOMETRIC)]
    if photometric == _CMYK:
        from PIL import Image

        return Image.fromarray(np.ascontiguousarray(channels[:, :, :4]), "CMYK")
    shown = channels[:, :, :colors]
    if photometric == _WHITE_IS_ZERO:
        shown = 255 - shown
    kind = directory.value(_EXTRA, 2 if directory.samples == 4 and colors == 3 else 0)
    if channels.shape[2] > colors and kind in (1, 2):
        alpha = channels[:, :, colors : colors + 1].astype(np.uint16)
        weighed = shown * alpha if kind == 2 else np.minimum(shown, alpha) * np.uint16(255)
        shown = ((weighed + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.repeat(shown, 3, axis=2) if colors == 1 else np.ascontiguousarray(shown)


def _to_bytes(data: bytes, directory: Directory) -> np.ndarray:
    """Return the samples that matter reduced to 8 bits, [height, width, channels]."""
    height, width = directory.size
    apart = directory.value(_PLANAR, 1) == 2
    wanted = min(directory.samples, _COLORS[directory.value(_PHOTOMETRIC)] + 1)
    result = np.empty((height, width, wanted), np.uint8)
    highest = 0
    for plane in range(wanted if apart else 1):
        one = _plane(directory, plane) if apart else directory
        rows = _rows_of_bytes(data, one)
        for top in range(0, height, _ROWS_AT_ONCE):
            numbers = _numbers(rows[top : top + _ROWS_AT_ONCE], one)
            target = result[top : top + _ROWS_AT_ONCE, :, plane : plane + 1] if apart else result[top:][:_ROWS_AT_ONCE]
            target[:], high = _reduced(numbers[:, :, : target.shape[2]], directory.bits)
            highest = max(highest, high)
    _check_brightness(highest, directory)
    return result


def _plane(directory: Directory, plane: int) -> Directory:
    """Return a directory of one of the planes that are stored one after the other."""
    entries = dict(directory.entries)
    for tag in (_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES):
        if values := directory.values(tag):
            count = len(values) // directory.samples
            part = values[plane * count : (plane + 1) * count]
            entries[tag] = _Entry(4, len(part), struct.pack(f"{directory.order}{len(part)}I", *part))
    entries[_SAMPLES] = _Entry(3, 1, struct.pack(directory.order + "H", 1))
    entries[_BITS] = _Entry(3, 1, struct.pack(directory.order + "H", directory.bits))
    return replace(directory, entries=entries)


def _rows_of_bytes(data: bytes, directory: Directory) -> np.ndarray:
    """Return the unpacked bytes of all rows, uint8 [height, bytes], by having them read as a gray picture."""
    from io import BytesIO

    from PIL.TiffImagePlugin import TiffImageFile

    height, width = directory.size
    row = -(-width * directory.samples * directory.bits // 8)
    changes: dict[int, int | tuple[int, ...]] = {_WIDTH: row, _HEIGHT: height, _BITS: 8, _SAMPLES: 1, _FORMAT: 1}
    changes |= {_PHOTOMETRIC: _BLACK_IS_ZERO, _PREDICTOR: 1, _PLANAR: 1, _EXTRA: (), 320: ()}
    if tile := directory.value(_TILE_WIDTH):
        changes[_TILE_WIDTH] = tile = tile * directory.samples * directory.bits // 8
    changes.setdefault(_COMPRESSION, directory.value(_COMPRESSION, 1))
    try:
        image = TiffImageFile(BytesIO(rewritten(data, directory, changes)))
        image.load()
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them trip over
        raise ImageError(f"truncated or damaged TIFF ({error})") from error
    rows = np.asarray(image)
    predictor = directory.value(_PREDICTOR, 1)
    return rows if predictor == 1 else _without_prediction(rows, directory, predictor, tile or row)


def _without_prediction(rows: np.ndarray, directory: Directory, predictor: int, block: int) -> np.ndarray:
    """Undo the differences between neighbors that were stored: TIFF 6 section 14, and Adobe's note 3 for floats."""
    bits, samples = directory.bits, directory.samples
    if predictor not in (2, 3) or bits not in (8, 16, 32, 64):
        raise ImageError(f"a TIFF of {bits} bits a sample with predictor {predictor}: save it with 8 bits")
    rows = rows.copy()
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
    if directory.value(_FORMAT, _UNSIGNED) == _FLOAT:
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
    if directory.value(_FORMAT, _UNSIGNED) == _FLOAT or bits <= 8 or not highest:
        return
    least = 1 << (bits - 1) if bits > 16 else 1 << (bits - 8)
    if highest < least:
        raise ImageError(
            f"{bits}-bit samples that go no higher than {highest} of {2**bits - 1} and would show black; the file does "
            "not say what is white: save it as 8 bits"
        )
