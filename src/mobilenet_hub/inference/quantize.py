"""8-bit inference: a network quantized after training, calibrated with the user's own images.

NNCF measures the range of every activation on some images and corrects the biases; OpenVINO then computes in integers.
Nothing is sent anywhere: NNCF's telemetry is kept from loading.
"""

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import islice
from types import ModuleType

import numpy as np

from mobilenet_hub.errors import InputError, MissingExtraError
from mobilenet_hub.host.cpu import cpu_features
from mobilenet_hub.images.batches import decode_batches
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.inputs import items
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.inference.graph import import_openvino
from mobilenet_hub.inference.openvino import CompiledNetwork, OpenVINO, device_settings

CALIBRATION_IMAGES = 300
_COMPARED_IMAGES = 200
# Instructions that add 8-bit products in 32 bits. Without them the sums are taken in 16, and saturate.
_WIDE_SUMS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})


class Int8Engine:
    """An engine whose network computes in 8-bit integers; `run` is as that of `Engine`, for uint8 images.

    Attributes:
        config: the module's configuration.
        image_size: (height, width) of the images that `run` takes.
        outputs: the names of what `run` returns.
        precision: "int8".
        calibration_sha256: of the pixels that it was calibrated with.
    """

    precision = "int8"
    engine_name = "openvino"

    def __init__(self, engine: Engine, images: np.ndarray):
        """Quantize an engine's network.

        Args:
            engine: computes in f32.
            images: what to calibrate with, uint8 [n, height, width, 3]; some hundreds, like those to come.

        Raises:
            MissingExtraError: NNCF is not installed.
            InputError: no images.
        """
        if not len(images):
            raise InputError("int8 needs images to calibrate with, and there is none that can be read")
        self.config, self.image_size, self.outputs = engine.config, engine.image_size, engine.outputs
        self.threads = engine.threads
        self.calibration_sha256 = hashlib.sha256(images.tobytes()).hexdigest()
        nncf = _import_nncf()
        runner = OpenVINO(engine.job, "f32")
        chunk = runner.chunk
        batches = [_filled(images[start : start + chunk], chunk) for start in range(0, len(images), chunk)]
        wide = bool(_WIDE_SUMS & cpu_features())
        with redirect_stdout(io.StringIO()):  # NNCF draws its progress where our results go
            quantized = nncf.quantize(
                runner.graph(chunk, "uint8"),
                nncf.Dataset(batches),
                subset_size=len(batches),
                preset=nncf.QuantizationPreset.MIXED,  # asymmetric where activations have both signs
                fast_bias_correction=False,  # layer by layer instead: see docs/bulk.md
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix.DISABLE if wide else nncf.OverflowFix.ENABLE
                ),
            )
        compiled = (
            import_openvino().Core().compile_model(quantized, "CPU", device_settings("f32", engine.threads, True))
        )
        self._network = CompiledNetwork(compiled, chunk, engine.outputs)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of uint8 images [batch, height, width, 3]: name and float32 [batch, ...] of each.

        Raises:
            InputError: another shape or dtype.
        """
        if images.ndim != 4 or images.shape[1:] != (*self.image_size, 3) or images.dtype != np.uint8:
            height, width = self.image_size
            raise InputError(
                f"expected uint8 images of shape [batch, {height}, {width}, 3], not {list(images.shape)} of "
                f"{images.dtype}"
            )
        return self._network.run(images)


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
        MissingExtraError: NNCF is not installed.
        InputError: the inputs come from standard input, which is read but once, or hold no image.
    """
    inputs = [os.fspath(argument) for argument in inputs]
    if "-" in inputs:
        raise InputError("int8 reads images twice, to calibrate and to compute: name files instead of standard input")
    first_ones = islice(islice(items(inputs), limit), CALIBRATION_IMAGES + _COMPARED_IMAGES)
    batches = list(decode_batches(first_ones, preprocessing, threads=engine.threads))
    none = np.empty((0, *engine.image_size, 3), np.uint8)
    pixels = np.concatenate([none, *(batch.images for batch in batches)])
    int8 = Int8Engine(engine, pixels[:CALIBRATION_IMAGES])
    first = CALIBRATION_IMAGES if len(pixels) > CALIBRATION_IMAGES else 0
    labels = [label_of(key) for batch in batches for key in batch.keys][first:]
    known = None if None in labels else np.array(labels)
    return int8, agreement(engine, int8, pixels[first:], known, calibrated_with=not first)


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


def _filled(images: np.ndarray, chunk: int) -> np.ndarray:
    """Fill a batch up by repeating its images."""
    return np.resize(images, (chunk, *images.shape[1:]))


def _import_nncf() -> ModuleType:
    """Import NNCF, silent and without its telemetry client."""
    import_openvino()
    client = "openvino_telemetry"
    present = client in sys.modules
    if not present:
        sys.modules[client] = None  # type: ignore[assignment]  # makes NNCF's optional import of it fail
    try:
        import nncf
    except ImportError as error:
        raise MissingExtraError("nncf", "int8", "int8") from error
    finally:
        if not present:
            del sys.modules[client]
    nncf.set_log_level(40)  # logging.ERROR: it warns that a small calibration set is small
    return nncf
