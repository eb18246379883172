"""JPEG through libjpeg-turbo: the header, the scale at which decoding is cheapest, the pixels.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the work; most photos are far larger than the
network's input.
"""

from dataclasses import dataclass

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.images.content import JPEG_START
from mobilenet_hub.images.orientation import orientation_of

# Eighths. libjpeg-turbo scales to any eighth, but only these have vector code: 5/8 to 7/8 cost more than the whole.
_SCALES = (1, 2, 4, 8)
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF markers; those three are tables, reserved
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length: TEM, RSTn, SOI
_END, _SCAN, _APP0, _APP1, _PROFILE, _ADOBE, _APP15, _COMMENT = 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_END_MARKER = b"\xff\xd9"
# Every scan goes over every block of the picture, even where it holds nothing: 15 ns a block. Cameras, sites and
# programs make 3 to 20 scans; this allows twice that for the largest picture, thousands for a small one, and takes less
# than a second beside the decoding of the largest picture.
MAX_SCANNED_PIXELS = 1 << 32
MAX_SCANS = 4096
# What libjpeg says where the compressed data stops or breaks before the picture is whole.
_DAMAGE = ("premature end", "bad huffman code", "bad arithmetic code")
_ENDED = "premature end of jpeg file"


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What stands before the compressed data."""

    height: int  # as stored, before `orientation` is applied
    width: int
    components: int  # 1 gray, 3 color, 4 CMYK or YCCK
    buffered: bool  # progressive, or one scan for each component: all coefficients are held at once
    orientation: int  # 1 (upright) to 8
    scans_at: int  # where the first scan's marker is
    stray: bool  # bytes between the segments that belong to none
    segments: tuple[tuple[int, int, int], ...]  # (marker, start, end) of each segment, with its marker
    icc: tuple[tuple[int, int], ...]  # where the parts of the color profile are

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
    """Read size, kind and orientation from the markers before the first scan; bytes between them are passed over.

    Raises:
        ImageError: the markers end before a frame header, or the picture is coded as no browser reads it.
    """
    position, frame, interleaved, stray = 2, None, True, False
    exif, xmp, icc, segments = [], [], [], []
    while position + 4 <= len(data):
        if data[position] != 0xFF or not data[position + 1]:
            stray, position = True, _next_marker(data, position + 1)
            continue
        marker = data[position + 1]
        if marker == 0xFF or marker in _ALONE:  # a fill byte, or a marker without a body
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _END:
            break
        start, end = position + 4, position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4]))
        if marker == _SCAN:
            interleaved = frame is None or data[start : start + 1] == bytes([frame[2]])
            break
        segments.append((marker, position, end))
        if marker == _APP1:
            body = data[start:end]
            (exif if body.startswith(_EXIF) else xmp).append(body)
        elif marker == _PROFILE and data.startswith(_ICC, start):
            icc.append((start + len(_ICC) + 2, end))
        elif marker in _FRAMES and len(body := data[start:end]) >= 6:
            frame = _frame(body, marker)
        position = end
    if frame is None:
        raise ImageError("truncated JPEG: the file ends before the picture's size")
    height, width, components, progressive = frame
    orientation = orientation_of(exif, xmp)
    buffered = progressive or not interleaved
    return JpegHeader(
        height, width, components, buffered, orientation, position, stray, tuple(segments), tuple(icc)
    )  # fmt: skip


def _next_marker(data: bytes, position: int) -> int:
    found = data.find(b"\xff", position)
    return found if found >= 0 else len(data)


def _frame(body: bytes, marker: int) -> tuple[int, int, int, bool]:
    if body[0] != 8:
        raise ImageError(f"a JPEG of {body[0]} bits a sample, which this library does not read: save it with 8")
    if marker in _HIERARCHICAL:
        raise ImageError("a hierarchical JPEG, a kind that hardly any program reads: save it as an ordinary one")
    height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    return height, width, body[5], marker in _PROGRESSIVE


def is_lossless(header: JpegHeader) -> bool:
    """Tell whether the file is of JPEG's rare lossless kind."""
    return any(marker in _LOSSLESS for marker, _, _ in header.segments)


def check_scans(data: bytes, header: JpegHeader) -> None:
    """Refuse a file that would take minutes: thousands of scans over a large picture.

    Raises:
        ImageError: more scans than a picture of this size may have.
    """
    if not header.buffered:
        return  # libjpeg takes one scan and no more
    allowed = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, header.height * header.width))
    scans, position = 0, header.scans_at
    while position >= 0 and scans <= allowed:
        scans, position = scans + 1, data.find(b"\xff\xda", position + 2)
    if scans > allowed:
        raise ImageError(
            f"a progressive JPEG of {header.width} x {header.height} pixels in more than {allowed} scans; not decoded, "
            "lest a small file take minutes: save it anew"
        )


def color_profile(data: bytes, header: JpegHeader) -> bytes:
    """Return the embedded ICC profile, empty where there is none."""
    return b"".join(data[start:end] for start, end in header.icc)


def bare(data: bytes, header: JpegHeader) -> bytes:
    """Return the file without metadata and stray bytes: nothing left that could mislead who decodes it."""
    kept = (
        data[start:end]
        for marker, start, end in header.segments
        if marker == _ADOBE or not (_APP0 <= marker <= _APP15 or marker == _COMMENT)
    )
    return b"".join((JPEG_START, *kept, data[header.scans_at :]))


def decode(
    data: bytes, header: JpegHeader, min_size: tuple[int, int] | None, *, fast_dct: bool = False
) -> np.ndarray | None:
    """Return pixels as stored, uint8 [height, width, 3] of RGB or [height, width, 4] of CMYK, 0 being no ink.

    None where libjpeg-turbo leaves it to a gentler reader.

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
    inks = header.components == 4
    try:
        pixels = simplejpeg.decode_jpeg(
            data, "CMYK" if inks else "RGB", fastdct=fast_dct, min_height=height, min_width=width
        )
        return (
            np.subtract(255, pixels, out=pixels) if inks else pixels
        )  # Adobe's programs, and all after them, store them inverted
    except ValueError as error:
        reason = str(error)
    if _ENDED in reason.lower() and not data.endswith(_END_MARKER) and _is_whole(data, header):
        return decode(data + _END_MARKER, header, min_size, fast_dct=fast_dct)  # lacks perhaps its end marker only
    if any(damage in reason.lower() for damage in _DAMAGE):
        raise ImageError(f"truncated or damaged JPEG ({reason})")
    return None  # e.g. extraneous bytes before a marker: every viewer shows such a photo, so Pillow decides


def _is_whole(data: bytes, header: JpegHeader) -> bool:
    """Tell whether the scans that are there give every coefficient its last bit.

    A progressive file that is cut between two scans is a valid one, of a blurred picture, but for its end marker.
    """
    if not header.buffered:
        return True
    missing: dict[int, set[int]] = {}
    position, seen = header.scans_at, set()
    while position >= 0:
        count = int.from_bytes(data[position + 4 : position + 5])
        spectrum = data[position + 5 + 2 * count : position + 8 + 2 * count]
        if len(spectrum) < 3:
            return False
        for component in data[position + 5 : position + 5 + 2 * count : 2]:
            left = missing.setdefault(component, set(range(64)))
            if not spectrum[2] & 15:  # Al: the lowest bit that this scan gives
                left -= set(range(spectrum[0], spectrum[1] + 1))
            seen.add(component)
        position = data.find(b"\xff\xda", position + 2)
    return len(seen) == header.components and not any(missing.values())
