"""Scores that can be read as probabilities: a temperature fitted on held-out photos, and what abstaining gives.

Source: Guo et al. (2017), On Calibration of Modern Neural Networks: softmax(logits / T), with the T that makes the
held-out labels likeliest. It never changes the order of the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilenet_hub.inference.probabilities import cross_entropies, softmax

_FEWEST = 20  # photos, below which nothing is fitted
_RANGE = (0.05, 20.0)
_STEPS = 60  # of a golden-section search: to a part in 10^11 of the range
_SPREAD = 0.5  # of log T as expected beforehand: a few photos, all of them right, would say T = 0
_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
TARGETS = (0.95, 0.99)  # shares of right answers that a threshold is looked for


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that makes the labels likeliest; 1 where there are too few photos to tell.

    Args:
        probabilities: float [n, classes] at temperature 1, of photos that trained nothing.
        labels: int [n], the true classes.

    Example:
        >>> sure = np.tile([[0.999, 0.001]], (100, 1))  # and right in 80 of 100 cases
        >>> 3 < fit_temperature(sure, np.repeat([0, 1], [80, 20])) < 6
        True
    """
    if len(labels) < _FEWEST:
        return 1.0
    logits = _logits(probabilities)

    def cost(log_t: float) -> float:
        losses = cross_entropies(logits / np.exp(log_t), labels)
        return float(losses.sum()) + log_t**2 / (2 * _SPREAD**2)

    ratio = (np.sqrt(5) - 1) / 2
    low, high = np.log(_RANGE[0]), np.log(_RANGE[1])
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if cost(left) < cost(right) else (left, high)
    return round(float(np.exp((low + high) / 2)), 4)


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities [n, classes] at another temperature, float64, from those at temperature 1.

    Example:
        >>> at_temperature(np.array([[0.8, 0.2]]), 0.5).round(3).tolist()
        [[0.941, 0.059]]
    """
    return softmax(_logits(probabilities) / temperature)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Return logits, float64, that these are the probabilities of."""
    return np.log(np.maximum(probabilities.astype(np.float64), 1e-30))


@dataclass(frozen=True, slots=True)
class Believed:
    """What is answered, and how well, where only scores of a threshold and above are believed."""

    threshold: float
    answered: float  # share of the photos
    accuracy: float  # share of the answers that is right; nan where there are none
    images: int  # answered


def believed(scores: Sequence[float], right: Sequence[bool], threshold: float) -> Believed:
    """Say what believing only scores from a threshold on gives.

    Example:
        >>> believed([0.9, 0.8, 0.3], [True, False, False], 0.5).accuracy
        0.5
    """
    sure = np.asarray(scores) >= threshold
    count = int(sure.sum())
    accuracy = float(np.asarray(right)[sure].mean()) if count else float("nan")
    return Believed(threshold, count / len(sure) if len(sure) else 0.0, accuracy, count)


def abstaining(scores: Sequence[float], right: Sequence[bool]) -> list[Believed]:
    """Return the table of abstaining: a row for each of some thresholds.

    Example:
        >>> [row.images for row in abstaining([0.97, 0.4], [True, True])][:2]
        [2, 1]
    """
    return [believed(scores, right, threshold) for threshold in (0.0, *_THRESHOLDS)]


def threshold_for(scores: Sequence[float], right: Sequence[bool], target: float) -> Believed | None:
    """Return the lowest score from which on at least `target` of the answers are right; None where there is none.

    Example:
        >>> threshold_for([0.9, 0.8, 0.3], [True, True, False], 0.95).threshold
        0.8
    """
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    ranked = np.asarray(scores, float)[order]
    shares = np.cumsum(np.asarray(right, float)[order]) / np.arange(1, len(order) + 1)
    last = np.append(ranked[1:] < ranked[:-1], True) if len(ranked) else np.zeros(0, bool)  # of those of one score
    good = np.flatnonzero(last & (shares >= target))
    return believed(scores, right, float(ranked[good[-1]])) if len(good) else None
