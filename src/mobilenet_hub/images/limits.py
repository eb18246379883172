"""What one picture may cost: pixels in its header, memory while it is decoded, and with both its time.

Everything is asked of the header, before anything is allocated. docs/images.md has the measurements.
"""

from mobilenet_hub.errors import ImageError

MAX_PIXELS = 2**28  # 16,384 x 16,384: a picture that claims more is refused from its header
MAX_HELD_PIXELS = 2**28 // 3  # Pillow's own limit: more than this is never held decoded at once
MAX_FILE_BYTES = 2**29
TOO_LARGE = f"more than {MAX_FILE_BYTES >> 20} MiB, too large for a picture"
MAX_SECONDS = 30  # after which a picture that is decoded in a process of its own is given up
MAX_HELD_BYTES = 2**30  # while one picture is decoded, its file not counted
# Bytes a pixel at the worst moment, measured, where MAX_HELD_PIXELS of them would be more.
_BYTES_PER_PIXEL = {"WEBP": 20, "AVIF": 20, "HEIF": 20, "JPEG2000": 44, "JXL": 24}
# Codecs that are written in Python take up to a microsecond for a sample, some channel by channel.
_SLOW_CODECS = frozenset(
    ["ppm_plain", "qoi", "bmp_rle", "MSP", "SGI16", "fits_gzip", "BLP1", "BLP2", "dds_rgb", "DXT1", "BCn"]
)
_MAX_SLOW_PIXELS = 2**22


def check_cost(
    height: int, width: int, kind: str = "", codec: str = "", held: int | None = None, bytes_per_pixel: float = 1
) -> None:
    """Refuse a picture that would take too much memory or time.

    Args:
        height: in pixels, as the header claims.
        width: likewise.
        kind: Pillow's name of the format.
        codec: Pillow's name of the decoder.
        held: how many pixels are decoded at once; None: all.
        bytes_per_pixel: that are held of each.

    Raises:
        ImageError: it has no pixels, or more than the limit.

    Example:
        >>> check_cost(3000, 4000)
    """
    if height <= 0 or width <= 0:
        raise ImageError(f"a picture of {width} x {height} pixels has nothing in it")
    limit = min(MAX_HELD_PIXELS, int(MAX_HELD_BYTES / _BYTES_PER_PIXEL.get(kind, bytes_per_pixel)))
    if codec in _SLOW_CODECS:
        limit = _MAX_SLOW_PIXELS
    held = height * width if held is None else held
    if height * width > MAX_PIXELS or held > limit:
        limit = MAX_PIXELS if height * width > MAX_PIXELS else limit
        raise ImageError(
            f"{width} x {height} pixels are more than the limit of {limit / 1e6:.0f} million; not decoded, lest a "
            "small file fill the memory: reduce the picture first"
        )
