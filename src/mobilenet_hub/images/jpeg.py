"""JPEG through libjpeg-turbo: the header, the scale at which decoding is cheapest, the upright pixels.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the work; most photos are far larger than the
network's input.
"""

from dataclasses import dataclass

import numpy as np

from mobilenet_hub.errors import ImageError

START = b"\xff\xd8\xff"
# Eighths. libjpeg-turbo scales to any eighth, but only these have vector code: 5/8 to 7/8 cost more than the whole.
_SCALES = (1, 2, 4, 8)
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF markers; those three are tables, reserved
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length: TEM, RSTn, SOI
_END, _SCAN, _EXIF = 0xD9, 0xDA, 0xE1
_ORIENTATION_TAG = b"\x01\x12"
_LONG = 4  # the type of a 32-bit value; an orientation is of 16 bits as a rule
# What libjpeg says where the compressed data stops or breaks before the picture is whole.
_DAMAGE = ("premature end", "bad huffman code", "bad arithmetic code")


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What stands before the compressed data."""

    height: int  # as stored, before `orientation` is applied
    width: int
    components: int  # 1 gray, 3 color, 4 CMYK or YCCK
    progressive: bool
    orientation: int  # EXIF's, 1 (upright) to 8

    @property
    def transposed(self) -> bool:
        """Whether the upright picture has height and width exchanged."""
        return self.orientation >= 5

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) as a person sees the picture."""
        return (self.width, self.height) if self.transposed else (self.height, self.width)

    def scaled_size(self, min_size: tuple[int, int] | None) -> tuple[int, int]:
        """Return the smallest cheap (height, width), as stored, whose upright size is at least `min_size`."""
        if min_size is None:
            return self.height, self.width
        least = min_size[::-1] if self.transposed else min_size
        for eighths in _SCALES:
            height, width = -(-self.height * eighths // 8), -(-self.width * eighths // 8)
            if height >= least[0] and width >= least[1]:
                return height, width
        return self.height, self.width


def read_header(data: bytes) -> JpegHeader:
    """Read size, kind and orientation from the markers before the first scan.

    Raises:
        ImageError: the markers end or break off before a frame header.
    """
    position, orientation, frame = 2, 1, None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise ImageError("damaged JPEG: no marker where one must be")
        marker = data[position + 1]
        if marker == 0xFF or marker in _ALONE:  # a fill byte, or a marker without a body
            position += 1 if marker == 0xFF else 2
            continue
        if marker in (_SCAN, _END):
            break
        body = data[position + 4 : position + 2 + int.from_bytes(data[position + 2 : position + 4])]
        if marker == _EXIF and orientation == 1:
            orientation = _exif_orientation(body)
        elif marker in _FRAMES and len(body) >= 6:
            height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
            frame = height, width, body[5], marker in _PROGRESSIVE
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4]))
    if frame is None:
        raise ImageError("truncated JPEG: the file ends before the picture's size")
    return JpegHeader(*frame, orientation)


def _exif_orientation(body: bytes) -> int:
    """Return the orientation in an APP1 segment's body; 1 where there is none or it makes no sense."""
    if not body.startswith(b"Exif\0\0"):
        return 1
    tiff = body[6:]
    order = "little" if tiff[:2] == b"II" else "big"
    tag = _ORIENTATION_TAG[::-1] if order == "little" else _ORIENTATION_TAG
    start = int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(tiff[start : start + 2], order)
    for entry in range(start + 2, min(start + 2 + 12 * entries, len(tiff) - 11), 12):
        if tiff[entry : entry + 2] == tag:
            size = 4 if int.from_bytes(tiff[entry + 2 : entry + 4], order) == _LONG else 2
            value = int.from_bytes(tiff[entry + 8 : entry + 8 + size], order)
            return value if 1 <= value <= 8 else 1
    return 1


def decode(
    data: bytes, header: JpegHeader, min_size: tuple[int, int] | None, *, fast_dct: bool = False
) -> np.ndarray | None:
    """Return upright RGB pixels, uint8 [height, width, 3], or None where libjpeg-turbo leaves it to a gentler reader.

    Args:
        data: the file.
        header: of the file.
        min_size: (height, width) that suffices; None: the whole.
        fast_dct: take the less exact transform, which TensorFlow's decoder takes.

    Raises:
        ImageError: the compressed data ends or breaks before the picture is whole; no half-gray picture comes back.
    """
    import simplejpeg

    height, width = header.scaled_size(min_size)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=fast_dct, min_height=height, min_width=width)
    except ValueError as error:
        if any(damage in str(error).lower() for damage in _DAMAGE):
            raise ImageError(f"truncated or damaged JPEG ({error})") from None
        return None  # e.g. extraneous bytes before a marker: every viewer shows such a photo, so Pillow decides
    return upright(pixels, header.orientation)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return [height, width, 3] pixels turned as EXIF's orientation (1 to 8) asks."""
    turns = {3: 2, 6: -1, 8: 1, 4: 2, 5: -1, 7: 1}.get(orientation, 0)
    turned = np.rot90(pixels, turns)
    mirrored = turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned
    return np.ascontiguousarray(mirrored)
