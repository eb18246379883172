"""Whether bfloat16 moves a module's scores by more than may be: measured once, on made-up pictures, and remembered.

The features' cosine stays above 0.999, but a head that was trained long makes much of little. The pictures have edges,
colors, shades and grain, as photos have; noise with the spectrum of photos moves scores less.
"""

from dataclasses import replace
from functools import cache

import numpy as np

from mobilenet_hub.inference.compiled import cache_key, compiled_file, keep, mapped
from mobilenet_hub.inference.graph import Arithmetic
from mobilenet_hub.inference.job import Job
from mobilenet_hub.inference.openvino import OpenVINO, machine

# A score may move by 0.05. These few pictures do not show the most: of 23 modules, others' and ours, eleven had a
# score of one of 120 photos moved by more (0.051 to 0.56), and here each of those is above 0.044.
MOST_MOVED = 0.04
_CLASSES = 3  # the likeliest, between which an answer is decided
_COMPARED: tuple[Arithmetic, ...] = ("bf16", "f32")
_PICTURES = 24
_SHAPES = 60  # shapes that cover one another


def keeps_scores(job: Job) -> bool:
    """Tell whether a job's scores may be computed in bfloat16; of a module folder, that is remembered.

    Args:
        job: has the logits among its outputs.
    """
    if job.folder is None:
        return scores_moved(job) <= MOST_MOVED
    file = compiled_file(f"{cache_key(replace(job, threads=None), machine(), 'moved')}.moved")
    kept = mapped(file)
    moved = scores_moved(job) if kept is None else float(bytes(kept))
    if kept is None:
        keep(file, repr(moved).encode())
    return moved <= MOST_MOVED


def scores_moved(job: Job) -> float:
    """Return by how much bfloat16 could move a score: on made-up pictures, had they stood between two classes.

    What moves is the distance between the likeliest classes' logits. A score follows it the most where two classes are
    equally likely; a distance that moves by d moves it there by tanh(d / 4). Few pictures stand there by chance. A
    temperature above 1, which training fits at its very end, is left out: it only makes scores move less.
    """
    job = replace(job, source=job.module(), outputs=("logits",))
    pictures, temperature = made_up_pictures(job.image_size), min(job.config.variant.temperature, 1.0)
    near, exact = (
        OpenVINO(job, arithmetic).run(pictures)["logits"].astype(np.float64) / temperature for arithmetic in _COMPARED
    )
    likeliest = np.argsort(-exact, axis=1)[:, :_CLASSES]
    moved = np.take_along_axis(near - exact, likeliest, axis=1)
    return float(np.tanh(np.abs(moved[:, 1:] - moved[:, :1]).max(initial=0.0) / 4))


@cache
def made_up_pictures(size: tuple[int, int], count: int = _PICTURES) -> np.ndarray:
    """Return pictures of overlapping shapes, uint8 [count, height, width, 3], always the same.

    Example:
        >>> made_up_pictures((32, 48), 4).shape
        (4, 32, 48, 3)
    """
    random = np.random.default_rng(0)
    return np.clip(np.rint([_shapes(random, *size) for _ in range(count)]), 0, 255).astype(np.uint8)


def _shapes(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return shaded ellipses and rectangles, one over the other, and a little grain."""
    y, x = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), random.uniform(0, 255, 3))
    for _ in range(_SHAPES):
        radius = 0.5 * min(height, width) * random.uniform(0.08, 1) ** 2 + 2
        down = (y - random.uniform(0, height)) / radius
        right = (x - random.uniform(0, width)) / (radius * random.uniform(0.4, 2.5))
        inside = np.hypot(down, right) < 1 if random.random() < 0.6 else np.maximum(abs(down), abs(right)) < 1
        shade = 1 + 0.3 * random.normal() * down[inside]
        picture[inside] = shade[:, np.newaxis] * random.uniform(0, 255, 3)
    return picture + random.normal(0, random.uniform(2, 12), picture.shape)
