"""Whether bfloat16 moves a module's scores by more than may be: measured once, on made-up pictures, and remembered.

The features' cosine stays above 0.999, but a head trained far from its features' scale makes much of little. The
pictures have what photos have: a spectrum that falls with the frequency, light and dark, edges, colors.
"""

from dataclasses import replace
from functools import cache

import numpy as np

from mobilenet_hub.inference.compiled import cache_key, compiled_file, keep, load_kept
from mobilenet_hub.inference.graph import Arithmetic
from mobilenet_hub.inference.job import Job
from mobilenet_hub.inference.openvino import OpenVINO, machine
from mobilenet_hub.inference.probabilities import softmax

MOST_MOVED = 0.05
_PICTURES = 32
_LEAVES = 60  # shapes that cover one another


def keeps_scores(job: Job, near: OpenVINO) -> bool:
    """Tell whether a job's scores in bfloat16 stay within 0.05 of those in float32.

    Args:
        job: has the logits among its outputs.
        near: the job in bfloat16.
    """
    file = None
    if job.folder is not None:
        file = compiled_file(f"{cache_key(replace(job, threads=None), machine(), 'moved', MOST_MOVED)}.moved")
        kept = load_kept(file)
        if kept is not None:
            return float(bytes(kept)) <= MOST_MOVED
    moved = scores_moved(job, near)
    if file is not None:
        keep(file, repr(moved).encode())
    return moved <= MOST_MOVED


def scores_moved(job: Job, near: OpenVINO, exact: Arithmetic = "f32") -> float:
    """Return by how much the scores of made-up pictures differ at most in bfloat16."""
    pictures = made_up_pictures(job.image_size)
    temperature = job.config.variant.temperature
    first, second = (
        softmax(runner.run(pictures)["logits"].astype(np.float64) / temperature)
        for runner in (near, OpenVINO(job, exact))
    )
    return float(np.abs(first - second).max())


@cache
def made_up_pictures(size: tuple[int, int], count: int = _PICTURES) -> np.ndarray:
    """Return pictures, uint8 [count, height, width, 3], always the same: half of them clouds, half overlapping shapes.

    Example:
        >>> made_up_pictures((32, 48), 4).shape
        (4, 32, 48, 3)
    """
    random = np.random.default_rng(0)
    made = [(_clouds, _shapes)[number % 2](random, *size) for number in range(count)]
    return np.clip(np.rint(np.stack(made)), 0, 255).astype(np.uint8)


def _clouds(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return noise whose amplitude falls with the frequency, as that of photos does."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    planes = []
    for _ in range(4):  # of lightness, and of each color
        spectrum = random.normal(size=(2, *frequency.shape)) / frequency
        plane = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(height, width))
        planes.append(plane / (plane.std() or 1.0))
    lightness, *colors = planes
    contrast, middle = random.uniform(25, 65), random.uniform(80, 170)
    return middle + contrast * np.stack([0.85 * lightness + 0.5 * color for color in colors], axis=2)


def _shapes(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return shaded ellipses and rectangles, one over the other, and a little grain."""
    y, x = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), random.uniform(0, 255, 3))
    for _ in range(_LEAVES):
        radius = 0.5 * min(height, width) * random.uniform(0.08, 1) ** 2 + 2
        down = (y - random.uniform(0, height)) / radius
        right = (x - random.uniform(0, width)) / (radius * random.uniform(0.4, 2.5))
        inside = np.hypot(down, right) < 1 if random.random() < 0.6 else np.maximum(abs(down), abs(right)) < 1
        shade = 1 + 0.3 * random.normal() * down[inside]
        picture[inside] = shade[:, np.newaxis] * random.uniform(0, 255, 3)
    return picture + random.normal(0, random.uniform(2, 12), picture.shape)
