"""Training by gradient descent on a Keras model: fine-tuning a module, and training a network from scratch.

Every step is a function of the seed, its number and the state before it, and the state goes to disk every minute: the
same command goes on where a killed run stopped.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.errors import DivergedError, InputError
from mobilenet_hub.evaluation.dataset import Dataset, Example, Skipped, Split
from mobilenet_hub.host.percent import percent
from mobilenet_hub.host.progress import OnProgress, Stage
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.inference.probabilities import cross_entropies
from mobilenet_hub.keras.backends import require_keras
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.training.augment import Batches, decode_pictures, undecodable
from mobilenet_hub.training.frozen import choose_class_weights
from mobilenet_hub.training.history import Epoch, History
from mobilenet_hub.training.result import Fitted
from mobilenet_hub.training.runtime import dtype_policy, on_devices, prepare_process
from mobilenet_hub.training.schedule import FINE_TUNING, FROM_SCRATCH, GradientOptions, Schedule
from mobilenet_hub.training.state import Checkpoint, read_checkpoint, write_checkpoint
from mobilenet_hub.version import __version__

if TYPE_CHECKING:
    from mobilenet_hub.keras.mobilenet import MobileNet

_PARTS: tuple[Split, ...] = ("train", "validation")
_EVALUATION_BATCH = 64
_BEST = "best weights/"  # before the TF-Slim names of a checkpoint's best weights
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from where fine-tuning starts to where it ends
_PURPOSE = "training by gradient descent"
_CHECKPOINT_S = 60.0  # between two checkpoints: as much is lost by a kill


def train_from_scratch(
    dataset: Dataset,
    network: ModuleConfig,
    *,
    options: GradientOptions = FROM_SCRATCH,
    work: Path,
    on_progress: OnProgress,
    threads: int | None = None,
) -> Fitted:
    """Train a network from random weights.

    Args:
        dataset: photos in three parts.
        network: what to train and the image size to see photos at; its classes are replaced by the data set's.
        options: see `GradientOptions`.
        work: the folder for pixels and checkpoints; a killed run goes on from what it left there.
        on_progress: told how far it is.
        threads: how many decode; None: as many as there are cores. Keras computes with as many as it wants.

    Returns:
        The module with the lowest loss on the validation photos; its probabilities are for the engine to compute.

    Raises:
        DivergedError: no epoch's weights are of use.
        MissingExtraError: Keras or its backend is not installed.
    """
    config = replace(network, num_classes=len(dataset.labels), labels=dataset.labels)
    with on_devices(options.devices, require_keras(_PURPOSE)):
        return _Run(dataset, config, None, options, work, on_progress, threads).train()


def fine_tune(
    dataset: Dataset,
    start: Module,
    *,
    options: GradientOptions = FINE_TUNING,
    work: Path,
    on_progress: OnProgress,
    threads: int | None = None,
) -> Fitted:
    """Train all of a module further, starting from one whose classifier already fits the data set.

    What comes back lies on the line from the start to the weights after the last epoch (the best one, where training
    stopped early), where the loss on the validation photos is lowest and their accuracy no lower than the start's: the
    start, the end, or a quarter, half or three quarters of the way. On few photos a point between is better than either
    end (arXiv 2109.01903), and the start is never lost. Without validation photos it is half way.

    Args:
        dataset: photos in three parts.
        start: a module with a classifier for the data set's labels, as `fit_frozen` makes.
        options: see `GradientOptions`.
        work: the folder for pixels and checkpoints; a killed run goes on from what it left there.
        on_progress: told how far it is.
        threads: how many decode; None: as many as there are cores. Keras computes with as many as it wants.

    Returns:
        That module; its probabilities are for the engine to compute.

    Raises:
        InputError: the module's labels are not the data set's, or its batch norm is folded away.
        MissingExtraError: Keras or its backend is not installed.
    """
    if start.config.labels != dataset.labels:
        raise InputError("the module to fine-tune has other labels than the photos; fit its classifier first")
    if start.config.batch_norm_folded:
        raise InputError("this module's batch norm is folded into its convolutions: it cannot be trained further")
    with on_devices(options.devices, require_keras(_PURPOSE)):
        return _Run(dataset, start.config, start.weights, options, work, on_progress, threads).train()


class _Run:
    """One training run: its photos, its model, and how far it is."""

    def __init__(
        self,
        dataset: Dataset,
        config: ModuleConfig,
        start: Mapping[str, np.ndarray] | None,
        options: GradientOptions,
        work: Path,
        on_progress: OnProgress,
        threads: int | None,
    ):
        """Decode the photos and make the model, of the weights to start from or, where there are none, random ones."""
        self.backend = require_keras(_PURPOSE)
        prepare_process(self.backend)
        self.config, self.start, self.options = config, start, options
        self.work, self.on_progress = work, on_progress
        preprocessing = Preprocessing(config.image_size, config.fit)
        decode = partial(
            decode_pictures, preprocessing=preprocessing, work=work, on_progress=on_progress, threads=threads
        )
        bad = undecodable(dataset.part("test"), preprocessing, on_progress, threads)  # known before what hangs on it
        self.dataset, pixels = _decoded(dataset.without(bad) if bad else dataset, decode)
        labels = [np.array([e.label for e in self.dataset.part(split)], np.int64) for split in _PARTS]
        self.validation = pixels[1], labels[1]
        self.class_weights, self.warnings = choose_class_weights(self.dataset, options.class_weights)
        batch_size = min(options.batch_size, len(labels[0])) // options.devices * options.devices
        if batch_size < 2 * options.devices:
            raise InputError(
                f"{len(labels[0])} training photos are too few to share out among {options.devices} devices"
            )
        self.batches = Batches(pixels[0], labels[0], batch_size, options.seed, options.augmentation)
        self.schedule = Schedule(options, self.batches.per_epoch, config.image_size)
        self.step, self.seconds, self.history = 0, 0.0, History()
        self.loss = 0.0  # the mean over the epoch so far
        self.best: dict[str, np.ndarray] = {}  # weights with the lowest validation loss, by TF-Slim name
        self.key = self._key()
        self.model = self._make_model()

    def train(self) -> Fitted:
        """Train to the end or until `patience` is exhausted."""
        patience = self.options.patience
        if not self._resume() and self.start is not None:
            self._end_epoch()  # to see what the start is worth
        saved = time.monotonic()
        started = saved - self.seconds
        steps = range(self.step, self.step if self.history.is_over(patience) else self.schedule.steps)
        for images, labels in self.batches.run(steps, [self.schedule.size(step) for step in steps]):
            self._train_step(images, labels)
            self.seconds = time.monotonic() - started
            if self.step % self.batches.per_epoch == 0:
                self._end_epoch()
                if self.history.is_over(patience):
                    break
            elif time.monotonic() - saved < _CHECKPOINT_S:
                continue
            self._save("checkpoint")
            saved = time.monotonic()
        return self._fitted()

    def _make_model(self) -> "MobileNet":
        import keras

        from mobilenet_hub.keras.mobilenet import MobileNet

        options = self.options
        keras.utils.set_random_seed(options.seed)
        self.momentum = keras.Variable(options.batch_norm_momentum, trainable=False, autocast=False, name="momentum")
        model = MobileNet(
            self.config.network,
            self.momentum,
            options.weight_decay,
            options.dropout_rate,
            dtype=dtype_policy(options.precision, self.backend),
        )
        model.compile(
            optimizer=keras.optimizers.SGD(options.learning_rate, momentum=options.momentum, nesterov=True),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=options.label_smoothing),
        )
        _ = model.slim_variables  # makes them
        model.optimizer.build(model.trainable_variables)
        return model if self.start is None else model.load_slim_weights(self.start)

    def _train_step(self, images: np.ndarray, labels: np.ndarray) -> None:
        if self.backend == "torch":  # whose dropout draws from one global generator
            import torch

            torch.manual_seed(self.options.seed + self.step)
        self.model.optimizer.learning_rate.assign(self.schedule.learning_rate(self.step))
        self.momentum.assign(self.schedule.batch_norm_momentum(self.step))
        targets = np.eye(self.config.num_classes, dtype=np.float32)[labels]
        weights = None if self.class_weights is None else self.class_weights[labels].astype(np.float32)
        epoch, position = divmod(self.step, self.batches.per_epoch)
        loss = float(self.model.train_on_batch(images, targets, weights))
        self.loss = (self.loss * position + loss) / (position + 1)
        self.step += 1
        accuracy = self.history.accuracy
        detail = f"epoch {epoch + 1} of {self.options.epochs}, loss {self.loss:.3f}"
        detail += "" if accuracy is None else f", validation accuracy {percent(accuracy)}"
        batch = self.batches.batch_size
        self.on_progress(Stage("training", "photo", detail), self.step * batch, self.schedule.steps * batch)

    def _end_epoch(self) -> None:
        loss, accuracy = self._validate()
        number = self.step // self.batches.per_epoch
        self.history.add(Epoch(number, self.loss if self.step else None, loss, accuracy, self.seconds))
        if self.history.last_is_best():
            self.best = self.model.slim_weights()
        if self.step == self.schedule.fall:
            self._save("before-fall")

    def _validate(self) -> tuple[float | None, float | None]:
        """Return the mean loss and the accuracy on the validation photos."""
        pixels, labels = self.validation
        if not len(labels):
            return None, None
        loss, right, devices = 0.0, 0, self.options.devices
        for start in range(0, len(labels), _EVALUATION_BATCH):
            part = labels[start : start + _EVALUATION_BATCH]
            images = pixels[start : start + _EVALUATION_BATCH].astype(np.float32) / 255
            images = np.resize(images, (-(-len(part) // devices) * devices, *images.shape[1:]))  # the first ones again
            logits = np.asarray(self.model.predict_on_batch(images))[: len(part)]
            loss += float(cross_entropies(logits, part).sum())
            right += int((logits.argmax(1) == part).sum())
        return loss / len(labels), right / len(labels)

    def _key(self) -> str:
        """Name all that a state before the learning rate's fall depends on: another end may be asked for."""
        digest = hashlib.sha256()
        settings = replace(self.options, epochs=1, decay=0, patience=None)
        digest.update(repr((__version__, self.config.network, self.config.image_size, self.backend, settings)).encode())
        for split in _PARTS:
            digest.update("".join(f"{e.digest} {e.label}\n" for e in self.dataset.part(split)).encode())
        for name, array in sorted((self.start or {}).items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def _file(self, name: str) -> Path:
        return self.work / f"{name}-{self.key}.safetensors"

    def _variables(self) -> dict[str, Any]:
        """Return all that training changes, numbered: Keras' own names depend on what else the process has made."""
        variables = (*self.model.variables, *self.model.optimizer.variables)
        return {f"{number:04d}": variable for number, variable in enumerate(variables)}

    def _save(self, name: str) -> None:
        from keras import ops

        arrays = {number: np.array(ops.convert_to_numpy(v)) for number, v in self._variables().items()}
        arrays |= {f"{_BEST}{name}": array for name, array in self.best.items()}
        state = {
            "step": self.step,
            "fall": [self.schedule.fall, self.schedule.steps],
            "seconds": self.seconds,
            "loss": self.loss,
            "history": self.history.to_json(),
        }
        write_checkpoint(self._file(name), Checkpoint(self.key, arrays, state))

    def _resume(self) -> bool:
        """Take over the latest state on this run's way; tell whether there was one."""
        found = (read_checkpoint(self._file(name), self.key) for name in ("checkpoint", "before-fall"))
        checkpoint = next((c for c in found if c and self._lies_ahead(c.state)), None)
        if checkpoint is None:
            return False
        for number, variable in self._variables().items():
            variable.assign(checkpoint.arrays[number])
        arrays, state = checkpoint.arrays, checkpoint.state
        self.best = {name.removeprefix(_BEST): array for name, array in arrays.items() if name.startswith(_BEST)}
        self.step, self.seconds, self.loss = state["step"], state["seconds"], state["loss"]
        self.history = History.from_json(state["history"])
        return True

    def _lies_ahead(self, state: Mapping[str, Any]) -> bool:
        """Tell whether this run comes through a state: it falls alike, or neither's learning rate fell before it."""
        fall = [self.schedule.fall, self.schedule.steps]
        return state["fall"] == fall or state["step"] <= min(fall[0], state["fall"][0])

    def _chosen_weights(self) -> tuple[dict[str, np.ndarray], float]:
        """Return the weights to keep, and which share of the way from the start they have gone.

        Raises:
            DivergedError: there are none.
        """
        start, last, best = self.start, self.model.slim_weights(), self.history.best
        if start is None:
            if best is None:
                raise DivergedError(f"{self._divergence()}, and in no epoch before; nothing is kept. {self._advice()}")
            return self.best, 1.0
        if best is None or (self.history.diverged and best.validation_loss is None):
            return dict(start), 0.0  # where nothing tells how good what was left of it is
        # A rate that has fallen to zero has averaged out what single epochs differ in; before, the best one is better.
        end = last if self.step == self.schedule.steps and not self.history.diverged else self.best

        def judge(weights: Mapping[str, np.ndarray]) -> tuple[float | None, float | None]:
            self.model.load_slim_weights(weights)
            return self._validate()

        share = _best_share(start, end, judge) if len(self.validation[1]) else 0.5
        return _between(start, end, share), share

    def _divergence(self) -> str:
        """Say where the training diverged."""
        epoch = self.history.diverged
        assert epoch is not None
        loss = epoch.loss if isfinite(epoch.training_loss or 0.0) else epoch.training_loss
        return f"training diverged: the mean loss was {loss:.3g} in epoch {epoch.number}"

    def _advice(self) -> str:
        return f"A lower learning rate than {self.options.learning_rate:g} may do"

    def _outcome(self, share: float) -> tuple[str, ...]:
        """Return what is to be said of the weights that are kept, in one line."""
        kept = "the classifier on the network as it was"
        if self.history.diverged is not None:
            best = self.history.best
            kept = kept if not share or best is None else f"epoch {best.number}"
            return (f"{self._divergence()}; what is kept is {kept}. {self._advice()}",)
        if not share:
            return (f"fine-tuning made it no better on the validation photos; what is kept is {kept}",)
        return ()

    def _fitted(self) -> Fitted:
        weights, share = self._chosen_weights()
        return Fitted(
            module=Module(self.config, weights),
            dataset=self.dataset,
            curves=self.history.curves(),
            settings={
                **asdict(self.options),
                "class_weights": "none" if self.class_weights is None else "balanced",
                "precision": self.model.dtype_policy.name,
                "backend": self.backend,
                "epochs_trained": self.step // self.batches.per_epoch,
                **({} if self.start is None else {"share_of_fine_tuning": share}),
                "training_seconds": round(self.seconds, 1),
            },
            warnings=(*self.warnings, *self._outcome(share)),
        )


def _decoded(
    dataset: Dataset, decode: Callable[[Sequence[Example]], tuple[np.ndarray, tuple[Skipped, ...]]]
) -> tuple[Dataset, list[np.ndarray]]:
    """Decode the training and the validation photos; leave out files that are none."""
    while True:
        found = [decode(dataset.part(split)) for split in _PARTS]
        skipped = [skip for _, skips in found for skip in skips]
        if not skipped:
            return dataset, [pixels for pixels, _ in found]
        dataset = dataset.without(skipped)


def _between(start: Mapping[str, np.ndarray], end: Mapping[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """Return the weights at a share of the way from the start to the end."""
    if not share:
        return dict(start)  # whatever the other end has become
    return {name: array + np.float32(share) * (end[name] - array) for name, array in start.items()}


def _best_share(
    start: Mapping[str, np.ndarray],
    end: Mapping[str, np.ndarray],
    judge: Callable[[Mapping[str, np.ndarray]], tuple[float | None, float | None]],
) -> float:
    """Return the share of the way with the lowest loss, of those with no lower accuracy than the start's."""
    judged = {share: judge(_between(start, end, share)) for share in _SHARES}
    floor = judged[0.0][1] or 0.0

    def badness(share: float) -> tuple[bool, float]:
        loss, accuracy = judged[share]
        return (accuracy or 0.0) < floor, loss or 0.0

    return min(_SHARES, key=badness)
