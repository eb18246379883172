"""Which way up a picture is: EXIF's orientation, or XMP's where EXIF has none, read the same for every format.

Only this one value is looked for, and whatever else in the metadata is mistyped or broken does not matter.
"""

import re
from collections.abc import Iterable

import numpy as np

_EXIF = b"Exif\0\0"
_TAG = b"\x01\x12"
_LONG = 4  # the type of a 32-bit value; an orientation is of 16 bits as a rule
_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\s*["'<]""")


def orientation_of(exif: Iterable[bytes], xmp: Iterable[bytes] = ()) -> int:
    """Return the orientation, 1 (upright) to 8: of the first block of EXIF, else of XMP, that has one; else 1.

    Args:
        exif: blocks as they are found in files, with or without one or more heads "Exif".
        xmp: packets, of which those in UTF-8 are understood.

    Example:
        >>> orientation_of([b"broken"], [b'<rdf:Description tiff:Orientation="6"/>'])
        6
    """
    found = (value for block in exif if (value := _from_exif(block)))
    found_in_xmp = (int(match[1]) for packet in xmp if (match := _XMP.search(packet)))
    return next(found, 0) or next(found_in_xmp, 0) or 1


def _from_exif(block: bytes) -> int:
    """Return 1 to 8, or 0 where there is no orientation that makes sense."""
    while block.startswith(_EXIF):
        block = block[len(_EXIF) :]
    order = "little" if block[:2] == b"II" else "big"
    tag = _TAG[::-1] if order == "little" else _TAG
    start = int.from_bytes(block[4:8], order)
    entries = int.from_bytes(block[start : start + 2], order)
    for entry in range(start + 2, min(start + 2 + 12 * entries, len(block) - 9), 12):
        if block[entry : entry + 2] == tag:
            size = 4 if int.from_bytes(block[entry + 2 : entry + 4], order) == _LONG else 2
            value = int.from_bytes(block[entry + 8 : entry + 8 + size], order)
            return value if 1 <= value <= 8 else 0
    return 0


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return [height, width, 3] pixels turned as EXIF's orientation (1 to 8) asks.

    Example:
        >>> upright(np.zeros((4, 6, 3), np.uint8), 6).shape
        (6, 4, 3)
    """
    turns = {3: 2, 6: -1, 8: 1, 4: 2, 5: -1, 7: 1}.get(orientation, 0)
    turned = np.rot90(pixels, turns)
    mirrored = turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned
    return np.ascontiguousarray(mirrored)
