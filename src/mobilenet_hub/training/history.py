"""What is known after each epoch of training, and what follows from it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any

from mobilenet_hub.evaluation.metrics import Curve

_LOST = 20.0  # a mean loss at which right answers are given no chance, e**-20: weights that have diverged


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known after an epoch."""

    number: int  # epochs done; 0: before the first
    training_loss: float | None
    validation_loss: float | None  # None: there are no validation photos
    validation_accuracy: float | None
    seconds: float  # of training until here

    @property
    def loss(self) -> float:
        """What it is judged by: the loss on the validation photos, where there are any."""
        return (self.training_loss or 0.0) if self.validation_loss is None else self.validation_loss

    @property
    def has_diverged(self) -> bool:
        """Whether its weights are of no use."""
        return not (self.loss < _LOST and isfinite(self.training_loss or 0.0))


class History:
    """The epochs of a run, in their order.

    Example:
        >>> history = History()
        >>> for number, loss in enumerate([0.9, 0.5, 0.7]):
        ...     history.add(Epoch(number, None, loss, None, 0.0))
        >>> history.last_is_best(), history.is_over(patience=1)
        (False, True)
    """

    def __init__(self, epochs: Sequence[Epoch] = ()):
        self.epochs = list(epochs)

    @classmethod
    def from_json(cls, values: Sequence[dict[str, Any]]) -> "History":
        """Return the history that `to_json` gave."""
        return cls([Epoch(**value) for value in values])

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain values."""
        return [asdict(epoch) for epoch in self.epochs]

    def add(self, epoch: Epoch) -> None:
        """Add the next epoch."""
        self.epochs.append(epoch)

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the validation photos after the last epoch."""
        return self.epochs[-1].validation_accuracy if self.epochs else None

    @property
    def best(self) -> Epoch | None:
        """The epoch of training with the lowest validation loss, or the last one where there is nothing to tell by.

        None where there was no training, or it has diverged in every epoch.
        """
        sound = [epoch for epoch in self.epochs if epoch.number and not epoch.has_diverged]
        return min(reversed(sound), key=lambda epoch: epoch.validation_loss or 0.0, default=None)

    @property
    def diverged(self) -> Epoch | None:
        """The first epoch that has diverged after the best one; None where there is none."""
        after = self.best.number if self.best else -1
        return next((epoch for epoch in self.epochs if epoch.number > after and epoch.has_diverged), None)

    def last_is_best(self) -> bool:
        """Tell whether no epoch of training had a lower loss."""
        return self.best is self.epochs[-1]

    def is_over(self, patience: int | None) -> bool:
        """Tell whether nothing is to be hoped for: no number is left, or no lower loss for `patience` epochs.

        None, and no validation photos: only the former.
        """
        if self.epochs and not isfinite(self.epochs[-1].training_loss or 0.0):
            return True
        judged = [epoch for epoch in self.epochs if epoch.validation_loss is not None]
        losses = [inf if epoch.has_diverged else epoch.loss for epoch in judged]
        return patience is not None and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience

    def curves(self) -> tuple[Curve, ...]:
        """Return what the report draws: losses and accuracy by epoch."""

        def points(field: str) -> list[tuple[float, float]]:
            found = ((epoch.number, getattr(epoch, field)) for epoch in self.epochs)
            return [(float(number), value) for number, value in found if value is not None and isfinite(value)]

        losses = {"training": points("training_loss"), "validation": points("validation_loss")}
        accuracies = {"validation": points("validation_accuracy")}
        named = (("Loss", "mean loss", losses), ("Accuracy", "share of right answers", accuracies))
        curves = [(title, axis, {name: line for name, line in lines.items() if line}) for title, axis, lines in named]
        return tuple(Curve(title, "epoch", axis, lines) for title, axis, lines in curves if lines)
