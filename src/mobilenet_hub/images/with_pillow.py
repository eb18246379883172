"""Every format but JPEG through Pillow, with what it gets wrong put right, and reasons that are true."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.images import png, tiff, tiff_samples
from mobilenet_hub.images.apart import loaded_apart, takes_long
from mobilenet_hub.images.color import Profile, cmyk_to_srgb
from mobilenet_hub.images.content import AVIF_BRANDS, HEIF_BRANDS, JXL_STARTS, PNG_START, TIFF_STARTS
from mobilenet_hub.images.limits import MAX_FILE_BYTES, check_cost
from mobilenet_hub.images.orientation import orientation_of, upright

if TYPE_CHECKING:
    from PIL.Image import Image

CANVAS = 255  # transparent parts show white, as on a page
_STRIP_PIXELS = 1 << 20
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_GRAY_MODES = ("1", "L", "LA", "La", "I", "F")
_EMPTY_ALPHA = ("BMP", "DIB", "TGA")  # formats whose fourth byte is as often filler as alpha
_TURNED = ("AVIF", "HEIF", "JXL")  # formats whose own turn is the only one that counts: XMP's says what they were
_KINDS = {
    **{name: name for name in ("TIFF", "BMP", "PNG", "JPEG", "GIF", "AVIF", "TGA", "ICO", "PCX", "SGI", "DDS")},
    **{"WEBP": "WebP", "JPEG2000": "JPEG 2000", "HEIF": "HEIC", "JXL": "JPEG XL", "MPO": "JPEG", "DIB": "BMP"},
}
_TELLING = frozenset(["TIFF", "BMP", "PNG", "WEBP", "JPEG", "GIF", "AVIF"])  # which begin as nothing else does
_LACKING = ("unsupported", "not supported", "unknown", "not implemented", "cannot handle", "no decoder", "unrecognized")
_DAMAGED = "data stream contents"  # in Pillow's words for what a decoder trips over, "unrecognized" too


class _Facts(NamedTuple):
    """What a file says of its picture beside the pixels."""

    orientation: int = 1
    icc: bytes = b""


def decode_file(data: bytes, *, profiles: bool = True) -> tuple[np.ndarray, Profile]:
    """Return the upright RGB pixels of a file of any format, uint8 [height, width, 3], and their color space.

    Args:
        data: the file.
        profiles: read color profiles; without, everything is taken for sRGB.

    Raises:
        ImageError: it cannot be read as a picture; the text says why.
    """
    if data.startswith(PNG_START):
        parts = png.take_apart(data)
        check_cost(*parts.size, "PNG")
        return _from_image(open_file(parts.bare), _Facts(parts.orientation, parts.icc), profiles)
    if data.startswith(TIFF_STARTS):
        directory = tiff.read_directory(data)
        check_cost(*directory.size, "TIFF")
        facts = _Facts(directory.orientation, directory.icc)
        if tiff_samples.is_for_pillow(directory):
            tiff_samples.silence_libtiff()
            return _from_image(open_file(tiff.rewritten(data, directory)), facts, profiles)
        stored = tiff_samples.read_samples(data, directory)
        if not isinstance(stored, np.ndarray):
            return _from_image(stored, facts, profiles)
        gray = directory.samples < 3
        return upright(stored, facts.orientation), Profile(facts.icc if profiles else b"", gray)
    image = open_file(data)
    return from_pillow(loaded_apart(data, image) if takes_long(image, len(data)) else image, profiles=profiles)


def open_file(data: bytes) -> "Image":
    """Open lazily: only the header is read, and its size checked.

    Raises:
        ImageError: not a picture, damaged, too large, or of a kind that Pillow does not read.
    """
    from PIL import Image, UnidentifiedImageError

    check_webp(data)
    try:
        image = _opened(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"more pixels than a picture may have; not decoded ({error})") from None
    except UnidentifiedImageError:
        raise ImageError(_what_it_is(data)) from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them trip over
        raise ImageError(_reason(error, data)) from error
    if image.format == "EPS":
        raise ImageError("a PostScript program, not a picture; convert it to PNG first")
    return image


def _opened(data: bytes) -> "Image":
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(BytesIO(_without_exif(data) if _is_avif(data) else data))
    except UnidentifiedImageError:
        if not _load_plugin(data):
            raise
    return Image.open(BytesIO(data))


def _is_avif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in AVIF_BRANDS


def _without_exif(data: bytes) -> bytes:
    """Hide EXIF from AVIF's reader, which trips over a broken one: the format has a turn of its own."""
    end = data.find(b"mdat")
    return data[:end].replace(b"Exif", b"none") + data[end:] if end >= 0 and b"Exif" in data[:end] else data


def _load_plugin(data: bytes) -> bool:
    """Load the installed plug-in that reads such a file; tell whether there is one."""
    from importlib import import_module
    from importlib.util import find_spec

    if _is_heif(data):
        names = ("pillow_heif",)
    elif data[4:8] == b"ftyp":
        names = ("pillow_avif", "pillow_heif")
    else:
        names = ("pillow_jxl",) if data.startswith(JXL_STARTS) else ()
    for name in names:
        if find_spec(name):
            plugin = import_module(name)  # which registers itself, but for pillow_heif
            if name == "pillow_heif":
                plugin.register_heif_opener()
            return True
    return False


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS


def _what_it_is(data: bytes) -> str:
    """Say what a file is that Pillow does not know, or why it does not."""
    from importlib.util import find_spec

    if _is_heif(data):
        if find_spec("pillow_heif"):
            return "a HEIC file that holds no picture that can be read, or a damaged one"
        return "a HEIC photo: pip install 'mobilenet-hub[heif]' to read it, or convert it to JPEG"
    if _is_avif(data):
        return "an AVIF file that is damaged, or of a kind that this Pillow does not read"
    if data.startswith(JXL_STARTS):
        known = find_spec("pillow_jxl")
        return "a damaged JPEG XL file" if known else "a JPEG XL photo: pip install pillow-jxl-plugin to read it"
    why = _refusal(data)
    return why or f"not a picture of a known format (it starts with {data[:16]!r})"


def _refusal(data: bytes) -> str:
    """Ask the reader whose format it is why it refuses; Pillow keeps that to itself."""
    from io import BytesIO

    from PIL import Image

    for name, (factory, accept) in Image.OPEN.items():
        if name in _TELLING and accept is not None and accept(data[:16]) is True:
            try:
                factory(BytesIO(data), "")
            except Exception as error:
                return _reason(error, data, _KINDS[name])
    return ""


def _reason(error: Exception, data: bytes, kind: str = "") -> str:
    kind = kind or ("BMP" if data.startswith(b"BM") else "picture")
    text = " ".join(str(error).split()).partition(" Please build")[0] or type(error).__name__  # advice for its authors
    if _DAMAGED not in text and any(word in text.lower() for word in _LACKING):
        return f"a {kind} of a rare kind that is not read ({text}): save it anew as PNG or JPEG"
    return f"truncated or damaged {kind} ({text})"


def file_of(image: "Image") -> bytes | None:
    """Return the bytes of the file that an image was opened from, where it is its first picture, not yet loaded."""
    source = getattr(image, "fp", None)
    untouched = getattr(image, "_im", None) is None and image.tell() == 0
    if not untouched or source is None or getattr(image, "decoderconfig", ()):  # which `draft` sets
        return None
    try:
        at = source.tell()
        source.seek(0)
        data = source.read(MAX_FILE_BYTES + 1)
        source.seek(at)
    except (OSError, ValueError, AttributeError):  # closed, or not to be read again
        return None
    return data if len(data) <= MAX_FILE_BYTES else None


def check_webp(data: bytes) -> None:
    """Refuse a WebP by its header: Pillow takes memory for all of it when it is opened."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return
    kind, size = data[12:16], (1, 1)
    if kind == b"VP8X":
        size = 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        size = 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    elif kind == b"VP8 ":
        size = int.from_bytes(data[28:30], "little") & 0x3FFF, int.from_bytes(data[26:28], "little") & 0x3FFF
    check_cost(*size, "WEBP")


def from_pillow(image: "Image", *, profiles: bool = True) -> tuple[np.ndarray, Profile]:
    """Return the upright RGB pixels of a Pillow image, uint8 [height, width, 3], and their color space.

    Raises:
        ImageError: it cannot be loaded, or holds numbers whose meaning is not known.
    """
    return _from_image(image, None, profiles)


def _from_image(image: "Image", facts: _Facts | None, profiles: bool) -> tuple[np.ndarray, Profile]:
    codec = image.tile[0][0] if getattr(image, "tile", None) else ""  # type: ignore[attr-defined]
    check_cost(image.height, image.width, image.format or "", codec)
    try:
        key = image.info.get("transparency")
        lower = _lower_bytes(image, key)
        if lower is not None:
            del image.info["transparency"]
        image.load()
        facts = facts or _facts(image)
        gray = image.mode.startswith(_GRAY_MODES) and image.mode != "LAB"
        profile = Profile(facts.icc if profiles else b"", gray)
        if image.mode == "CMYK":
            image, profile = cmyk_to_srgb(image, profile.icc), Profile()
            pixels = np.asarray(image)
        else:
            pixels = _to_rgb(image)
        if lower is not None:
            pixels = _keyed(pixels, lower, key)
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError(_reason(error, b"", _KINDS.get(image.format or "", "picture"))) from error
    return upright(pixels, facts.orientation), profile


def _facts(image: "Image") -> _Facts:
    """Return what Pillow found beside the pixels."""
    info: dict[Any, Any] = image.info
    blocks = [block for block in (info.get("exif"),) if isinstance(block, bytes)]
    packets = [info.get(name) for name in ("xmp", "XML:com.adobe.xmp")]
    packets = [packet.encode() if isinstance(packet, str) else packet for packet in packets]
    xmp = [] if image.format in _TURNED else [packet for packet in packets if isinstance(packet, bytes)]
    icc = info.get("icc_profile")
    return _Facts(orientation_of(blocks, xmp), icc if isinstance(icc, bytes) else b"")


def _lower_bytes(image: "Image", key: object) -> np.ndarray | None:
    """Return the lower bytes of an RGB PNG of 16 bits with a transparent color; Pillow keeps the upper ones."""
    tiles, source = getattr(image, "tile", None), getattr(image, "fp", None)
    if not isinstance(key, tuple) or image.format != "PNG" or source is None or not tiles or tiles[0][3] != "RGB;16B":
        return None
    tile = tiles[0]
    from PIL import Image

    at = source.tell()
    source.seek(0)
    other = Image.open(source)
    other.tile = [(*tile[:3], "RGB;16L")]  # type: ignore[attr-defined]  # the other byte of the two
    other.load()
    source.seek(at)
    return np.asarray(other)


def _keyed(pixels: np.ndarray, lower: np.ndarray, key: Any) -> np.ndarray:
    transparent = np.all((pixels.astype(np.uint16) << 8 | lower) == np.array(key, np.uint16), axis=2)
    return np.where(transparent[:, :, np.newaxis], np.uint8(CANVAS), pixels)


def _to_rgb(image: "Image") -> np.ndarray:
    """Convert any of Pillow's modes to uint8 [height, width, 3]."""
    from PIL import Image

    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        return _from_floats(np.asarray(image))
    key = image.info.get("transparency")
    if image.format in _EMPTY_ALPHA and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image = image.convert("RGB")  # drops alpha
    has_alpha = image.mode in _ALPHA_MODES or (key is not None and not (isinstance(key, tuple) and max(key) > 255))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)  # in strips: every conversion on the way is a copy
    for top in range(0, image.height, rows):
        end = min(top + rows, image.height)
        strip = image if end - top == image.height else image.crop((0, top, image.width, end))
        if has_alpha:
            canvas = Image.new("RGBA", strip.size, (CANVAS, CANVAS, CANVAS, 255))
            strip = Image.alpha_composite(canvas, strip.convert("RGBA"))
        pixels[top:end] = np.asarray(strip.convert("RGB"))
    return pixels


def _from_integers(image: "Image") -> np.ndarray:
    """Reduce 16 bits, in 32 where Pillow has no better place for them, to their upper 8."""
    tags = getattr(image, "tag_v2", {})
    bits, inverted = tags.get(258, (16,))[0], tags.get(262, 1) == 0
    if tags.get(339, (1,))[0] == 2 or bits > 16:
        raise ImageError(
            "a loaded TIFF of signed or 32-bit numbers: which are black and white is not known; use 8 bits"
        )
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"numbers from {low} to {high}, which is not what 16 bits hold: scale them to 8 bits first")
    gray = (values >> (bits - 8)).astype(np.uint8)
    if high and not gray.any():
        raise ImageError(f"{bits}-bit samples that go no higher than {high} and would show black: save it as 8 bits")
    gray = 255 - gray if inverted else gray
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray = np.where(values == key, np.uint8(CANVAS), gray)
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)


def _from_floats(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(
            f"floating-point pixels from {low:g} to {high:g}; only 0 to 1 has one meaning, save it as 8 bits"
        )
    gray = (values * 255 + 0.5).astype(np.uint8)
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)
