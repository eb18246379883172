"""What is known after each epoch of training, and what follows from it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mobilenet_hub.evaluation.metrics import Curve


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known after an epoch."""

    number: int  # epochs done; 0: before the first
    training_loss: float | None
    validation_loss: float | None  # None: there are no validation photos
    validation_accuracy: float | None
    seconds: float  # of training until here


class History:
    """The epochs of a run, in their order.

    Example:
        >>> history = History()
        >>> for number, loss in enumerate([0.9, 0.5, 0.7]):
        ...     history.add(Epoch(number, None, loss, None, 0.0))
        >>> history.last_is_best(), history.is_exhausted(patience=1)
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

    def last_is_best(self) -> bool:
        """Tell whether no epoch of training had a lower loss; always where there is nothing to tell by."""
        last = self.epochs[-1]
        if last.number == 0:
            return False  # the start itself
        if last.validation_loss is None:
            return True
        losses = [e.validation_loss for e in self.epochs if e.number and e.validation_loss is not None]
        return all(last.validation_loss <= loss for loss in losses)  # never where it is not a number

    def is_exhausted(self, patience: int | None) -> bool:
        """Tell whether the loss has not fallen for `patience` epochs; None: never."""
        losses = [epoch.validation_loss for epoch in self.epochs if epoch.validation_loss is not None]
        return patience is not None and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience

    def curves(self) -> tuple[Curve, ...]:
        """Return what the report draws: losses and accuracy by epoch."""

        def points(field: str) -> list[tuple[float, float]]:
            found = ((epoch.number, getattr(epoch, field)) for epoch in self.epochs)
            return [(float(number), value) for number, value in found if value is not None]

        losses = {"training": points("training_loss"), "validation": points("validation_loss")}
        accuracies = {"validation": points("validation_accuracy")}
        named = (("Loss", "mean loss", losses), ("Accuracy", "share of right answers", accuracies))
        curves = [(title, axis, {name: line for name, line in lines.items() if line}) for title, axis, lines in named]
        return tuple(Curve(title, "epoch", axis, lines) for title, axis, lines in curves if lines)
