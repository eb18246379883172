"""Training photos as the network sees them: decoded once, then cropped, mirrored and relit anew for every step.

What a step sees depends on the seed and the step's number alone, so that a run can stop and go on anywhere.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mobilenet_hub.errors import InputError
from mobilenet_hub.evaluation.dataset import Example
from mobilenet_hub.host.files import replacing
from mobilenet_hub.host.progress import OnProgress, Stage
from mobilenet_hub.images.batches import decode_batches, work_ahead
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.inputs import Item
from mobilenet_hub.images.resample import resample
from mobilenet_hub.images.skipped import Skipped

_ASPECT = 4 / 3  # most that a crop is wider than high, or the other way round
_AHEAD = 3  # batches that are made while the network computes


@dataclass(frozen=True)
class Augmentation:
    """How a photo is varied each time it is trained on."""

    min_area: float = 0.5  # least share of the photo that a crop shows; 1: no cropping
    mirror: bool = True
    brightness: float = 0.2  # largest change, as a share

    def __post_init__(self):
        """Refuse what means nothing."""
        if not 0 < self.min_area <= 1:
            raise InputError(f"min_area must be a share above 0 and up to 1, not {self.min_area!r}")
        if not 0 <= self.brightness < 1:
            raise InputError(f"brightness must be a number from 0 to 1, without 1, not {self.brightness!r}")


def decode_pictures(
    examples: Sequence[Example],
    preprocessing: Preprocessing,
    work: Path,
    on_progress: OnProgress,
    threads: int | None = None,
) -> tuple[np.ndarray, tuple[Skipped, ...]]:
    """Decode photos once, into a file that later runs map into memory.

    Args:
        examples: the photos.
        preprocessing: how all become pixels.
        work: the folder that holds the file.
        on_progress: told how far it is.
        threads: how many decode; None: as many as there are cores.

    Returns:
        uint8 [photos, height, width, 3] in the order of `examples`, read from the disk as it is used. Where some of the
        files are no photos: those files, and no pixels.
    """
    names = "\n".join([repr(preprocessing), *(example.digest for example in examples)])
    file = work / f"pixels-{hashlib.sha256(names.encode()).hexdigest()[:16]}.npy"
    if not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        skipped: list[Skipped] = []
        with suppress(_NotPhotosError), replacing(file) as stream:
            pixels = _memory_of(stream, (len(examples), *preprocessing.image_size, 3))
            inputs = (Item(str(index), example.path.__fspath__) for index, example in enumerate(examples))
            for batch in decode_batches(inputs, preprocessing, threads=threads):
                pixels[[int(key) for key in batch.keys]] = batch.images
                skipped += [Skipped(str(examples[int(skip.name)].path), skip.reason) for skip in batch.skipped]
                on_progress(Stage("photos", "photo"), int(batch.inputs[-1]) + 1, len(examples))
            if skipped:
                raise _NotPhotosError  # the caller asks again without them
        if skipped:
            return np.empty((0, *preprocessing.image_size, 3), np.uint8), tuple(skipped)
    return np.load(file, mmap_mode="r"), ()


def undecodable(
    examples: Sequence[Example],
    preprocessing: Preprocessing,
    on_progress: OnProgress,
    threads: int | None = None,
) -> list[Skipped]:
    """Return the files among photos that are none, decoding all."""
    skipped: list[Skipped] = []
    inputs = (Item(str(index), example.path.__fspath__) for index, example in enumerate(examples))
    for batch in decode_batches(inputs, preprocessing, threads=threads):
        skipped += [Skipped(str(examples[int(skip.name)].path), skip.reason) for skip in batch.skipped]
        on_progress(Stage("photos", "photo"), int(batch.inputs[-1]) + 1, len(examples))
    return skipped


class _NotPhotosError(Exception):
    """Some of the files are no photos, so the pixels are not those of the photos that will be trained on."""


def _memory_of(stream: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    """Return uint8 zeros [*shape] that are kept in a file, as NPY."""
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    start = stream.tell()
    stream.truncate(start + math.prod(shape))
    return np.memmap(stream, np.uint8, "r+", start, shape) if math.prod(shape) else np.empty(shape, np.uint8)


@dataclass(frozen=True)
class Batches:
    """The batches of a training run: every photo once in each epoch, in a new order, varied anew.

    Attributes:
        pixels: uint8 [photos, height, width, 3].
        labels: int [photos].
        batch_size: photos in a batch; what is left over at the end of an epoch waits for the next one.
        seed: of the order and of the variations.
        augmentation: how photos are varied.
    """

    pixels: np.ndarray
    labels: np.ndarray
    batch_size: int
    seed: int
    augmentation: Augmentation

    @property
    def per_epoch(self) -> int:
        """The number of steps in an epoch."""
        return max(1, len(self.labels) // self.batch_size)

    def indices(self, step: int) -> np.ndarray:
        """Return which photos a step takes."""
        epoch, position = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.labels))
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def make(self, step: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return a step's images, float32 [batch, height, width, 3] in [0, 1], and labels, int [batch]."""
        chosen = self.indices(step)
        random = np.random.default_rng((self.seed, 1, step))
        images = np.stack([vary(self.pixels[index], size, self.augmentation, random) for index in chosen])
        return images * np.float32(1 / 255), self.labels[chosen]

    def run(self, steps: range, sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the batches of some steps, made ahead by another thread; `sizes` has one for each step."""
        groups = ((step, [partial(self.make, step, size)]) for step, size in zip(steps, sizes, strict=True))
        for _, made in work_ahead(groups, threads=1, ahead=_AHEAD):
            yield made[0]


def vary(
    picture: np.ndarray, size: tuple[int, int], augmentation: Augmentation, random: np.random.Generator
) -> np.ndarray:
    """Return a random view of a photo: uint8 [height, width, 3].

    A rectangle of at least `min_area` of the photo is resized, as in the Inception preprocessing that MobileNets were
    trained with, but milder: MobileNet V1's authors advise less augmentation for small networks (arXiv 1704.04861,
    section 3.2).

    Example:
        >>> photo = np.zeros((64, 64, 3), np.uint8)
        >>> vary(photo, (32, 32), Augmentation(), np.random.default_rng(0)).shape
        (32, 32, 3)
    """
    height, width = picture.shape[:2]
    area = random.uniform(augmentation.min_area, 1)
    stretch = _ASPECT ** random.uniform(-0.5, 0.5) if augmentation.min_area < 1 else 1.0
    crop_height, crop_width = min(1.0, area**0.5 / stretch) * height, min(1.0, area**0.5 * stretch) * width
    top, left = random.uniform(0, height - crop_height), random.uniform(0, width - crop_width)
    box = (left, top, left + crop_width, top + crop_height)
    mirrored, light = random.random() < 0.5, 1 + random.uniform(-augmentation.brightness, augmentation.brightness)
    view = resample(picture, size, box, "bilinear")
    if augmentation.brightness:
        view = np.minimum(np.arange(256) * light, 255).astype(np.uint8)[view]
    return view[:, ::-1] if mirrored and augmentation.mirror else view
