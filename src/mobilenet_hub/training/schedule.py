"""How a network is trained by gradient descent: the options, and the learning rate and image size of every step."""

from dataclasses import dataclass, field
from math import inf

from mobilenet_hub.architecture import BATCH_NORM_MOMENTUM, WEIGHT_DECAY, is_image_size
from mobilenet_hub.inference.engine import PRECISIONS, Precision
from mobilenet_hub.training.augment import Augmentation
from mobilenet_hub.training.frozen import CLASS_WEIGHTS, ClassWeights
from mobilenet_hub.training.options import check_values, one_of


@dataclass(frozen=True)
class GradientOptions:
    """How a network is trained: by stochastic gradient descent with Nesterov's momentum.

    The learning rate rises linearly over the `warmup` epochs, stays, and falls linearly to zero over the last `decay`
    share of the epochs: as good as a cosine, and nothing before the fall depends on its end (arXiv 2405.18392). A
    finished run that is given more epochs therefore goes on from where its fall began.

    Raises:
        InputError: a value that means nothing; names what is allowed.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    warmup: float = 1.0  # epochs
    decay: float = 0.3  # share of the epochs
    weight_decay: float = WEIGHT_DECAY
    label_smoothing: float = 0.1
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM
    dropout_rate: float | None = None  # None: the network's own
    augmentation: Augmentation = field(default_factory=Augmentation)
    class_weights: ClassWeights = "auto"
    coarse_size: tuple[int, int] | None = None  # (height, width) until the learning rate falls; None: the final size
    patience: int | None = None  # epochs without a lower validation loss after which training stops; None: never
    precision: Precision = "auto"  # "bf16": mixed precision; "auto": where the hardware is made for it
    seed: int = 0
    devices: int = 1  # that share each batch out among them; more than one needs JAX

    def __post_init__(self):
        """Refuse what means nothing."""
        share, whole = "a number from 0 to 1, without 1", "a whole number from 1"
        rules = {
            "epochs": (self.epochs >= 1, whole),
            "batch_size": (self.batch_size >= 2, "a whole number from 2: batch norm has no variance of one photo"),
            "learning_rate": (0 < self.learning_rate < inf, "a number above 0"),
            "momentum": (0 <= self.momentum < 1, share),
            "warmup": (0 <= self.warmup < inf, "a number of epochs from 0"),
            "decay": (0 <= self.decay <= 1, "a share of the epochs, from 0 to 1"),
            "weight_decay": (0 <= self.weight_decay < inf, "a number from 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, share),
            "batch_norm_momentum": (0 <= self.batch_norm_momentum < 1, share),
            "dropout_rate": (self.dropout_rate is None or 0 <= self.dropout_rate < 1, share),
            "class_weights": one_of(self.class_weights, CLASS_WEIGHTS),
            "coarse_size": (self.coarse_size is None or is_image_size(self.coarse_size), "(height, width) in pixels"),
            "patience": (self.patience is None or self.patience >= 1, whole),
            "precision": one_of(self.precision, PRECISIONS),
            "devices": (
                self.devices >= 1 and self.batch_size % self.devices == 0,
                f"{whole} that the batch of {self.batch_size} is a multiple of",
            ),
        }
        check_values(self, rules)


FROM_SCRATCH = GradientOptions(epochs=60)
# The classifier is fitted already, so nothing new needs a large step; what goes too far is taken back in the end.
FINE_TUNING = GradientOptions(
    epochs=12, batch_size=32, learning_rate=0.01, decay=0.75, augmentation=Augmentation(min_area=0.6), patience=12
)


@dataclass(frozen=True)
class Schedule:
    """The learning rate and the size of the images at every step.

    Example:
        >>> schedule = Schedule(GradientOptions(epochs=10, learning_rate=1.0), per_epoch=10, image_size=(64, 64))
        >>> [round(schedule.learning_rate(step), 2) for step in (0, 9, 69, 85, 99)]
        [0.1, 1.0, 1.0, 0.5, 0.03]
    """

    options: GradientOptions
    per_epoch: int
    image_size: tuple[int, int]

    @property
    def steps(self) -> int:
        """All steps."""
        return self.options.epochs * self.per_epoch

    @property
    def fall(self) -> int:
        """The step at which the learning rate begins to fall: the start of an epoch."""
        return (self.options.epochs - round(self.options.decay * self.options.epochs)) * self.per_epoch

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        rise = (step + 1) / max(self.options.warmup * self.per_epoch, 1)
        fall = (self.steps - step) / max(self.steps - self.fall, 1)
        return self.options.learning_rate * min(rise, 1.0, fall)

    def batch_norm_momentum(self, step: int) -> float:
        """Return the momentum of the moving statistics at a step: less in the first ones, until they know the data.

        With the whole momentum a short run would end with what the statistics began with: after 60 steps of 0.99, 55 %
        of it. This is the rule of `tf.train.ExponentialMovingAverage(num_updates=...)`, with which long runs are as
        before: from step 890 on it is 0.99.
        """
        return min(self.options.batch_norm_momentum, (1 + step) / (10 + step))

    def size(self, step: int) -> tuple[int, int]:
        """Return the (height, width) of a step's images."""
        return (self.options.coarse_size if step < self.fall else None) or self.image_size
