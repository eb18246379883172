"""How good a classifier's probabilities are: accuracy and its interval, classes, confusion, calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np

from mobilenet_hub.host.percent import percent

_NORMAL_QUANTILE = 1.959963984540054  # of 0.975, for intervals of 95 %
_BINS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a classifier said about one photo."""

    path: Path
    name: str  # "class/file name"
    digest: str  # SHA-1 of the file's bytes
    label: int  # index of the true class
    predicted: int  # index of the class with the highest score
    score: float  # that score
    true_score: float  # the score of the true class


@dataclass(frozen=True)
class Curve:
    """Lines over a common axis: training and validation loss over epochs, or over strengths."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]  # name -> (x, y) points
    log_x: bool = False
    chosen: float | None = None  # the x that was kept


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The photos whose highest score lies in one tenth of [0, 1]."""

    low: float
    high: float
    images: int
    confidence: float  # their mean score
    accuracy: float  # the share of them that is right


@dataclass(frozen=True)
class Metrics:
    """What a classifier did on one set of photos."""

    images: int
    correct: int
    top5: float | None  # None where there are five classes or fewer
    loss: float  # mean negative log probability of the true class
    confusion: np.ndarray  # int [true class, predicted class]
    reliability: tuple[ReliabilityBin, ...]

    def __str__(self) -> str:
        """Say in one line what was measured; the confusion matrix is too large to print."""
        low, high = self.interval
        top5 = "" if self.top5 is None else f", top-5 {percent(self.top5)}"
        return (
            f"{percent(self.accuracy)} of {self.images} photos right (95% interval {percent(low)} to {percent(high)})"
            f"{top5}, calibration error {percent(self.calibration_error)}"
        )

    def __repr__(self) -> str:
        """Say the same with the loss."""
        return f"Metrics({self}, loss {self.loss:.3f})"

    @property
    def accuracy(self) -> float:
        """The share of photos whose highest score is the true class's."""
        return self.correct / self.images if self.images else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.images)

    @property
    def recall(self) -> np.ndarray:
        """Of each class's photos, the share that was recognised; float [classes], nan where it has no photos."""
        return _ratio(np.diagonal(self.confusion), self.confusion.sum(1))

    @property
    def precision(self) -> np.ndarray:
        """Of the photos taken for each class, the share that is one; float [classes], nan where there are none."""
        return _ratio(np.diagonal(self.confusion), self.confusion.sum(0))

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have photos: every class counts the same."""
        recall = self.recall[self.confusion.sum(1) > 0]
        return float(recall.mean()) if len(recall) else float("nan")

    @property
    def calibration_error(self) -> float:
        """The expected calibration error: how far scores and shares of right answers lie apart, over ten bins."""
        gaps = sum(bin.images * abs(bin.confidence - bin.accuracy) for bin in self.reliability)
        return gaps / self.images if self.images else float("nan")

    def to_json(self, labels: Sequence[str]) -> dict[str, object]:
        """Return plain values for metrics.json, rounded to what the number of photos can carry."""
        if not self.images:
            return {"images": 0, "accuracy": None, "interval": None}
        occur = np.flatnonzero(self.confusion.sum(0) + self.confusion.sum(1)).tolist()  # of 1001 classes perhaps ten
        images, precision, recall = self.confusion.sum(1), self.precision, self.recall
        return {
            "accuracy": round(self.accuracy, 6),
            "interval": [round(bound, 6) for bound in self.interval],
            "images": self.images,
            "correct": self.correct,
            "balanced_accuracy": round(self.balanced_accuracy, 6),
            **({} if self.top5 is None else {"top5_accuracy": round(self.top5, 6)}),
            "loss": round(self.loss, 6),
            "calibration_error": round(self.calibration_error, 6),
            "classes": [
                {
                    "label": labels[i],
                    "images": int(images[i]),
                    "precision": _number(precision[i]),
                    "recall": _number(recall[i]),
                }
                for i in occur
            ],
            "confusion": self.confusion[np.ix_(occur, occur)].tolist(),  # [true, predicted], as `classes` are ordered
        }


def measure(probabilities: np.ndarray, labels: np.ndarray) -> Metrics:
    """Compare probabilities with the true classes.

    Args:
        probabilities: float [n, classes], each row a distribution.
        labels: int [n], the true classes.

    Returns:
        The metrics.

    Example:
        >>> measure(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1])).correct
        2
    """
    count, classes = probabilities.shape
    predicted, scores = probabilities.argmax(1), probabilities.max(1)
    right = predicted == labels
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    true_scores = probabilities[np.arange(count), labels]
    top5 = None
    if classes > 5 and count:
        top5 = float(((probabilities > true_scores[:, None]).sum(1) < 5).mean())
    loss = float(-np.log(np.maximum(true_scores, 1e-12)).mean()) if count else float("nan")
    return Metrics(count, int(right.sum()), top5, loss, confusion, _reliability(scores, right))


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a share; sensible for few photos and near 0 and 1.

    Source: Wilson (1927), Journal of the American Statistical Association 22, 209-212.

    Example:
        >>> [round(bound, 3) for bound in wilson_interval(90, 100)]
        [0.826, 0.945]
    """
    if not images:
        return 0.0, 1.0
    share, z2 = correct / images, _NORMAL_QUANTILE**2
    centre = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = _NORMAL_QUANTILE / (1 + z2 / images) * sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _reliability(scores: np.ndarray, right: np.ndarray) -> tuple[ReliabilityBin, ...]:
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    found = []
    for index in range(_BINS):
        inside = bins == index
        if inside.any():
            low, high = index / _BINS, (index + 1) / _BINS
            mean_score, share = float(scores[inside].mean()), float(right[inside].mean())
            found.append(ReliabilityBin(low, high, int(inside.sum()), mean_score, share))
    return tuple(found)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
