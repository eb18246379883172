"""From whatever a user hands over as images to batches of one size. Imports errors, and images when there are any.

For folders of a million photos there is `pipeline`; this is for what fits in a call.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.host.cpu import available_cores

if TYPE_CHECKING:
    from PIL.Image import Image

    from mobilenet_hub.images.fit import Fit

    OneImage = str | os.PathLike[str] | bytes | Image | np.ndarray
    Images = OneImage | Iterable[OneImage]

BATCH_SIZE = 64


def batches(
    images: "Images",
    image_size: tuple[int, int],
    fit: "Fit | None" = None,
    on_error: Callable[[str, ImageError], object] | None = None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield (names, batch) until all images are done; a batch holds at most BATCH_SIZE.

    Args:
        images: paths, bytes, PIL images or uint8 arrays [h, w, 3], in a list or alone; or one float32 batch
            [n, height, width, 3] in [0, 1], which is taken as it is.
        image_size: (height, width) that the images are brought to.
        fit: how an image of another shape is fitted; None: the default of `images`.
        on_error: called with the name and the reason of an image that cannot be read, which is left out; None: the
            error is raised.

    Raises:
        ImageError: an image that cannot be read; names it.
        InputError: a float batch of another shape or range.

    Example:
        >>> [(names, batch.shape) for names, batch in batches(np.zeros((2, 8, 8, 3), np.float32), (8, 8))]
        [(['image 0', 'image 1'], (2, 8, 8, 3))]
    """
    if isinstance(images, np.ndarray) and images.dtype != np.uint8:
        yield from _of_floats(images, image_size)
        return
    items = [images] if is_one(images) else list(images)  # type: ignore[arg-type]
    names = [os.fspath(item) if isinstance(item, str | os.PathLike) else f"image {i}" for i, item in enumerate(items)]
    for start in range(0, len(items), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        loaded = _load(items[part], image_size, fit)
        kept = []
        for name, image in zip(names[part], loaded, strict=True):
            if not isinstance(image, ImageError):
                kept.append((name, image))
            elif on_error is None:
                raise ImageError(image.reason, name) from image.__cause__
            else:
                on_error(name, image)
        if kept:
            yield [name for name, _ in kept], np.stack([image for _, image in kept])


def _of_floats(images: np.ndarray, image_size: tuple[int, int]) -> Iterator[tuple[list[str], np.ndarray]]:
    from mobilenet_hub.images.decode import check_batch

    images = check_batch(images, image_size)
    for start in range(0, len(images), BATCH_SIZE):
        part = images[start : start + BATCH_SIZE]
        yield [f"image {start + i}" for i in range(len(part))], part


def is_one(images: object) -> bool:
    """Tell whether this is one image rather than several."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, str | os.PathLike | bytes) or hasattr(images, "convert")  # PIL.Image.Image


def _load(items: Sequence[object], image_size: tuple[int, int], fit: "Fit | None") -> list["np.ndarray | ImageError"]:
    from mobilenet_hub.images.decode import load_image

    def load(item: object) -> "np.ndarray | ImageError":
        try:
            return load_image(item, image_size, fit)  # type: ignore[arg-type]
        except ImageError as error:
            return error

    if len(items) == 1:
        return [load(items[0])]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(available_cores()) as threads:
        return list(threads.map(load, items))
