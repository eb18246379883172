"""Photos to batches: decode anything that a person would call a picture, fit it to the network's input.

JPEG goes through libjpeg-turbo at the cheapest sufficient scale, everything else through Pillow. Color profiles are
not applied, as in the pipelines that the published modules were trained with.
"""

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images import jpeg

if TYPE_CHECKING:
    from PIL.Image import Image


MAX_PIXELS = 2**28  # 16,384 x 16,384: a picture that claims more is refused from its header
MAX_HELD_PIXELS = 2**28 // 3  # Pillow's own limit: more than this is never held decoded at once
MAX_FILE_BYTES = 2**29
TOO_LARGE = f"more than {MAX_FILE_BYTES >> 20} MiB, too large for a picture"
_STRIP_PIXELS = 1 << 20
_CANVAS = 255  # transparent parts show white, as on a page


def decode_image(source: Any, *, min_size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode one picture to upright RGB pixels, uint8 [height, width, 3].

    EXIF orientation is applied, transparency composited on white, CMYK and palettes converted, 16 bits reduced to
    their upper 8; of an animation the first frame counts.

    Args:
        source: a path, the bytes of a file, a PIL image, or a uint8 array [h, w], [h, w, 1], [h, w, 3] or [h, w, 4].
        min_size: (height, width) that suffices: a JPEG may come back at 1/2, 1/4 or 1/8 of its size, never smaller.

    Raises:
        ImageError: it cannot be read as a picture; the text says why.
        InputError: `source` is of another type.

    Example:
        >>> decode_image(np.zeros((4, 6), np.uint8)).shape
        (4, 6, 3)
    """
    return decode_sized(source, min_size)[0]


def decode_sized(
    source: Any, min_size: tuple[int, int] | None = None, *, fast_dct: bool = False
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode as `decode_image` does, and return beside the pixels the full upright (height, width).

    With `fast_dct` JPEG goes through the less exact transform that TensorFlow's decoder takes.
    """
    if isinstance(source, np.ndarray):
        pixels = _from_array(source)
        return pixels, (pixels.shape[0], pixels.shape[1])
    if isinstance(source, str | os.PathLike):
        try:
            return _from_bytes(read_bytes(source), min_size, fast_dct)
        except ImageError as error:
            raise ImageError(error.reason, os.fspath(source)) from error.__cause__
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), min_size, fast_dct)
    if hasattr(source, "convert") and hasattr(source, "getbands"):
        return _from_pillow(source)
    raise InputError(
        f"{type(source).__name__} is not a picture; give a path, a file's bytes, a PIL image or a uint8 array [h, w, 3]"
    )


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a picture's file.

    Raises:
        ImageError: no such file, a folder, a device or pipe, no permission, or any other failure to read.
    """
    try:
        info = Path(path).stat()  # before opening: a pipe without a writer would wait for ever
        regular = stat.S_ISREG(info.st_mode) and info.st_size <= MAX_FILE_BYTES
        data = Path(path).read_bytes() if regular else None
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if data is not None:
        return data
    if stat.S_ISREG(info.st_mode):
        raise ImageError(TOO_LARGE)
    raise ImageError("a folder, not a picture" if stat.S_ISDIR(info.st_mode) else "not a regular file")


def _from_bytes(data: bytes, min_size: tuple[int, int] | None, fast_dct: bool) -> tuple[np.ndarray, tuple[int, int]]:
    if not data:
        raise ImageError("empty file (0 bytes)")
    if not data.startswith(jpeg.START):
        return _from_pillow(_open_with_pillow(data))
    header = jpeg.read_header(data)
    scaled = header.scaled_size(min_size)
    held = header.height * header.width if header.progressive else scaled[0] * scaled[1]
    _check_size(header.height, header.width, held)
    color = header.components in (1, 3)  # not CMYK
    pixels = jpeg.decode(data, header, min_size, fast_dct=fast_dct) if color else None
    return _from_pillow(_open_with_pillow(data)) if pixels is None else (pixels, header.upright_size)


def _check_size(height: int, width: int, held: int) -> None:
    if not height or not width:
        raise ImageError(f"a picture of {width} x {height} pixels has nothing in it")
    if height * width > MAX_PIXELS or held > MAX_HELD_PIXELS:
        limit = MAX_PIXELS if height * width > MAX_PIXELS else MAX_HELD_PIXELS
        raise ImageError(
            f"{width} x {height} pixels are more than the limit of {limit / 1e6:.0f} million; not decoded, lest a "
            "small file fill the memory: reduce the picture first"
        )


def _open_with_pillow(data: bytes) -> "Image":
    """Open lazily: only the header is read, and its size checked."""
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"more pixels than the limit of {MAX_HELD_PIXELS / 1e6:.0f} million; not decoded") from None
    except UnidentifiedImageError:
        raise ImageError(_what_it_is(data)) from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them trip over
        raise ImageError(f"damaged picture ({error})") from error
    if image.format == "EPS":
        raise ImageError("a PostScript program, not a picture; convert it to PNG first")
    return image


def _what_it_is(data: bytes) -> str:
    """Say what a file is that Pillow does not know."""
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "a HEIC photo; install pillow-heif and call pillow_heif.register_heif_opener(), or convert it to JPEG"
    start = data[:16]
    return f"not a picture of a known format (it starts with {start!r})"


def _from_pillow(image: "Image") -> tuple[np.ndarray, tuple[int, int]]:
    from PIL import ImageOps

    _check_size(image.height, image.width, image.height * image.width)
    try:
        image.load()
        pixels = _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError(f"truncated or damaged picture ({error})") from error
    return pixels, (pixels.shape[0], pixels.shape[1])


def _to_rgb(image: "Image") -> np.ndarray:
    """Convert any of Pillow's modes to uint8 [height, width, 3]."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits, in 32 where Pillow has no better place for them
        values = np.asarray(image)
        high = (values if values.itemsize == 2 else np.clip(values, 0, 65535)) >> 8
        return np.repeat(high.astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
    if image.mode == "F":
        return _from_floats(np.asarray(image))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)  # in strips: every conversion on the way is a copy
    for top in range(0, image.height, rows):
        end = min(top + rows, image.height)
        strip = image if end - top == image.height else image.crop((0, top, image.width, end))
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            canvas = Image.new("RGBA", strip.size, (_CANVAS, _CANVAS, _CANVAS, 255))
            strip = Image.alpha_composite(canvas, strip.convert("RGBA"))
        pixels[top:end] = np.asarray(strip.convert("RGB"))
    return pixels


def _from_floats(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(
            f"floating-point pixels from {low:g} to {high:g}; only 0 to 1 has one meaning, save it as 8 bits"
        )
    gray = (values * 255 + 0.5).astype(np.uint8)
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)


def _from_array(array: np.ndarray) -> np.ndarray:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise InputError(
            f"an image array must be uint8 [height, width, 3] (or [h, w], [h, w, 1], [h, w, 4]), "
            f"not {array.dtype} {list(array.shape)}; a float batch is [n, height, width, 3] in [0, 1]"
        )
    _check_size(array.shape[0], array.shape[1], 0)
    if channels == 3:
        return np.ascontiguousarray(array)
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    alpha = array[:, :, 3:].astype(np.uint16)
    return ((array[:, :, :3] * alpha + _CANVAS * (255 - alpha) + 127) // 255).astype(np.uint8)
