"""Decoding ahead of inference: inputs to batches of pixels, in order, on all cores, with bounded memory.

The threads here decode (libjpeg-turbo and Pillow let go of Python's lock) while the caller has a batch computed; as
long as some batches are ready, the network never waits, and while it computes, decoding takes what it leaves of the
cores. `batches` is for what fits in a call, in whatever form a user hands it over.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.host.cpu import available_cores
from mobilenet_hub.images.ahead import ahead
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.inputs import Item, refused
from mobilenet_hub.images.load import check_batch
from mobilenet_hub.images.skipped import Skipped

if TYPE_CHECKING:
    from PIL.Image import Image

    OneImage = str | os.PathLike[str] | bytes | BinaryIO | Image | np.ndarray
    Images = OneImage | Iterable[OneImage]

Group = TypeVar("Group")
Made = TypeVar("Made")

BATCH_SIZE = 64
_TASK_SIZE = 8  # inputs that one thread takes at a time: little enough to share a small folder out among all cores
_MAX_HELD_BYTES = 1 << 25  # of the files of a batch, where they are read before they are decoded
_PATIENCE_S = 0.5  # for pictures that are being decoded when nobody wants them any more; each may take many seconds
_BATCHES_AHEAD = 2  # at least; each of 64 photos of 224 x 224 takes 10 MB


def work_ahead(
    groups: Iterable[tuple[Group, Iterable[Callable[[], Made]]]], *, threads: int | None = None, ahead: int = 2
) -> Iterator[tuple[Group, list[Made]]]:
    """Yield each group with the results of its tasks, in order; threads do them ahead of who takes the groups.

    Args:
        groups: what the caller calls a group, and its tasks; taken from as groups are, never far ahead.
        threads: how many work; None: as many as there are cores.
        ahead: how many groups are begun before their turn.

    Example:
        >>> list(work_ahead([("a", [lambda: 1, lambda: 2]), ("b", [lambda: 3])]))
        [('a', [1, 2]), ('b', [3])]
    """
    pending: deque[tuple[Group, list[Future[Made]]]] = deque()
    pool = ThreadPoolExecutor(threads or available_cores(), "decode")
    patience_s = None
    try:
        for group, tasks in groups:
            pending.append((group, [pool.submit(task) for task in tasks]))
            if len(pending) > ahead:
                yield _done(pending)
        while pending:
            yield _done(pending)
    except (KeyboardInterrupt, GeneratorExit):  # the caller stops early, perhaps for Ctrl-C
        patience_s = _PATIENCE_S
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        running = [future for _, futures in pending for future in futures if future.running()]
        pool.shutdown(wait=not wait(running, patience_s).not_done)


def _done(pending: deque[tuple[Group, list[Future[Made]]]]) -> tuple[Group, list[Made]]:
    made = [future.result() for future in pending[0][1]]  # it stays pending if this is interrupted
    return pending.popleft()[0], made


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
    threads: int | None

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of a batch."""
        ...


def decode_batches(
    items: Iterable[Item],
    preprocessing: Preprocessing,
    *,
    batch_size: int = BATCH_SIZE,
    shard_size: int | None = None,
    threads: int | None = None,
) -> Iterator[Batch]:
    """Yield the pictures of the items, in their order.

    Args:
        items: the inputs; taken from as batches are, never far ahead.
        preprocessing: how pictures become the network's input.
        batch_size: inputs in a batch.
        shard_size: no batch goes beyond a multiple of this many inputs.
        threads: how many decode; None: as many as there are cores.

    Raises:
        InputError: a folder that was being searched is no longer there.

    Example:
        >>> item = Item("red", lambda: np.full((90, 120, 3), [255, 0, 0], np.uint8))
        >>> [batch.images.shape for batch in decode_batches([item] * 3, Preprocessing(32), batch_size=2)]
        [(2, 32, 32, 3), (1, 32, 32, 3)]
    """
    threads = threads or available_cores()
    begun_early = max(_BATCHES_AHEAD, 2 * threads * _TASK_SIZE // batch_size)

    def begun() -> Iterator[tuple[tuple[list[str], np.ndarray], list[Callable[[], list[tuple[int, int] | str]]]]]:
        for group in _groups(_fetched(items), batch_size, shard_size):
            names, pixels = [item.key for item in group], np.empty((len(group), *preprocessing.image_size, 3), np.uint8)
            size = min(_TASK_SIZE, -(-len(group) // threads))
            parts = [slice(start, start + size) for start in range(0, len(group), size)]
            yield (names, pixels), [partial(_decode, group[part], pixels[part], preprocessing) for part in parts]

    for (names, pixels), parts in work_ahead(begun(), threads=threads, ahead=begun_early):
        yield _batch(names, pixels, [outcome for part in parts for outcome in part])


def _fetched(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, those that lie in a store with their bytes, which come ahead of decoding."""
    tasks = ((item, item.remote, partial(_read, item) if item.remote else None) for item in items)
    for item, outcome in ahead(tasks):
        if outcome is None:
            yield item
        elif isinstance(outcome, ImageError):
            yield refused(item.key, outcome.reason)
        else:
            yield Item(item.key, partial(bytes, outcome), held=len(outcome))


def _read(item: Item) -> bytes | ImageError:
    try:
        return item.read()
    except ImageError as error:
        return error


def compute(
    inputs: Iterable[Item],
    engine: Computes,
    output: str,
    preprocessing: Preprocessing,
    *,
    shard_size: int | None = None,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yield batches of the inputs with the engine's output for each, [n, ...] float32, decoding ahead.

    Raises:
        InputError: a folder that was being searched is no longer there.
    """
    for batch in decode_batches(inputs, preprocessing, shard_size=shard_size, threads=engine.threads):
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


def _batch(inputs: list[str], pixels: np.ndarray, outcomes: Sequence[tuple[int, int] | str]) -> Batch:
    good = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, str)]
    return Batch(
        images=pixels if len(good) == len(inputs) else pixels[good],
        keys=[inputs[index] for index in good],
        sizes=[outcome for outcome in outcomes if not isinstance(outcome, str)],
        inputs=inputs,
        skipped=[Skipped(key, out) for key, out in zip(inputs, outcomes, strict=True) if isinstance(out, str)],
    )


def _decode(part: list[Item], pixels: np.ndarray, preprocessing: Preprocessing) -> list[tuple[int, int] | str]:
    """Fill `pixels`; return for each item its full size, or the reason why there is none."""
    outcomes: list[tuple[int, int] | str] = []
    for target in pixels:
        item = part.pop(0)  # and with it its bytes
        try:
            target[:], size = preprocessing.load_sized(item.read())
            outcomes.append(size)
        except ImageError as error:
            if item.root is not None:
                item.root.demand()
            outcomes.append(error.reason)
    return outcomes


def batches(
    images: "Images",
    preprocessing: Preprocessing,
    on_error: Callable[[str, ImageError], object] | None = None,
    *,
    threads: int | None = None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield (names, batch) until all images are done; a batch holds at most BATCH_SIZE.

    Args:
        images: paths, bytes, open files, PIL images or uint8 arrays [h, w, 3], in a list or alone; or one float32
            batch [n, height, width, 3] in [0, 1], which is taken as it is. Tensors of a framework are arrays.
        preprocessing: how images become the network's input.
        on_error: called with the name and the reason of an image that cannot be read, which is left out; None: the
            error is raised.
        threads: how many decode; None: as many as there are cores.

    Raises:
        ImageError: an image that cannot be read; names it.
        InputError: a float batch of another shape or range.

    Example:
        >>> [(names, batch.shape) for names, batch in batches(np.zeros((2, 8, 8, 3), np.float32), Preprocessing(8))]
        [(['image 0', 'image 1'], (2, 8, 8, 3))]
    """
    if is_tensor(images):
        images = np.asarray(images)
    if isinstance(images, np.ndarray) and images.dtype != np.uint8:
        floats = check_batch(images, preprocessing.image_size)
        for start in range(0, len(floats), BATCH_SIZE):
            part = floats[start : start + BATCH_SIZE]
            yield [f"image {start + i}" for i in range(len(part))], part
        return
    for batch in decode_batches(given(images), preprocessing, threads=threads):
        for name, reason in batch.skipped:
            if on_error is None:
                raise ImageError(reason, name)
            on_error(name, ImageError(reason))
        if batch.keys:
            yield batch.keys, batch.images


def given(images: "Images") -> Iterator[Item]:
    """Yield as inputs what a caller hands over, each image for itself: no path is searched."""
    for number, image in enumerate([images] if is_one(images) else images):  # type: ignore[arg-type]
        path: Any = image if isinstance(image, str | os.PathLike) else getattr(image, "name", None)  # an open file's
        name = os.fspath(path) if isinstance(path, str | os.PathLike) else f"image {number}"
        yield Item(name, partial(_itself, image))


def _itself(image: Any) -> Any:
    return image


def is_tensor(images: object) -> bool:
    """Tell whether this is a tensor of a framework, which NumPy takes for an array."""
    return hasattr(images, "__array__") and hasattr(images, "shape") and not isinstance(images, np.ndarray)


def is_one(images: Any) -> bool:
    """Tell whether this is one image rather than several."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    if isinstance(images, str | os.PathLike | bytes) or hasattr(images, "convert"):  # PIL.Image.Image
        return True
    return hasattr(images, "read") or (is_tensor(images) and len(images.shape) < 4)
