"""Near twins across the split: test photos that are all but copies of training photos, and what is left without them.

Exact copies fall into one part by their content. A photo that was saved again, cut or taken a moment later is another
file: it is found by its features, and the report names it and counts the accuracy without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from mobilenet_hub.evaluation.dataset import Example
from mobilenet_hub.evaluation.metrics import Metrics, Outcome, wilson_interval
from mobilenet_hub.evaluation.page import card, figure, thumbnail
from mobilenet_hub.host.percent import percent

TWIN = 0.95  # cosine of features from which two photos are all but the same, with any module; measured: docs/search.md
_ROWS = 512  # test photos that are compared at a time
_MAX_PAIRS = 12  # on the page
_MAX_NAMED = 3  # in a line


@dataclass(frozen=True, slots=True)
class Twin:
    """A test photo and the training photo that is nearest to it."""

    photo: Example
    of: Example
    similarity: float  # cosine of their features


@dataclass(frozen=True, slots=True)
class WithoutTwins:
    """What a classifier did on the test photos that have no twin among the training photos."""

    images: int
    correct: int

    @property
    def accuracy(self) -> float:
        """The share that is right; nan where no photo is left."""
        return self.correct / self.images if self.images else float("nan")

    def to_json(self) -> dict[str, object]:
        """Return plain values for metrics.json."""
        if not self.images:
            return {"images": 0, "accuracy": None, "interval": None}
        interval = [round(bound, 6) for bound in wilson_interval(self.correct, self.images)]
        return {
            "accuracy": round(self.accuracy, 6),
            "interval": interval,
            "images": self.images,
            "correct": self.correct,
        }


def find_twins(
    test: Sequence[Example], test_features: np.ndarray, train: Sequence[Example], train_features: np.ndarray
) -> tuple[Twin, ...]:
    """Return the test photos that have a twin among the training photos, the nearest pair first.

    Args:
        test: the test photos.
        test_features: their feature vectors, float32 [n, features].
        train: the training photos.
        train_features: their feature vectors, float32 [m, features].
    """
    if not test or not train:
        return ()
    theirs, ours = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        for rows in (test_features, train_features)
    )
    found = []
    for start in range(0, len(theirs), _ROWS):
        near = theirs[start : start + _ROWS] @ ours.T
        best = near.argmax(1)
        found += [
            Twin(test[start + row], train[column], float(near[row, column]))
            for row, column in enumerate(best.tolist())
            if near[row, column] >= TWIN
        ]
    return tuple(sorted(found, key=lambda twin: (-twin.similarity, twin.photo.name)))


def without_twins(outcomes: Sequence[Outcome], twins: Sequence[Twin]) -> WithoutTwins:
    """Return what was said of the test photos that have no twin.

    Args:
        outcomes: of all test photos.
        twins: those of them that have one.
    """
    digests = {twin.photo.digest for twin in twins}
    right = [o.label == o.predicted for o in outcomes if o.digest not in digests]
    return WithoutTwins(len(right), sum(right))


def twins_warning(twins: Sequence[Twin], metrics: Metrics, left: WithoutTwins) -> str:
    """Return in one line what twins there are, and the accuracy with and without them.

    Args:
        twins: at least one.
        metrics: of all test photos.
        left: of those without a twin.
    """
    named = "; ".join(f"{twin.photo.name} and {twin.of.name}" for twin in twins[:_MAX_NAMED])
    more = f"; and {len(twins) - _MAX_NAMED} more" if len(twins) > _MAX_NAMED else ""
    counted = (
        f"without them {percent(left.accuracy)} of {left.images} are right"
        if left.images
        else "without them no photo is left to count"
    )
    has = "has a twin" if len(twins) == 1 else "have a twin"
    return (
        f"{len(twins)} of the {metrics.images} test photos {has} among the training photos ({named}{more}): "
        f"{counted}, with them {percent(metrics.accuracy)}; `mobilenet check` lists what to --exclude"
    )


def twins_card(twins: Sequence[Twin], left: WithoutTwins | None) -> str:
    """Return the card of the report that shows twins side by side; empty where there are none."""
    if not twins or left is None:
        return ""
    low, high = wilson_interval(left.correct, left.images)
    counted = (
        f"Counted without them, {percent(left.accuracy)} of {left.images} test photos are right (95% interval "
        f"{percent(low)} to {percent(high)})."
        if left.images
        else "Without them no test photo is left to count."
    )
    shown = f" The {_MAX_PAIRS} nearest of {len(twins)}; metrics.json names all." if len(twins) > _MAX_PAIRS else ""
    pairs = [
        f'<div class="photos twins">{_side(t.photo, "test")}{_side(t.of, f"training, {t.similarity:.4f}")}</div>'
        for t in twins[:_MAX_PAIRS]
    ]
    heading = (
        f"{len(twins)} test {'photo has a twin' if len(twins) == 1 else 'photos have a twin'} among the training photos"
    )
    text = f"Their features are all but the same (cosine from {TWIN:g}), so that they flatter. {counted}{shown}"
    return card(heading, f'<div class="mistakes">{"".join(pairs)}</div>', text)


def _side(example: Example, caption: str) -> str:
    return figure(thumbnail(example.path), example.name, escape(caption), example.path.name, example.name)
