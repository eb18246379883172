"""PNG before Pillow reads it: the chunks that make the picture, and what the others say of orientation and color.

Comments, metadata and profiles of any length, broken ones too, are no reason to refuse a picture, and the frames of an
animation after the first are not wanted. So Pillow gets none of them.
"""

import zlib
from dataclasses import dataclass

from mobilenet_hub.images.content import PNG_START
from mobilenet_hub.images.orientation import orientation_of

_DRAWN = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"])
_END_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
_MAX_TEXT = 1 << 24  # bytes of one unpacked text or profile that are looked at
_RAW_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")
_RAW_XMP = b"Raw profile type xmp"
_XMP = b"XML:com.adobe.xmp"


@dataclass(frozen=True, slots=True)
class PngParts:
    """A PNG file taken apart."""

    bare: bytes  # the file with nothing but the picture
    orientation: int  # 1 (upright) to 8
    icc: bytes  # the color profile, empty where there is none
    size: tuple[int, int]  # (height, width)


def take_apart(data: bytes) -> PngParts:
    """Return the parts of a PNG file; of a damaged one what there is before the damage.

    Example:
        >>> take_apart(PNG_START).size
        (0, 0)
    """
    position, exif, xmp, icc, ended = len(PNG_START), [], [], b"", False
    drawn: list[bytes | memoryview] = [PNG_START]
    view = memoryview(data)
    while position + 8 <= len(data) and not ended:
        kind = bytes(view[position + 4 : position + 8])
        end = position + 12 + int.from_bytes(view[position : position + 4])
        if kind in _DRAWN:
            drawn.append(view[position:end])
            ended = kind == b"IEND"
        elif kind == b"eXIf":
            exif.append(bytes(view[position + 8 : end - 4]))
        elif kind == b"iCCP":
            icc = icc or _unpacked(bytes(view[position + 8 : end - 4]).partition(b"\0")[2][1:])
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            _read_text(kind, view[position + 8 : end - 4], exif, xmp)
        position = end
    if not ended and position == len(data):  # nothing but the end is missing
        drawn.append(_END_CHUNK)
    header = data[16:24]
    size = int.from_bytes(header[4:]), int.from_bytes(header[:4])
    return PngParts(b"".join(drawn), orientation_of(exif, xmp), icc, size)


def _read_text(kind: bytes, body: memoryview, exif: list[bytes], xmp: list[bytes]) -> None:
    """Add the text to the EXIF blocks or the XMP packets if it is one."""
    key, _, text = bytes(body[:80]).partition(b"\0")
    if key not in (*_RAW_EXIF, _RAW_XMP, _XMP):
        return
    text = bytes(body[len(key) + 1 :])
    if kind == b"zTXt":
        text = _unpacked(text[1:])
    elif kind == b"iTXt":  # compressed or not, method, language, translated key, text
        packed, text = text[:1] == b"\1", text[2:].partition(b"\0")[2].partition(b"\0")[2]
        text = _unpacked(text) if packed else text
    if key == _XMP:
        xmp.append(text)
        return
    try:  # as ImageMagick writes it: a line with the kind, one with the length, hexadecimal digits
        raw = bytes.fromhex("".join(text.decode("latin-1").strip().split("\n")[2:]))
    except ValueError:
        return
    (xmp if key == _RAW_XMP else exif).append(raw)


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_TEXT)
    except zlib.error:
        return b""
