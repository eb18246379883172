"""From labelled photos to a module folder with its report: `train`."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from mobilenet_hub.architecture import Architecture, height_and_width
from mobilenet_hub.errors import AccuracyError, DivergedError, InputError
from mobilenet_hub.evaluation.calibration import at_temperature, fit_temperature
from mobilenet_hub.evaluation.dataset import SPLITS, TEST_SHARE, VALIDATION_SHARE, Dataset, Split, read_dataset
from mobilenet_hub.evaluation.evaluate import outcomes_of, predict
from mobilenet_hub.evaluation.exclusion import read_exclusions
from mobilenet_hub.evaluation.metrics import Metrics, Outcome, measure
from mobilenet_hub.evaluation.twins import WithoutTwins, twins_warning, without_twins
from mobilenet_hub.host.progress import OnProgress, Stage, silent
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module import Module, ModuleConfig, check_has_weights, checked_image_size
from mobilenet_hub.module_folder import REPORT_FILE
from mobilenet_hub.store import open_module
from mobilenet_hub.training.frozen import FrozenOptions, fit_frozen
from mobilenet_hub.training.places import RESULT, check_output, claimed_places, clear_work, kept_on_failure, move_result
from mobilenet_hub.training.result import Fitted, Record, write_result
from mobilenet_hub.training.schedule import FINE_TUNING, FROM_SCRATCH, GradientOptions

_FEW_PHOTOS = 20  # of a class; retrain.py warned at the same number
Method = Literal["frozen", "fine-tune", "from-scratch"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class TrainResult:
    """A trained module and how good it is."""

    path: Path  # the module folder
    labels: tuple[str, ...]
    metrics: Mapping[Split, Metrics]  # of each part that has photos, the one that the result is judged by first
    settings: Mapping[str, object]
    skipped: tuple[Skipped, ...]  # files that were left out
    warnings: tuple[str, ...]
    seconds: float
    judged_on: Split = "test"

    def __repr__(self) -> str:
        """Say in a line for each part of the split what was made and how good it is."""
        parts = "".join(f"\n  {split}: {metrics}" for split, metrics in self.metrics.items())
        left_out = f", {len(self.skipped)} files left out" if self.skipped else ""
        return f"TrainResult({self.path}, {len(self.labels)} classes, {self.seconds:.1f} s{left_out}{parts})"

    @property
    def accuracy(self) -> float:
        """The share of right answers on the test photos; on the validation photos where there are no test photos."""
        return self.metrics[self.judged_on].accuracy


def train(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    module: str | os.PathLike[str] = "starter",
    method: Method = "frozen",
    validation: float = VALIDATION_SHARE,
    test: float = TEST_SHARE,
    seed: int = 0,
    exclude: str | os.PathLike[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    frozen: FrozenOptions | None = None,
    gradient: GradientOptions | None = None,
    network: Architecture | None = None,
    assert_accuracy: float | None = None,
    any_size: bool = False,
    threads: int | None = None,
    overwrite: bool = False,
    work: str | os.PathLike[str] | None = None,
    on_progress: OnProgress | None = None,
) -> TrainResult:
    """Train a classifier on one's own photos and write it as a module folder with metrics.json, report and model card.

    A run that was killed goes on where it was when it is called again in the same way.

    Args:
        source: class folders, or a table of path and label; see `read_dataset`.
        output: the module folder to make.
        module: the module whose network is used.
        method: "frozen" fits a classifier on the network's features, without a framework; "fine-tune" trains the
            network too, from there; "from-scratch" trains a new network. The last two need Keras.
        validation: the share of photos that choose between settings.
        test: the share of photos that measure the result and nothing else.
        seed: of the split. Another seed, another split.
        exclude: a list of photos to leave out, as `mobilenet check --exclusions` writes it.
        image_size: a side or (height, width) at which photos are seen; None: the module's.
        frozen: how the classifier is fitted.
        gradient: how the network is trained by the methods other than "frozen"; None: schedule.FINE_TUNING or
            schedule.FROM_SCRATCH.
        network: what to train from scratch.
        assert_accuracy: the least accuracy to accept: below it, no module folder is written.
        any_size: allow another size than the published module allows.
        threads: how many compute features and decode; None: as many as there are cores.
        overwrite: replace a module folder that is there.
        work: the folder for what a killed run leaves; kept if given, else beside `output` and deleted in the end.
        on_progress: called with what is being done, how much of it is done, and how much there is.

    Returns:
        The module's folder, its metrics, and what was left out.

    Raises:
        InputError: nothing to train on, or an argument that means nothing.
        AccuracyError: below `assert_accuracy`; the report lies in the work folder.
        DivergedError: training led to no usable weights.
        OutputError: the output exists, holds something else than a module, or cannot be written.
        MissingExtraError: the method needs Keras, which is not installed.

    Example:
        >>> train("photos", "my-module").accuracy  # doctest: +SKIP
        0.93
    """
    start = time.perf_counter()
    folder = Path(output)
    own_work = Path(work) if work else folder.parent / f"{folder.name}.work"
    if assert_accuracy is not None and not 0 <= assert_accuracy <= 1:
        raise InputError(f"the accuracy to assert must be a share from 0 to 1, not {assert_accuracy!r}")
    if seed < 0:
        raise InputError(f"the seed must be a whole number from 0, not {seed}")
    check_output(Path(source), folder, own_work, overwrite=overwrite)
    report = on_progress or silent
    options = frozen or FrozenOptions()
    _check_method(method, gradient, network)
    if method == "from-scratch":
        if network is None or image_size is None:
            raise InputError("training from scratch needs a network and an image size")
        base = ModuleConfig(network.name, network.depth_multiplier, height_and_width(image_size))
        name = "random weights"
    else:
        base = open_module(module, kind="feature_vector")
        check_has_weights(base.config, "train it")
        size = checked_image_size(base.config, image_size, any_size=any_size)
        name = base.config.handle or Path(module).name
        base = replace(base, config=replace(base.config, image_size=size))
    fit = _fitter(method, base, options, gradient)
    left_out = read_exclusions(exclude, source) if exclude is not None else frozenset()
    dataset = _with_cautions(read_dataset(source, validation=validation, test=test, seed=seed, exclude=left_out))
    with claimed_places(folder, own_work, shared=work is not None):
        fitted = fit(dataset, work=own_work, on_progress=report, threads=threads)
        with kept_on_failure(own_work):
            fitted, judged = _judged(fitted, options, report, threads)
            record = Record(
                method=method,
                base=name,
                metrics=judged.metrics,
                judged_on=_judged_on(judged.metrics),
                outcomes=judged.outcomes,
                split={"validation": validation, "test": test, "seed": seed},
                seconds=time.perf_counter() - start,
                left=judged.left,
                uncalibrated=judged.uncalibrated[_judged_on(judged.metrics)],
            )
            staged = write_result(own_work / RESULT, fitted, record, threads=threads)
            _assert_accuracy(record, assert_accuracy, folder, staged)
            move_result(staged, folder)
        if work is None:
            clear_work(own_work)
    data = fitted.dataset
    return TrainResult(
        path=folder,
        labels=data.labels,
        metrics=record.metrics,
        settings=fitted.settings,
        skipped=data.skipped,
        warnings=(*data.warnings, *fitted.warnings),
        seconds=time.perf_counter() - start,
        judged_on=record.judged_on,
    )


class _Judged(NamedTuple):
    """What the photos of each part say of a network."""

    metrics: dict[Split, Metrics]
    outcomes: dict[Split, tuple[Outcome, ...]]
    uncalibrated: dict[Split, Metrics]  # before a temperature was fitted
    left: WithoutTwins | None


def _judged(fitted: Fitted, options: FrozenOptions, report: OnProgress, threads: int | None) -> tuple[Fitted, _Judged]:
    """Calibrate what was fitted, and judge it; return it with what was found of its photos."""
    fitted, probabilities = _with_probabilities(fitted, options, report, threads)
    fitted = _with_doubts(fitted, probabilities)
    before = _measure(fitted.dataset, probabilities)
    fitted, probabilities = _calibrated(fitted, probabilities)
    metrics = _measure(fitted.dataset, probabilities)
    outcomes: dict[Split, tuple[Outcome, ...]] = {
        s: outcomes_of(fitted.dataset.part(s), probabilities[s]) for s in SPLITS
    }
    fitted, left = _without_twins(fitted, metrics, outcomes["test"])
    return fitted, _Judged(metrics, outcomes, before, left)


def _without_twins(
    fitted: Fitted, metrics: Mapping[Split, Metrics], outcomes: Sequence[Outcome]
) -> tuple[Fitted, WithoutTwins | None]:
    """Count the test photos without those that have a twin among the training photos, and say so."""
    there = {example.digest for example in fitted.dataset.examples}  # some may have turned out to be no photos
    twins = tuple(t for t in fitted.twins if {t.photo.digest, t.of.digest} <= there)
    if not twins:
        return replace(fitted, twins=()), None
    left = without_twins(outcomes, twins)
    said = twins_warning(twins, metrics["test"], left)
    return replace(fitted, twins=twins, warnings=(*fitted.warnings, said)), left


def _judged_on(metrics: Mapping[Split, Metrics]) -> Split:
    """Return the part that the result is judged by: the one furthest from training that has photos."""
    return next(split for split in reversed(SPLITS) if split in metrics)


def _assert_accuracy(record: Record, least: float | None, folder: Path, staged: Path) -> None:
    judged = record.metrics[record.judged_on]
    if least is not None and judged.accuracy < least:
        raise AccuracyError(
            f"accuracy {judged.accuracy:.4f} on {judged.images} {record.judged_on} photos is below the {least:g} "
            f"asked for; {folder} was not written, the report is {staged / REPORT_FILE}"
        )


def _check_method(method: Method, gradient: GradientOptions | None, network: Architecture | None) -> None:
    """Refuse a method that there is not, and what says nothing to the one there is."""
    if method not in METHODS:
        raise InputError(f"the method must be one of {', '.join(METHODS)}, not {method!r}")
    for name, value, methods in (("gradient", gradient, METHODS[1:]), ("network", network, METHODS[2:])):
        if value is not None and method not in methods:
            raise InputError(f"{name} says nothing to the method {method}; it is for {' or '.join(methods)}")


def _fitter(
    method: Method, base: Module | ModuleConfig, frozen: FrozenOptions, gradient: GradientOptions | None
) -> Callable[..., Fitted]:
    """Return what trains a data set by the method asked for, from a module or a network of random weights."""
    if isinstance(base, ModuleConfig):
        from mobilenet_hub.training.gradient import train_from_scratch

        return partial(train_from_scratch, network=base, options=gradient or FROM_SCRATCH)
    fit = partial(_fitted_as_it_answers, base=base, options=frozen)
    return fit if method == "frozen" else partial(_fine_tuned, fit, gradient or FINE_TUNING)


def _fitted_as_it_answers(
    dataset: Dataset, *, base: Module, options: FrozenOptions, threads: int | None, **how: Any
) -> Fitted:
    """Fit a classifier on features of the precision that the finished module will answer in.

    Whether bfloat16 moves its scores too far shows when there is a classifier; then all is done again in float32.
    """
    fitted = fit_frozen(dataset, base=base, options=options, threads=threads, **how)
    if options.features or options.precision != "auto" or fitted.settings["precision"] == "f32":
        return fitted
    answers_in = Engine(fitted.module, ("logits",), threads=threads, any_size=True).precision
    if answers_in == fitted.settings["precision"]:
        return fitted
    return fit_frozen(dataset, base=base, options=replace(options, precision="f32"), threads=threads, **how)


def _fine_tuned(start: Callable[..., Fitted], options: GradientOptions, dataset: Dataset, **how: Any) -> Fitted:
    """Fit a classifier on the frozen network, then train both further."""
    from mobilenet_hub.training.gradient import fine_tune

    fitted = start(dataset, **how)
    tuned = fine_tune(fitted.dataset, fitted.module, options=options, **how)
    return replace(tuned, warnings=(*fitted.warnings, *tuned.warnings), twins=fitted.twins)


def _with_cautions(dataset: Dataset) -> Dataset:
    """Add what a reader of the accuracy should know beforehand."""
    counts = dataset.counts()
    cautions = []
    if min(counts) < _FEW_PHOTOS:
        few = [f"{dataset.labels[i]!r} ({counts[i]})" for i in np.argsort(counts, kind="stable")[:5]]
        few = few[: sum(count < _FEW_PHOTOS for count in counts)]
        cautions.append(f"fewer than {_FEW_PHOTOS} photos of a class are little to learn from: {', '.join(few)}")
    if not dataset.part("test"):
        cautions.append("no test photos: the accuracy is that on photos which chose or trained the result")
    return replace(dataset, warnings=(*dataset.warnings, *cautions))


def _with_probabilities(
    fitted: Fitted, options: FrozenOptions, report: OnProgress, threads: int | None
) -> tuple[Fitted, Mapping[Split, np.ndarray]]:
    """Compute what the finished module says of every photo; one that cannot be decoded is left out and named."""
    if fitted.probabilities is not None:
        return fitted, fitted.probabilities
    classifier = Classifier(fitted.module, options.precision, threads=threads)
    dataset, total, before = fitted.dataset, len(fitted.dataset.examples), 0
    found, skipped = {}, []
    for split in SPLITS:
        part = dataset.part(split)
        found[split], bad = predict(classifier, part, partial(_of_all, report, before, total))
        skipped += bad
        before += len(part)
    names = {skip.path for skip in skipped}
    left = tuple(example for example in dataset.examples if example.path not in names)
    return replace(fitted, dataset=replace(dataset, examples=left, skipped=(*dataset.skipped, *skipped))), found


def _with_doubts(fitted: Fitted, probabilities: Mapping[Split, np.ndarray]) -> Fitted:
    """Add what its answers say of a module that has learned nothing.

    Raises:
        DivergedError: its answers are no numbers.
    """
    answers = np.concatenate([probabilities[split] for split in SPLITS])
    if not np.isfinite(answers).all():
        raise DivergedError("training diverged: the module's answers are not finite; a lower learning rate may do")
    given = set(answers.argmax(1).tolist())
    if len(given) > 1:
        return fitted
    label = fitted.dataset.labels[given.pop()]
    doubt = f"it answers {label!r} to every photo: it has learned nothing that tells the classes apart"
    return replace(fitted, warnings=(*fitted.warnings, doubt))


def _of_all(report: OnProgress, before: int, total: int, stage: str, done: int, _: int | None) -> None:
    """Report the measuring of all parts as one stage."""
    report(Stage("measuring", "photo"), before + done, total)


def _calibrated(fitted: Fitted, probabilities: Mapping[Split, np.ndarray]) -> tuple[Fitted, dict[Split, np.ndarray]]:
    """Fit the temperature on the validation photos; return the module with it, and the probabilities at it."""
    labels = np.array([example.label for example in fitted.dataset.part("validation")], np.int64)
    temperature = fit_temperature(probabilities["validation"], labels)
    config = fitted.module.config
    config = replace(config, variant=replace(config.variant, temperature=temperature))
    settings = {**fitted.settings, "temperature": temperature}
    tempered: dict[Split, np.ndarray] = {
        split: at_temperature(values, temperature) for split, values in probabilities.items()
    }
    return replace(fitted, module=replace(fitted.module, config=config), settings=settings), tempered


def _measure(dataset: Dataset, probabilities: Mapping[Split, np.ndarray]) -> dict[Split, Metrics]:
    return {
        split: measure(probabilities[split], np.array([example.label for example in dataset.part(split)]))
        for split in reversed(SPLITS)
        if dataset.part(split)
    }
