"""The proof of an export: it is loaded by its own runtime and held against our engine, on images made from nothing."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import ProofError
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.host.percent import percent
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.engine import Engine

Run = Callable[[np.ndarray], dict[str, np.ndarray]]  # images to the outputs by the names of the request

# The largest difference allowed, as a part of the largest value expected or of 1, whichever is more. float32: what
# independent implementations of these networks agree to. The others: about three times what was measured on trained
# and on random weights, docs/export.md.
TOLERANCES = {"float32": 1e-4, "float16": 0.02, "dynamic": 0.3, "int8": 0.5}
# The least share of images with the same top class that an export of less than float32 may have and is kept: with
# fewer, its answers are others, whatever the sizes of the differences.
LEAST_AGREEMENT = 0.5
IMAGES = 8
_PHOTOS = 64  # of the calibration photos, where there are any
_WAVES = 6


@dataclass(frozen=True)
class Proof:
    """What was found when the export was run by its own runtime."""

    format: str
    path: str  # where the export lies
    bytes: int  # its size on disk
    runtime: str  # what ran it, with its version
    images: int
    sizes: tuple[tuple[int, int], ...]  # the image sizes that it was run at
    difference: float  # the largest, over all outputs
    tolerance: float  # what was allowed
    top1_agreement: float | None  # how many images have the same first class; None where there are no classes
    choices: dict[str, object]  # the module and the options
    warnings: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()  # what was to calibrate with, and is no photo

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {**asdict(self), "skipped": [{"path": skip.name, "reason": skip.reason} for skip in self.skipped]}

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", "utf-8", "backslashreplace")


def prove(
    request: Request, loaded: tuple[str, Run], path: Path, num_bytes: int, *, any_agreement: bool = False
) -> Proof:
    """Run the export and the engine on the same images, and compare all outputs.

    Args:
        request: what was exported.
        loaded: the runtime's name, and the export, run by it.
        path: where the export will lie.
        num_bytes: its size.
        any_agreement: whether one that mostly gives other top classes than the module is kept, too.

    Raises:
        ProofError: an output is missing, has another shape, is not finite or differs by more than the tolerance, or
            too many images get another top class.
    """
    runtime, run = loaded
    sizes = proof_sizes(request)
    difference, allowed, images, agreed, ranked = 0.0, 0.0, 0, 0, 0
    for size in sizes:
        batch = proof_images(request, size)
        images += len(batch)
        expected = Engine(request.module, request.endpoints, image_size=size, precision="f32", any_size=True).run(batch)
        found = _run_all(run, batch, request.batch_size)
        for name, endpoint in zip(request.outputs, request.endpoints, strict=True):
            limit = TOLERANCES[request.precision] * max(1.0, float(np.abs(expected[endpoint]).max()))
            far = _difference(name, found, expected[endpoint], limit)
            difference, allowed = max(difference, far), max(allowed, limit)
            if name.lower() in ("logits", "predictions", "probabilities"):
                agreed += int((found[name].argmax(1) == expected[endpoint].argmax(1)).sum())
                ranked += len(batch)
    if request.precision != "float32" and agreed < LEAST_AGREEMENT * ranked and not any_agreement:
        raise ProofError(
            f"the export is not right: {_changed(request, agreed, ranked)}, and at least {percent(LEAST_AGREEMENT)} "
            "must be the same; nothing was kept. Take another precision or more photos to calibrate with, or keep it "
            "all the same with overwrite=True"
        )
    return Proof(
        format=request.format.name,
        path=str(path),
        bytes=num_bytes,
        runtime=runtime,
        images=images,
        sizes=sizes,
        difference=difference,
        tolerance=allowed,
        top1_agreement=agreed / ranked if ranked else None,
        choices=dict(request.facts),
        warnings=() if agreed == ranked else (_changed(request, agreed, ranked),),
        skipped=request.left_out,
    )


def _changed(request: Request, agreed: int, ranked: int) -> str:
    """Say how many top classes are others."""
    return f"in {request.precision} {ranked - agreed} of {ranked} top classes are others than the module's"


def _difference(name: str, found: dict[str, np.ndarray], expected: np.ndarray, limit: float) -> float:
    if name not in found or found[name].shape != expected.shape:
        there = list(found[name].shape) if name in found else f"only {', '.join(found)}"
        raise ProofError(f"the export is not right: {name} should be {list(expected.shape)}, but there is {there}")
    if not (np.isfinite(found[name]).all() and np.isfinite(expected).all()):
        raise ProofError(f"the export is not right: {name} has values that are not finite; nothing was kept")
    difference = float(np.abs(found[name].astype(np.float64) - expected).max())
    if difference > limit:
        raise ProofError(
            f"the export is not right: {name} differs by {difference:.3g} from the module, more than the {limit:.3g} "
            "allowed; nothing was kept"
        )
    return difference


def proof_sizes(request: Request) -> tuple[tuple[int, int], ...]:
    """Return the image sizes to run at: the one size, or where any is taken also one that is odd and oblong."""
    if request.image_size is not None:
        return (request.image_size,)
    height, width = request.usual_size
    return (height, width), (height + 33, width - 1)


def proof_images(request: Request, size: tuple[int, int]) -> np.ndarray:
    """Return images [8 or more, height, width, 3], uint8 where the export takes that: photos, where there are any."""
    made = [_waves(seed, size) for seed in range(IMAGES)]
    images = np.clip(np.rint(np.stack(made) * 255), 0, 255).astype(np.uint8)
    if request.photos is not None and request.photos.shape[1:3] == size:
        photos = request.photos[:_PHOTOS]
        images = np.concatenate([photos, images])[: max(IMAGES, len(photos))]
    return images if request.uint8_input else (images / np.float32(255)).astype(np.float32)


def _waves(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Return a picture in [0, 1]: waves of many lengths, brighter and darker regions, and a little noise."""
    random = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.linspace(0, 1, n, dtype=np.float32) for n in size), indexing="ij")
    picture = np.zeros((*size, 3), np.float32)
    for _ in range(_WAVES):
        frequency, phase = random.uniform(-20, 20, 2), random.uniform(0, 2 * np.pi, 3)
        wave = (y * frequency[0] + x * frequency[1])[..., np.newaxis] * 2 * np.pi
        picture += random.uniform(0, 1, 3) * np.sin(wave + phase)
    picture += random.normal(0, 0.2, picture.shape)
    return np.clip(0.5 + picture / 4, 0, 1)


def _run_all(run: Run, images: np.ndarray, batch_size: int | None) -> dict[str, np.ndarray]:
    """Run a batch, in parts of the batch size where that is fixed; the last part is filled up."""
    if batch_size is None:
        return run(images)
    parts = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        missing = batch_size - len(part)
        parts.append(run(np.concatenate([part, np.repeat(part[:1], missing, 0)]) if missing else part))
    return {name: np.concatenate([part[name] for part in parts])[: len(images)] for name in parts[0]}
