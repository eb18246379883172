"""Anything that a person would call a picture to upright RGB pixels.

JPEG goes through libjpeg-turbo at the cheapest sufficient scale, everything else through Pillow.
"""

import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images import jpeg
from mobilenet_hub.images.color import Profile, to_srgb
from mobilenet_hub.images.content import JPEG_START
from mobilenet_hub.images.limits import MAX_FILE_BYTES, TOO_LARGE, check_cost
from mobilenet_hub.images.orientation import upright

if TYPE_CHECKING:
    from PIL.Image import Image

_CANVAS = 255  # transparent parts show white, as on a page

DOWNLOAD_IT = "download it first, nothing is fetched here but modules"


def decode_image(source: Any, *, min_size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode one picture to upright RGB pixels, uint8 [height, width, 3].

    Orientation is applied, colors are brought to sRGB where a profile says that they are others, transparency is
    composited on white, CMYK and palettes are converted, deeper samples reduced to their upper 8 bits; of an animation
    the first frame counts.

    Args:
        source: a path, the bytes of a file, a file open for reading bytes, a PIL image, or a uint8 array [h, w],
            [h, w, 1], [h, w, 3] or [h, w, 4].
        min_size: (height, width) that suffices: a JPEG may come back at 1/2, 1/4 or 1/8 of its size, never smaller.

    Raises:
        ImageError: it cannot be read as a picture; the text says why.
        InputError: `source` is of another type.

    Example:
        >>> decode_image(np.zeros((4, 6), np.uint8)).shape
        (4, 6, 3)
    """
    found = decode_sized(source, min_size)
    return to_srgb(found.pixels, found.profile)


class Decoded(NamedTuple):
    """A picture whose colors are still those of its file."""

    pixels: np.ndarray  # upright RGB, uint8 [height, width, 3]
    size: tuple[int, int]  # (height, width) of the whole, where it was decoded at a scale
    profile: Profile  # what the colors mean


def decode_sized(source: Any, min_size: tuple[int, int] | None = None, *, as_tensorflow: bool = False) -> Decoded:
    """Decode as `decode_image` does, but leave the colors as they are, and say what they mean.

    With `as_tensorflow` JPEG goes through the less exact transform that TensorFlow's decoder takes, and everything is
    taken for sRGB.
    """
    if isinstance(source, np.ndarray):
        return _whole(_from_array(source), Profile())
    if isinstance(source, str | os.PathLike):
        try:
            return _from_bytes(read_bytes(source), min_size, as_tensorflow)
        except ImageError as error:
            raise ImageError(error.reason, os.fspath(source)) from error.__cause__
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), min_size, as_tensorflow)
    if hasattr(source, "convert") and hasattr(source, "getbands"):
        return _from_image(source, min_size, as_tensorflow)
    if hasattr(source, "read"):
        return _from_bytes(_read_open(source), min_size, as_tensorflow)
    if hasattr(source, "__array__"):  # a tensor
        return decode_sized(np.asarray(source))
    raise InputError(
        f"{type(source).__name__} is not a picture; give a path, a file's bytes, an open file, a PIL image or a uint8 "
        "array [h, w, 3]"
    )


def _read_open(file: Any) -> bytes:
    """Return what is left to read of an open file."""
    try:
        data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: closed, or text that is none
        raise ImageError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not isinstance(data, bytes):
        raise InputError("a picture's file must be open for reading bytes: open(path, 'rb')")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(TOO_LARGE)
    return data


def is_address(path: str | os.PathLike[str]) -> bool:
    """Tell whether this is the address of something elsewhere, also after it was taken for a path.

    Example:
        >>> is_address("https://example.com/cat.jpg"), is_address(Path("https://example.com")), is_address("a/b.jpg")
        (True, True, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(path)) is not None


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
        raise ImageError(f"an address: {DOWNLOAD_IT}" if is_address(path) else "no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if data is not None:
        return data
    if stat.S_ISREG(info.st_mode):
        raise ImageError(TOO_LARGE)
    raise ImageError("a folder, not a picture" if stat.S_ISDIR(info.st_mode) else "not a regular file")


def _from_bytes(data: bytes, min_size: tuple[int, int] | None, as_tensorflow: bool) -> Decoded:
    if not data:
        raise ImageError("empty file (0 bytes)")
    if data.startswith(JPEG_START):
        return _from_jpeg(data, min_size, as_tensorflow)
    from mobilenet_hub.images.with_pillow import decode_file

    return _whole(*decode_file(data, profiles=not as_tensorflow))


def _from_jpeg(data: bytes, min_size: tuple[int, int] | None, as_tensorflow: bool) -> Decoded:
    header = jpeg.read_header(data)
    scaled = header.scaled_size(min_size)
    held = header.height * header.width if header.buffered else scaled[0] * scaled[1]
    check_cost(header.height, header.width, held=held)
    jpeg.check_scans(data, header)
    profile = Profile(b"" if as_tensorflow else jpeg.color_profile(data, header), header.components == 1)
    if header.stray:
        data = jpeg.bare(data, header)
        header = replace(jpeg.read_header(data), orientation=header.orientation)
    if header.components not in (1, 3, 4):
        raise ImageError(f"a JPEG of {header.components} channels, which make no picture")
    pixels = jpeg.decode(data, header, min_size, fast_dct=as_tensorflow)
    if pixels is None or pixels.shape[2] == 4:
        pixels, profile = _from_odd_jpeg(data, header, pixels, profile.icc)
    return Decoded(upright(pixels, header.orientation), header.upright_size, profile)


def _from_odd_jpeg(
    data: bytes, header: jpeg.JpegHeader, inks: np.ndarray | None, icc: bytes
) -> tuple[np.ndarray, Profile]:
    """Return the pixels as stored of CMYK, and of what simplejpeg complains of though every viewer shows it."""
    from PIL import Image

    from mobilenet_hub.images.with_pillow import from_pillow, open_file

    image = open_file(jpeg.bare(data, header)) if inks is None else Image.fromarray(inks, "CMYK")
    image.info["icc_profile"] = icc
    return from_pillow(image)


def _whole(pixels: np.ndarray, profile: Profile) -> Decoded:
    return Decoded(pixels, (pixels.shape[0], pixels.shape[1]), profile)


def _from_image(image: "Image", min_size: tuple[int, int] | None, as_tensorflow: bool) -> Decoded:
    """Decode a Pillow image: as its file would be, as long as it is no more than an opened file."""
    from mobilenet_hub.images.with_pillow import file_of, from_pillow

    data = file_of(image)
    if data is not None:
        return _from_bytes(data, min_size, as_tensorflow)
    return _whole(*from_pillow(image, profiles=not as_tensorflow))


def _from_array(array: np.ndarray) -> np.ndarray:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise InputError(
            f"an image array must be uint8 [height, width, 3] (or [h, w], [h, w, 1], [h, w, 4]), "
            f"not {array.dtype} {list(array.shape)}; a float batch is [n, height, width, 3] in [0, 1]"
        )
    check_cost(array.shape[0], array.shape[1], held=0)
    if channels == 3:
        return np.ascontiguousarray(array)
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    alpha = array[:, :, 3:].astype(np.uint16)
    return ((array[:, :, :3] * alpha + _CANVAS * (255 - alpha) + 127) // 255).astype(np.uint8)


def held_pixels(data: bytes, min_size: tuple[int, int] | None = None) -> int | None:
    """Return how many pixels decoding a file would hold at once; None where its header does not say.

    Example:
        >>> held_pixels(b"no picture") is None
        True
    """
    from mobilenet_hub.images.with_pillow import open_file

    try:
        if not data.startswith(JPEG_START):
            image = open_file(data)
            return image.height * image.width
        header = jpeg.read_header(data)
    except ImageError:
        return None
    height, width = (header.height, header.width) if header.buffered else header.scaled_size(min_size)
    return height * width
