"""Color profiles: pixels of another color space to sRGB, which the networks were trained on.

docs/images.md has the measurement that this was decided by. littlecms does it, through Pillow.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # ICC's names of color spaces, and Pillow's of the modes
_SAME = 2  # levels of 255: a profile that changes no color by more is sRGB under another name
_STRIP_PIXELS = 1 << 20


class Profile(NamedTuple):
    """The color space of a picture."""

    icc: bytes = b""  # the profile as files embed it; empty: sRGB
    gray: bool = False  # the picture is of gray, so that only a profile of gray says anything of it


def to_srgb(pixels: np.ndarray, profile: Profile) -> np.ndarray:
    """Return uint8 [height, width, 3] pixels in sRGB; as they are where the profile is that, broken or for others.

    Example:
        >>> to_srgb(np.zeros((4, 6, 3), np.uint8), Profile()).shape
        (4, 6, 3)
    """
    gray = profile.gray
    transform = _transform(profile.icc, "L" if gray else "RGB") if profile.icc else None
    if transform is None:
        return pixels
    from PIL import Image, ImageCms

    result = np.empty_like(pixels)
    rows = max(1, _STRIP_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        part = pixels[top : top + rows]
        image = Image.fromarray(np.ascontiguousarray(part[:, :, 0] if gray else part))
        result[top : top + rows] = np.asarray(ImageCms.applyTransform(image, transform))
    return result


def cmyk_to_srgb(image: "Image", icc: bytes) -> "Image":
    """Return a CMYK picture as RGB, by its profile if it has one, else as Pillow converts.

    Example:
        >>> from PIL import Image
        >>> cmyk_to_srgb(Image.new("CMYK", (6, 4)), b"").mode
        'RGB'
    """
    transform = _transform(icc, "CMYK") if icc else None
    if transform is None:
        return image.convert("RGB")
    from PIL import ImageCms

    return ImageCms.applyTransform(image, transform) or image


@lru_cache(maxsize=32)
def _transform(icc: bytes, mode: str) -> Any:
    """Return littlecms's transform of a mode to sRGB; None where there is nothing to do."""
    from io import BytesIO

    from PIL import Image, ImageCms

    try:
        profile: Any = ImageCms.ImageCmsProfile(BytesIO(icc))
        if _SPACES.get(profile.profile.xcolor_space) != mode:
            return None
        transform = ImageCms.buildTransform(
            profile, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
        if mode == "CMYK":
            return transform
        levels = np.linspace(0, 255, 9 if mode == "RGB" else 256).astype(np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        image = Image.fromarray(grid if mode == "RGB" else levels[np.newaxis])
        after = np.asarray(ImageCms.applyTransform(image, transform)).astype(int)
    except Exception:  # littlecms raises whatever a damaged profile makes it trip over: no profile
        return None
    before = grid if mode == "RGB" else levels[np.newaxis, :, np.newaxis]
    return None if np.abs(after - before).max() <= _SAME else transform
