"""Decoding ahead of inference: inputs to batches of pixels, in order, on all cores, with bounded memory.

The threads here decode (libjpeg-turbo and Pillow let go of Python's lock) while the caller has a batch computed; as
long as some batches are ready, the network never waits, and while it computes, decoding takes what it leaves of the
cores. `batches` is for what fits in a call, in whatever form a user hands it over.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.host.cpu import available_cores
from mobilenet_hub.images.fit import Fit
from mobilenet_hub.images.inputs import Item
from mobilenet_hub.images.load import check_batch, load_image, load_sized
from mobilenet_hub.images.skipped import Skipped

if TYPE_CHECKING:
    from PIL.Image import Image

    OneImage = str | os.PathLike[str] | bytes | Image | np.ndarray
    Images = OneImage | Iterable[OneImage]


BATCH_SIZE = 64
_TASK_SIZE = 8  # inputs that one thread takes at a time: little enough to share a small folder out among all cores
_MAX_HELD_BYTES = 1 << 25  # of the files of a batch, where they are read before they are decoded
_BATCHES_AHEAD = 2  # at least; each of 64 photos of 224 x 224 takes 10 MB


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures ready for the network, and the inputs among them that are none."""

    images: np.ndarray  # uint8 [n, height, width, 3]
    keys: list[str]  # n names
    sizes: list[tuple[int, int]]  # n full (height, width), before they were fitted
    inputs: list[str]  # the names of all inputs, good or bad, in order
    skipped: list[Skipped]  # the bad ones


class Computes(Protocol):
    """An engine: takes uint8 [n, *image_size, 3], gives named float32 arrays [n, ...]."""

    image_size: tuple[int, int]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of a batch."""
        ...


def decode_batches(
    items: Iterable[Item],
    image_size: tuple[int, int],
    fit: Fit,
    *,
    batch_size: int = BATCH_SIZE,
    shard_size: int | None = None,
    threads: int | None = None,
) -> Iterator[Batch]:
    """Yield the pictures of the items, in their order.

    Args:
        items: the inputs; taken from as batches are, never far ahead.
        image_size: (height, width) of the network's input.
        fit: how pictures of another shape are fitted.
        batch_size: inputs in a batch.
        shard_size: no batch goes beyond a multiple of this many inputs.
        threads: how many decode; None: as many as there are cores.

    Raises:
        InputError: a folder that was being searched is no longer there.

    Example:
        >>> item = Item("red", lambda: np.full((90, 120, 3), [255, 0, 0], np.uint8))
        >>> [batch.images.shape for batch in decode_batches([item] * 3, (32, 32), "center", batch_size=2)]
        [(2, 32, 32, 3), (1, 32, 32, 3)]
    """
    threads = threads or available_cores()
    ahead = max(_BATCHES_AHEAD, 2 * threads * _TASK_SIZE // batch_size)
    pending: deque[_Pending] = deque()
    with ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for group in _groups(iter(items), batch_size, shard_size):
                pending.append(_Pending(pool, group, image_size, fit))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # also where the caller stops early
            pool.shutdown(wait=True, cancel_futures=True)


def compute(
    inputs: Iterable[Item], engine: Computes, output: str, fit: Fit, *, shard_size: int | None = None
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yield batches of the inputs with the engine's output for each, [n, ...] float32, decoding ahead.

    Raises:
        InputError: a folder that was being searched is no longer there.
    """
    for batch in decode_batches(inputs, engine.image_size, fit, shard_size=shard_size):
        yield batch, engine.run(batch.images)[output]


def _groups(items: Iterator[Item], batch_size: int, shard_size: int | None) -> Iterator[list[Item]]:
    room = shard_size
    while group := list(_taken(items, batch_size if room is None else min(batch_size, room))):
        yield group
        if room is not None:
            room = (room - len(group)) or shard_size


def _taken(items: Iterator[Item], count: int) -> Iterator[Item]:
    """Yield that many items, or fewer where their bytes would fill the memory."""
    held = 0
    for item in islice(items, count):
        yield item
        held += item.held
        if held >= _MAX_HELD_BYTES:
            return


class _Pending:
    """A batch that threads are decoding, each its part."""

    def __init__(self, pool: ThreadPoolExecutor, group: list[Item], image_size: tuple[int, int], fit: Fit):
        self._inputs = [item.key for item in group]
        self._pixels = np.empty((len(group), *image_size, 3), np.uint8)
        self._parts: list[Future[list[tuple[int, int] | str]]] = [
            pool.submit(_decode, group[start : start + _TASK_SIZE], self._pixels[start : start + _TASK_SIZE], fit)
            for start in range(0, len(group), _TASK_SIZE)
        ]

    def result(self) -> Batch:
        outcomes = [outcome for part in self._parts for outcome in part.result()]
        inputs = self._inputs
        good = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, str)]
        return Batch(
            images=self._pixels if len(good) == len(inputs) else self._pixels[good],
            keys=[inputs[index] for index in good],
            sizes=[outcome for outcome in outcomes if not isinstance(outcome, str)],
            inputs=inputs,
            skipped=[Skipped(key, out) for key, out in zip(inputs, outcomes, strict=True) if isinstance(out, str)],
        )


def _decode(part: list[Item], pixels: np.ndarray, fit: Fit) -> list[tuple[int, int] | str]:
    """Fill `pixels`; return for each item its full size, or the reason why there is none."""
    outcomes: list[tuple[int, int] | str] = []
    for target in pixels:
        item = part.pop(0)  # and with it its bytes
        try:
            target[:], size = load_sized(item.read(), target.shape[:2], fit)
            outcomes.append(size)
        except ImageError as error:
            if item.root is not None and item.root.has_vanished():
                raise InputError(
                    f"the folder {item.root.path} has vanished while it was read; what was finished before is kept: "
                    "bring it back and run the same command again"
                ) from None
            outcomes.append(error.reason)
    return outcomes


def batches(
    images: "Images",
    image_size: tuple[int, int],
    fit: Fit | None = None,
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
    images = check_batch(images, image_size)
    for start in range(0, len(images), BATCH_SIZE):
        part = images[start : start + BATCH_SIZE]
        yield [f"image {start + i}" for i in range(len(part))], part


def is_one(images: object) -> bool:
    """Tell whether this is one image rather than several."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, str | os.PathLike | bytes) or hasattr(images, "convert")  # PIL.Image.Image


def _load(items: Sequence[object], image_size: tuple[int, int], fit: Fit | None) -> list["np.ndarray | ImageError"]:
    def load(item: object) -> "np.ndarray | ImageError":
        try:
            return load_image(item, image_size, fit)  # type: ignore[arg-type]
        except ImageError as error:
            return error

    if len(items) == 1:
        return [load(items[0])]
    with ThreadPoolExecutor(available_cores()) as threads:
        return list(threads.map(load, items))
