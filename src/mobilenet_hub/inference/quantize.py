"""8-bit inference: a network quantized after training, calibrated with the user's own images, run by LiteRT.

The float network tells the range of every activation and the mean of every layer's input. Kernels are rounded channel
by channel, and each bias takes back what its kernel's rounding moves on those means. What lies behind the last
convolution stays float32. docs/bulk.md has the figures, and what other ways gave.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mobilenet_hub.architecture import Architecture, ConvUnit, pad_amounts
from mobilenet_hub.errors import InputError
from mobilenet_hub.images.batches import decode_batches
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.inputs import Item, items
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.inference.graph import fold_batch_norm
from mobilenet_hub.inference.job import EngineName, Job
from mobilenet_hub.inference.litert import LiteRTModel, kept_model
from mobilenet_hub.inference.litert_graph import Int8, build_litert, build_probe, input_steps, signature_name
from mobilenet_hub.inference.litert_model import Steps, quantized_kernel

CALIBRATION_IMAGES = 300
_COMPARED_IMAGES = 200


class Int8Engine:
    """An engine whose network computes in 8-bit integers; `run` is as that of `Engine`, for uint8 images.

    Attributes:
        config: the module's configuration.
        image_size: (height, width) of the images that `run` takes.
        outputs: the names of what `run` returns.
        precision: "int8".
        engine_name: "litert".
        calibration_sha256: of the pixels that it was calibrated with.
    """

    precision = "int8"
    engine_name: EngineName = "litert"

    def __init__(self, engine: Engine, images: np.ndarray):
        """Quantize an engine's network; of a module folder the result is kept on disk.

        Args:
            engine: computes in f32.
            images: what to calibrate with, uint8 [n, height, width, 3]; some hundreds, like those to come.

        Raises:
            InputError: no images.
            MissingExtraError: LiteRT is not installed.
        """
        if not len(images):
            raise InputError("int8 needs images to calibrate with, and there is none that can be read")
        self.config, self.image_size, self.outputs = engine.config, engine.image_size, engine.outputs
        self.threads = engine.threads
        self._names = {name: signature_name(name) for name in self.outputs}
        self.calibration_sha256 = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
        self._network = LiteRTModel(_written(engine.job, images, self.calibration_sha256), threads=engine.threads)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of uint8 images [batch, height, width, 3]: name and float32 [batch, ...] of each.

        Raises:
            InputError: another shape or dtype.
        """
        results = self._network.run(images)
        return {name: results[own] for name, own in self._names.items()}


def _written(job: Job, images: np.ndarray, calibration_sha256: str) -> bytes | Path:
    def build() -> bytes:
        module = job.module()
        network, size = module.config.network, job.image_size
        int8 = calibrated(network, module.weights, images, threads=job.threads)
        return build_litert(network, module.weights, size, job.outputs, input_type="uint8", arithmetic=int8)

    return kept_model(job, ("int8", calibration_sha256), build)


def calibrated(
    network: Architecture, weights: Mapping[str, np.ndarray], images: np.ndarray, *, threads: int | None = None
) -> Int8:
    """Measure on images how a network is to compute in 8 bits.

    Args:
        network: the architecture.
        weights: float32 arrays by TF-Slim name.
        images: uint8 [n, height, width, 3].
        threads: how many to use; None: as many as there are cores.
    """
    size = images.shape[1:3]
    seen = _Seen()
    probe = LiteRTModel(build_probe(network, weights, size), threads=threads)
    for image in images:
        seen.add(probe.run(image[np.newaxis]))
    steps = [seen.steps(f"unit {number}") for number in range(len(network.units))]
    sums = [None if unit.adds is None else seen.steps(f"sum {number}") for number, unit in enumerate(network.units)]
    scale, offset = network.variant.input_scale / 255, network.variant.input_offset
    means = [images.mean(axis=0, dtype=np.float64) * scale + offset]
    means += [seen.mean(f"unit {i}" if total is None else f"sum {i}") for i, total in enumerate(sums)]
    given = [input_steps(network), *(total or own for own, total in zip(steps, sums, strict=True))]
    biases = []
    for unit, mean, one in zip(network.units, means, given, strict=False):  # of the last nobody computes
        kernel, bias = fold_batch_norm(network, unit, weights)
        axis = 2 if unit.depthwise else 3
        near, scales = quantized_kernel(kernel, axis, bias / one.scale)
        moved = near * scales.reshape([-1 if i == axis else 1 for i in range(4)]) - kernel.astype(np.float64)
        biases.append((bias - _mean_output(network, unit, moved, mean)).astype(np.float32))
    return Int8(steps, sums, biases)


class _Seen:
    """What was seen of activations: the least and greatest value of each, and its mean at every place."""

    def __init__(self) -> None:
        self._count = 0
        self._totals: dict[str, np.ndarray] = {}
        self._ranges: dict[str, tuple[float, float]] = {}

    def add(self, values: Mapping[str, np.ndarray]) -> None:
        """Add those of an image, each [1, height, width, channels]."""
        self._count += 1
        for name, (value,) in values.items():
            low, high = self._ranges.get(name, (0.0, 0.0))
            self._ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
            if name in self._totals:
                self._totals[name] += value
            else:
                self._totals[name] = value.copy()

    def steps(self, name: str) -> Steps:
        """Return 256 steps over all that was seen."""
        return Steps.spanning(*self._ranges[name])

    def mean(self, name: str) -> np.ndarray:
        """Return the mean over the images, [height, width, channels]."""
        return self._totals[name] / self._count


def _mean_output(network: Architecture, unit: ConvUnit, kernel: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the mean over all places [out] of what a kernel of a unit's form makes of a mean input [h, w, in]."""
    amounts = [pad_amounts(n, unit.kernel_size, unit.stride, network.variant.padding) for n in mean.shape[:2]]
    padded = np.pad(mean, (*amounts, (0, 0)))
    k, stride = unit.kernel_size, unit.stride
    height, width = ((n - k) // stride + 1 for n in padded.shape[:2])
    result = np.zeros(unit.out_channels)
    for y, x in np.ndindex(k, k):
        seen = padded[y : y + stride * height : stride, x : x + stride * width : stride][:height, :width]
        seen = seen.mean(axis=(0, 1), dtype=np.float64)
        result += kernel[y, x, :, 0] * seen if unit.depthwise else seen @ kernel[y, x]
    return result


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near a quantized network comes to the original."""

    images: int
    calibrated_with: bool  # whether these very images were calibrated with, for want of others
    cosine: float  # mean cosine similarity of the outputs
    least_cosine: float
    top1: float  # share of images with the same likeliest class; of features: the same greatest one
    accuracy: tuple[float, float] | None = None  # (original, quantized) where labels are known


def quantized(
    engine: Engine,
    inputs: Iterable[str | os.PathLike[str]],
    preprocessing: Preprocessing,
    *,
    limit: int | None = None,
    label_of: Callable[[str], int | None] = lambda name: None,
) -> tuple[Int8Engine, Agreement]:
    """Calibrate with the first images of the inputs, and compare with the original on those that follow.

    Args:
        engine: the original.
        inputs: as for `sources.items`.
        preprocessing: how images become the engine's input.
        limit: look at no more than this many inputs.
        label_of: tells the true class of an image by its name, where it is known; the output is logits then.

    Raises:
        MissingExtraError: LiteRT is not installed.
        InputError: the inputs come from standard input, which is read but once, or hold no image.
    """
    inputs = [os.fspath(argument) for argument in inputs]
    if "-" in inputs:
        raise InputError("int8 reads images twice, to calibrate and to compute: name files instead of standard input")
    first_ones = islice(islice(items(inputs), limit), CALIBRATION_IMAGES + _COMPARED_IMAGES)
    pixels, names = _decoded(first_ones, preprocessing, engine.threads)
    int8 = Int8Engine(engine, pixels[:CALIBRATION_IMAGES])
    first = CALIBRATION_IMAGES if len(pixels) > CALIBRATION_IMAGES else 0
    labels = [label_of(name) for name in names[first:]]
    known = None if None in labels else np.array(labels)
    return int8, agreement(engine, int8, pixels[first:], known, calibrated_with=not first)


def _decoded(images: Iterable[Item], preprocessing: Preprocessing, threads: int | None) -> tuple[np.ndarray, list[str]]:
    """Return the images that can be read, at most as many as are needed, and their names; each held once."""
    most = CALIBRATION_IMAGES + _COMPARED_IMAGES
    pixels, names = np.empty((most, *preprocessing.image_size, 3), np.uint8), []
    for batch in decode_batches(images, preprocessing, threads=threads):
        pixels[len(names) : len(names) + len(batch.keys)] = batch.images
        names += batch.keys
    return pixels[: len(names)], names


def agreement(
    engine: Engine,
    int8: Int8Engine,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    calibrated_with: bool = False,
) -> Agreement:
    """Compare a quantized network with the original on images, uint8 [n, height, width, 3].

    Args:
        engine: the original.
        int8: made of it.
        images: to compare on.
        labels: the true classes [n] where they are known and the output is logits.
        calibrated_with: whether the images are those of the calibration.
    """
    name = engine.outputs[0]
    exact, near = (e.run(images)[name].astype(np.float64) for e in (engine, int8))
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(near, axis=1)
    cosines = (exact * near).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    best, nearest = exact.argmax(axis=1), near.argmax(axis=1)
    accuracy = None if labels is None else (float((best == labels).mean()), float((nearest == labels).mean()))
    same = float((best == nearest).mean())
    return Agreement(len(images), calibrated_with, float(cosines.mean()), float(cosines.min()), same, accuracy)
