"""The classifier on top of fixed features: regularised softmax regression, fitted to convergence.

Features are standardised for the fit and the standardisation is folded into the weights afterwards, so that the
result is a plain classifier: logits = features @ weights + biases.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mobilenet_hub.inference.probabilities import softmax

# From a head that only knows the classes' frequencies to one that all but interpolates; mean loss per photo plus
# strength / 2 * |weights|**2, on standardised features.
STRENGTHS = tuple(10.0**exponent for exponent in np.arange(0.5, -3.6, -0.5))
_TOLERANCE = 1e-5  # largest entry of the gradient at which a fit counts as converged
_MAX_ITERATIONS = 1000
_PATIENCE = 2  # strengths in a row without a lower validation loss
_ROUNDING = 1e-7  # of a loss from float32 products
_MEMORY = 10  # pairs of steps that L-BFGS remembers


@dataclass(frozen=True)
class Head:
    """A fitted classifier and how it was chosen."""

    weights: np.ndarray  # float32 [features, classes]
    biases: np.ndarray  # float32 [classes]
    strength: float
    curve: tuple[tuple[float, float, float], ...]  # (strength, training loss, validation loss) of every strength tried
    iterations: int  # of all fits together
    converged: bool

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return float32 logits [n, classes] of features [n, features]."""
        return features @ self.weights + self.biases


def fit_head(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    class_weights: np.ndarray | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Head:
    """Fit softmax regression at each strength of regularisation; keep the strongest that validates as well as the best.

    Args:
        features: float32 [n, features], of the training photos.
        labels: int [n], in [0, num_classes).
        num_classes: number of classes.
        validation: features and labels of the photos that choose the strength; without, the middle one is taken.
        class_weights: float [num_classes], the weight of a photo of each class; None: 1 each.
        strengths: what to try, strongest first: each fit starts from the one before.

    Returns:
        The chosen head.

    Example:
        >>> features = np.array([[-1.0], [-2.0], [1.0], [2.0]], np.float32)
        >>> head = fit_head(features, np.array([0, 0, 1, 1]), 2)
        >>> head.logits(features).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
    if validation is None or not len(validation[1]):
        strengths = (strengths[len(strengths) // 2],)
    weight = np.ones(num_classes) if class_weights is None else class_weights
    standard = ((features - mean) * scale).astype(np.float32)
    weights, biases = np.zeros((features.shape[1], num_classes)), np.zeros(num_classes)
    fits, curve, steps, converged = [], [], 0, True
    for strength in strengths:
        weights, biases, iterations = _fit(standard, labels, weight, strength, weights, biases)
        steps, converged = steps + iterations, converged and iterations < _MAX_ITERATIONS
        folded = weights * scale[:, None], biases - (mean * scale) @ weights
        training = _losses(features, labels, weight, *folded)
        held_out = _losses(*validation, weight, *folded) if validation and len(validation[1]) else training
        fits.append((strength, *folded, held_out))
        curve.append((float(strength), float(training.mean()), float(held_out.mean())))
        means = [validation_loss for _, _, validation_loss in curve]
        if min(means[-_PATIENCE:]) > min(means):
            break  # weaker still would only be worse
    strength, kernel, offset, _ = fits[_strongest_good([losses for *_, losses in fits])]
    return Head(kernel.astype(np.float32), offset.astype(np.float32), strength, tuple(curve), steps, converged)


def balanced_class_weights(counts: Sequence[int]) -> np.ndarray:
    """Return weights [classes] under which every class counts the same in the loss; 1 on average over photos."""
    present = np.maximum(np.asarray(counts, np.float64), 1)
    return np.asarray(counts).sum() / (np.count_nonzero(counts) * present)


def _losses(
    features: np.ndarray, labels: np.ndarray, weight: np.ndarray, weights: np.ndarray, biases: np.ndarray
) -> np.ndarray:
    """Return the loss of each photo, [n], weighted so that their mean is the weighted mean."""
    probabilities = softmax(features @ weights + biases)[np.arange(len(labels)), labels]
    return -np.log(np.maximum(probabilities, 1e-30)) * weight[labels] / weight[labels].mean()


def _strongest_good(losses: Sequence[np.ndarray]) -> int:
    """Return the first fit whose loss is within one standard error of the best: few photos cannot tell the two apart.

    Source: Breiman, Friedman, Olshen and Stone (1984), section 3.4.3; the error is that of the paired difference.
    """
    best = min(losses, key=lambda each: each.mean())
    excess = [each - best for each in losses]
    return next(i for i, each in enumerate(excess) if each.mean() <= each.std() / np.sqrt(len(each)))


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    strength: float,
    weights: np.ndarray,
    biases: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Minimise weighted mean cross-entropy + strength / 2 * |weights|**2, from the weights and biases given."""
    shares = weight[labels] / weight[labels].sum()  # [n], sums to 1
    rows = np.arange(len(labels))

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, offset = parameters[:-1], parameters[-1]  # [features, classes], [classes]
        logits = features @ kernel.astype(np.float32) + offset  # float64 after the product
        logits -= logits.max(1, keepdims=True)
        residual = np.exp(logits)
        total = residual.sum(1, keepdims=True)
        loss = shares @ (np.log(total[:, 0]) - logits[rows, labels]) + strength / 2 * (kernel**2).sum()
        residual /= total
        residual[rows, labels] -= 1
        residual *= shares[:, None]
        slopes = features.T @ residual.astype(np.float32) + strength * kernel
        return float(loss), np.vstack([slopes, residual.sum(0)])

    found, iterations = minimise(objective, np.vstack([weights, biases]))
    return found[:-1], found[-1], iterations


def minimise(objective: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray) -> tuple[np.ndarray, int]:
    """Minimise a smooth convex function by L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4).

    Args:
        objective: returns the value and the gradient, of the shape of its argument.
        start: where to begin.

    Returns:
        The minimum, where no entry of the gradient exceeds 1e-5, and the number of iterations.
    """
    point, (value, gradient) = start, objective(start)
    pairs: list[tuple[np.ndarray, np.ndarray, float]] = []  # step, change of the gradient, 1 / their product
    for iteration in range(_MAX_ITERATIONS):
        if np.abs(gradient).max() <= _TOLERANCE:
            return point, iteration
        direction = -_inverse_hessian_times(gradient, pairs)
        slope, length = float((direction * gradient).sum()), 1.0
        while True:  # halve until the value falls by a fair part of what the slope promises
            trial = point + length * direction
            trial_value, trial_gradient = objective(trial)
            if trial_value <= value * (1 + _ROUNDING) + 1e-4 * length * slope or length < 1e-10:
                break
            length /= 2
        step, change = trial - point, trial_gradient - gradient
        point, value, gradient = trial, trial_value, trial_gradient
        if (product := float((step * change).sum())) > 0:
            pairs = [*pairs[1 - _MEMORY :], (step, change, 1 / product)]
    return point, _MAX_ITERATIONS


def _inverse_hessian_times(gradient: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    result, factors = gradient.copy(), []
    for step, change, inverse in reversed(pairs):
        factors.append(inverse * float((step * result).sum()))
        result -= factors[-1] * change
    if pairs:
        step, change, inverse = pairs[-1]
        result /= inverse * float((change * change).sum())
    for (step, change, inverse), factor in zip(pairs, reversed(factors), strict=True):
        result += (factor - inverse * float((change * result).sum())) * step
    return result
