"""Training by gradient descent on a Keras model: fine-tuning a module, and training a network from scratch.

Every step is a function of the seed, its number and the state before it, and the state is written to disk every few
minutes: the same command goes on where a killed run stopped. Imports errors, architecture, models, metrics and the
files of training above it; Keras inside functions, on whichever backend it has.
"""

import ctypes
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.architecture import WEIGHT_DECAY, Architecture, architecture
from mobilenet_hub.backends import require_keras
from mobilenet_hub.errors import InputError
from mobilenet_hub.images import Fit
from mobilenet_hub.metrics import Curve
from mobilenet_hub.training.augment import Augmentation, Batches, decode_pictures
from mobilenet_hub.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from mobilenet_hub.training.dataset import Dataset, Split
from mobilenet_hub.training.fitted import Fitted, OnProgress
from mobilenet_hub.weights.module_folder import Module, ModuleConfig

if TYPE_CHECKING:
    from mobilenet_hub.models import MobileNet

_PARTS: tuple[Split, ...] = ("train", "validation")
_EVALUATION_BATCH = 64
_CHECKPOINT_S = 60.0  # between two checkpoints: about as much is lost by a kill


@dataclass(frozen=True)
class GradientOptions:
    """How a network is trained by gradient descent.

    The learning rate rises linearly over `warmup` epochs, stays, and falls linearly to zero over the last `decay`
    share of the epochs. As nothing before that fall depends on `epochs`, a finished run can be given more of them: it
    goes on from where the fall began.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    warmup: float = 1.0  # epochs
    decay: float = 0.4  # share of the epochs
    weight_decay: float = WEIGHT_DECAY
    label_smoothing: float = 0.1
    batch_norm_momentum: float = 0.99
    dropout_rate: float | None = None  # None: the network's own
    augmentation: Augmentation = Augmentation()
    coarse_size: tuple[int, int] | None = None  # (height, width) before the learning rate falls; None: the final size
    patience: int | None = None  # epochs without a lower validation loss after which training stops; None: never
    seed: int = 0


@dataclass(frozen=True)
class Schedule:
    """The learning rate and the size of the images at every step."""

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

    def size(self, step: int) -> tuple[int, int]:
        """Return the (height, width) of a step's images."""
        return (self.options.coarse_size if step < self.fall else None) or self.image_size


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known after an epoch."""

    number: int  # epochs done; 0: before the first
    training_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float  # of all runs until here


def train_from_scratch(
    dataset: Dataset,
    network: Architecture,
    *,
    options: GradientOptions,
    image_size: tuple[int, int],
    fit: Fit,
    work: Path,
    on_progress: OnProgress,
) -> Fitted:
    """Train a network from random weights.

    Args:
        dataset: photos in three parts.
        network: its classes are replaced by the data set's.
        options: see `GradientOptions`.
        image_size: (height, width) at which photos are seen.
        fit: how a photo is brought to that size.
        work: the folder for pixels and checkpoints; a killed run goes on from what it left there.
        on_progress: told how far it is.

    Returns:
        The trained module; its probabilities are for the engine to compute.

    Raises:
        MissingExtraError: Keras or its backend is not installed.
    """
    network = architecture(network.name, network.depth_multiplier, len(dataset.labels))
    config = ModuleConfig(network.name, network.depth_multiplier, image_size, len(dataset.labels), dataset.labels)
    run = _Run(dataset, config, options, fit, work, on_progress)
    return run.train(None)


def fine_tune(
    dataset: Dataset,
    start: Module,
    *,
    options: GradientOptions,
    fit: Fit,
    work: Path,
    on_progress: OnProgress,
) -> Fitted:
    """Train all of a module further, starting from one whose classifier already fits the data set.

    The start is among the candidates: what comes back has no higher loss on the validation photos.

    Args:
        dataset: photos in three parts.
        start: a module with a classifier for the data set's labels, as `fit_frozen` makes.
        options: see `GradientOptions`.
        fit: how a photo is brought to the module's image size.
        work: the folder for pixels and checkpoints; a killed run goes on from what it left there.
        on_progress: told how far it is.

    Returns:
        The trained module; its probabilities are for the engine to compute.

    Raises:
        InputError: the module's labels are not the data set's.
        MissingExtraError: Keras or its backend is not installed.
    """
    if start.config.labels != dataset.labels:
        raise InputError("the module to fine-tune has other labels than the photos; fit its classifier first")
    return _Run(dataset, start.config, options, fit, work, on_progress).train(start.weights)


class _Run:
    """One training run: its data, its model, and how far it is."""

    def __init__(
        self,
        dataset: Dataset,
        config: ModuleConfig,
        options: GradientOptions,
        fit: Fit,
        work: Path,
        on_progress: OnProgress,
    ):
        self.backend = require_keras("training by gradient descent")
        _prepare(self.backend)
        self.config, self.options, self.work, self.on_progress = config, options, work, on_progress
        self.dataset, pixels = _decode(dataset, config.image_size, fit, work, on_progress)
        labels = [np.array([e.label for e in self.dataset.part(split)], np.int64) for split in _PARTS]
        self.validation = pixels[1], labels[1]
        batch_size = min(options.batch_size, len(labels[0]))
        self.batches = Batches(pixels[0], labels[0], batch_size, options.seed, options.augmentation)
        self.schedule = Schedule(options, self.batches.per_epoch, config.image_size)
        self.step, self.seconds, self.history = 0, 0.0, list[Epoch]()
        self.best: dict[str, np.ndarray] = {}

    def train(self, weights: Mapping[str, np.ndarray] | None) -> Fitted:
        """Train to the end, or until validation has not improved for `patience` epochs."""
        self.key = self._key(weights)
        self.model = self._make_model(weights)
        self._resume()
        started = time.monotonic() - self.seconds
        saved = time.monotonic()
        steps = range(self.step, self.schedule.steps)
        for images, labels in self.batches.run(steps, [self.schedule.size(step) for step in steps]):
            self._train_step(images, labels)
            self.seconds = time.monotonic() - started
            if self.step % self.batches.per_epoch == 0:
                self._end_epoch()
                saved = time.monotonic()
                if self._is_exhausted():
                    break
            elif time.monotonic() - saved > _CHECKPOINT_S:
                self._save()
                saved = time.monotonic()
        return self._fitted()

    def _make_model(self, weights: Mapping[str, np.ndarray] | None) -> "MobileNet":
        import keras

        from mobilenet_hub.models import MobileNet

        options = self.options
        keras.utils.set_random_seed(options.seed)
        model = MobileNet(self.config.network, options.batch_norm_momentum, options.weight_decay, options.dropout_rate)
        model.compile(
            optimizer=keras.optimizers.SGD(options.learning_rate, momentum=options.momentum, nesterov=True),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=options.label_smoothing),
        )
        _ = model.slim_variables  # makes them
        model.optimizer.build(model.trainable_variables)
        if weights is not None:
            model.load_slim_weights(weights)
        return model

    def _train_step(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.model.optimizer.learning_rate.assign(self.schedule.learning_rate(self.step))
        targets = np.eye(self.config.num_classes, dtype=np.float32)[labels]
        loss = float(self.model.train_on_batch(images, targets))  # the epoch's mean so far
        self.step += 1
        done = self.step * self.batches.batch_size
        epoch = (self.step - 1) // self.batches.per_epoch + 1
        accuracy = self.history[-1].validation_accuracy if self.history else None
        text = f"epoch {epoch}/{self.options.epochs}, loss {loss:.3f}"
        text += "" if accuracy is None else f", validation accuracy {accuracy:.3f}"
        self.on_progress(text, done, self.schedule.steps * self.batches.batch_size)
        self.loss = loss

    def _end_epoch(self) -> None:
        loss, accuracy = self._validate()
        number = self.step // self.batches.per_epoch
        self.history.append(Epoch(number, self.loss, loss, accuracy, self.seconds))
        if self._improved():
            self.best = self.model.slim_weights()
        self.model.reset_metrics()
        self._save()
        if self.step == self.schedule.fall:
            self._save("before-fall")

    def _validate(self) -> tuple[float | None, float | None]:
        """Return the mean loss and the accuracy on the validation photos."""
        pixels, labels = self.validation
        if not len(labels):
            return None, None
        losses, right = 0.0, 0
        for start in range(0, len(labels), _EVALUATION_BATCH):
            part = labels[start : start + _EVALUATION_BATCH]
            images = pixels[start : start + _EVALUATION_BATCH].astype(np.float32) / 255
            logits = np.asarray(self.model.predict_on_batch(images), np.float64)
            logits -= logits.max(1, keepdims=True)
            losses += (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(part)), part]).sum()
            right += int((logits.argmax(1) == part).sum())
        return float(losses / len(labels)), right / len(labels)

    def _improved(self) -> bool:
        losses = [epoch.validation_loss for epoch in self.history]
        return losses[-1] is None or losses[-1] <= min(loss for loss in losses if loss is not None)

    def _is_exhausted(self) -> bool:
        losses = [epoch.validation_loss for epoch in self.history if epoch.validation_loss is not None]
        return self.options.patience is not None and len(losses) - 1 - int(np.argmin(losses)) >= self.options.patience

    def _key(self, weights: Mapping[str, np.ndarray] | None) -> str:
        """Name all that a state before the learning rate's fall depends on: another end may be asked for."""
        digest = hashlib.sha256()
        settings = replace(self.options, epochs=0, decay=0, patience=None)
        digest.update(repr((self.config.network, self.config.image_size, asdict(settings))).encode())
        for split in ("train", "validation"):
            digest.update("".join(example.digest for example in self.dataset.part(split)).encode())
        for name in sorted(weights or ()):
            digest.update(np.ascontiguousarray((weights or {})[name]).tobytes())
        return digest.hexdigest()[:16]

    def _file(self, name: str) -> Path:
        return self.work / f"{name}-{self.key}.safetensors"

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables, *self.model.metrics_variables]

    def _save(self, name: str = "checkpoint") -> None:
        arrays = {f"{i:04d}": _to_numpy(variable) for i, variable in enumerate(self._variables())}
        arrays |= {f"best/{name}": array for name, array in self.best.items()}
        state = {
            "step": self.step,
            "fall": [self.schedule.fall, self.schedule.steps],
            "seconds": self.seconds,
            "history": [asdict(epoch) for epoch in self.history],
        }
        write_checkpoint(self._file(name), Checkpoint(self.key, arrays, state))

    def _resume(self) -> None:
        found = next((c for c in map(self._read, ("checkpoint", "before-fall")) if c and self._fits(c.state)), None)
        if found is None:
            return
        for i, variable in enumerate(self._variables()):
            variable.assign(found.arrays[f"{i:04d}"])
        self.best = {name.removeprefix("best/"): a for name, a in found.arrays.items() if name.startswith("best/")}
        self.step, self.seconds = found.state["step"], found.state["seconds"]
        self.history = [Epoch(**epoch) for epoch in found.state["history"]]

    def _read(self, name: str) -> Checkpoint | None:
        return read_checkpoint(self._file(name), self.key)

    def _fits(self, state: Mapping[str, Any]) -> bool:
        """Tell whether a state lies on this run's way: it is as long, or neither's learning rate falls before it."""
        fall = [self.schedule.fall, self.schedule.steps]
        return state["fall"] == fall or state["step"] <= min(fall[0], state["fall"][0])

    def _fitted(self) -> Fitted:
        weights = self.best or self.model.slim_weights()
        return Fitted(
            module=Module(self.config, weights),
            dataset=self.dataset,
            curves=_curves(self.history),
            settings={**asdict(self.options), "backend": self.backend, "seconds": round(self.seconds, 1)},
        )


def _decode(
    dataset: Dataset, size: tuple[int, int], fit: Fit, work: Path, on_progress: OnProgress
) -> tuple[Dataset, list[np.ndarray]]:
    """Decode the training and the validation photos; leave out files that are none."""
    while True:
        found = [decode_pictures(dataset.part(split), size, fit, work, on_progress) for split in _PARTS]
        skipped = [skip for _, skips in found for skip in skips]
        if not skipped:
            return dataset, [pixels for pixels, _ in found]
        dataset = dataset.without(skipped)


def _curves(history: Sequence[Epoch]) -> tuple[Curve, ...]:
    lines = {
        "training": [(float(e.number), e.training_loss) for e in history if e.training_loss is not None],
        "validation": [(float(e.number), e.validation_loss) for e in history if e.validation_loss is not None],
    }
    accuracy = [(float(e.number), e.validation_accuracy) for e in history if e.validation_accuracy is not None]
    return (
        Curve("Loss", "epoch", "mean loss", {name: line for name, line in lines.items() if line}),
        *((Curve("Accuracy", "epoch", "share of photos", {"validation": accuracy}),) if accuracy else ()),
    )


def _to_numpy(variable: Any) -> np.ndarray:
    from keras import ops

    return np.array(ops.convert_to_numpy(variable))


def _prepare(backend: str) -> None:
    """Make the C library keep the memory that it has.

    Otherwise each activation is mapped anew in every step, and on virtual machines the page faults cost a third of the
    time (measured: 297 and 422 images/s).
    """
    try:
        libc = ctypes.CDLL(None)
        for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(parameter, value)
    except (OSError, AttributeError):
        pass  # another C library
    if backend == "torch":
        import torch  # noqa: TID253

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
        torch.set_flush_denormal(True)
