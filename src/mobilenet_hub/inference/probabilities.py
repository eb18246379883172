"""From logits to probabilities and losses, in float64: what every answer, fit and judgement computes them by."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [n, classes] in float64 for logits [n, classes].

    Example:
        >>> softmax(np.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    powers = np.exp(_shifted(logits))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -log of each true class's probability, float64 [n], for logits [n, classes] and labels int [n].

    It is finite where the probability itself is too small for a number.

    Example:
        >>> cross_entropies(np.array([[2000.0, 0.0]]), np.array([1])).tolist()
        [2000.0]
    """
    shifted = _shifted(logits)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def likeliest(scores: np.ndarray, top: int, logits: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices and scores [n, top] of the likeliest classes for scores [n, classes], the likeliest first.

    Of equal scores, the class with the lower index comes first; `top` beyond the number of classes gives all of them.
    Where the logits are given, their order decides: scores too small for a number are all 0.

    Example:
        >>> indices, scores = likeliest(np.array([[0.25, 0.75]]), 1)
        >>> indices.tolist(), scores.tolist()
        ([[1]], [[0.75]])
    """
    order = scores if logits is None else logits
    best = np.argsort(-order, axis=1, kind="stable")[:, :top]
    return best, scores[np.arange(len(scores))[:, np.newaxis], best]


def _shifted(logits: np.ndarray) -> np.ndarray:
    """Return logits less the largest of each row, which changes no probability and lets no power overflow."""
    exact = logits.astype(np.float64, copy=False)
    return exact - exact.max(axis=1, keepdims=True)
