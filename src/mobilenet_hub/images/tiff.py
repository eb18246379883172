"""TIFF before Pillow: the directory of the first picture, and the file with nothing in it that could mislead.

Pillow reads 8 bits a channel well, and these it is left, with a directory that holds nothing but what it needs: wrong
entries, BigTIFF and byte order do not matter then. Everything else is tiff_samples.py's.
"""

import struct
from dataclasses import dataclass

from mobilenet_hub.errors import ImageError
from mobilenet_hub.images.orientation import orientation_of

_BIG = 43  # the version of BigTIFF
_STRUCT = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SIZES = {5: 8, 10: 8, 11: 4, 12: 8} | {kind: struct.calcsize("=" + code) for kind, code in _STRUCT.items()}
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, _ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_SIZES = 273, 274, 277, 278, 279
PLANAR, PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_SIZES = 284, 317, 320, 322, 323, 324, 325
EXTRA, FORMAT, _XMP, _ICC = 338, 339, 700, 34675
# CCITT's and JPEG's options and tables, and how colors are meant.
_TABLES = (292, 293, 332, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532)
_NEEDED = frozenset(
    [
        *(WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, _FILL_ORDER, SAMPLES, PLANAR, PREDICTOR, COLOR_MAP, EXTRA),
        *(FORMAT, STRIPS, ROWS_PER_STRIP, STRIP_SIZES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_SIZES, *_TABLES),
    ]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory, its values as bytes."""

    kind: int
    count: int
    raw: bytes


@dataclass(frozen=True)
class Directory:
    """The first directory of a TIFF file: what its first picture is and where it lies."""

    order: str  # "<" or ">"
    entries: dict[int, Entry]

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
        return self.value(HEIGHT), self.value(WIDTH)

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
        return self.value(SAMPLES, max(1, len(self.values(BITS))))

    @property
    def bits(self) -> int:
        """Bits of a sample.

        Raises:
            ImageError: not the same number for each.
        """
        found = set(self.values(BITS, (1,))[: self.samples])
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
                entries.setdefault(tag, Entry(kind, length, data[place : place + size]))
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
