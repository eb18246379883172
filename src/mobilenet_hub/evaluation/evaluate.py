"""How good a module is on labelled photos.

The photos go through the same code as `Classifier.classify`, so that the accuracy is that of its answers. Imports
errors, batches, engine, classify, dataset, metrics, provenance and report.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.evaluation.dataset import Example, read_examples
from mobilenet_hub.evaluation.metrics import Metrics, Outcome, measure
from mobilenet_hub.evaluation.mistakes import explain_worst
from mobilenet_hub.evaluation.page import write_page
from mobilenet_hub.evaluation.provenance import environment, fingerprint
from mobilenet_hub.evaluation.report import Report, render
from mobilenet_hub.evaluation.seen import is_trained_here, seen_by
from mobilenet_hub.host.ownership import check_file_place
from mobilenet_hub.host.progress import OnProgress, Stage
from mobilenet_hub.images.batches import batches
from mobilenet_hub.images.fit import Fit
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.engine import EngineChoice, Precision
from mobilenet_hub.module import ModuleConfig
from mobilenet_hub.store import locate, resolve, weights_sha256


@dataclass(frozen=True)
class Evaluation:
    """What a module did on a set of labelled photos."""

    module: str
    source: str
    labels: tuple[str, ...]
    metrics: Metrics
    outcomes: tuple[Outcome, ...]  # one for each photo
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    facts: Mapping[str, Mapping[str, str]]  # heading -> name -> value: module, versions, hashes, timings
    classifier: Classifier | None = field(default=None, repr=False, compare=False)  # explains the worst mistakes

    def __repr__(self) -> str:
        """Say in one line what was measured of which module; the outcomes of all photos are too many to print."""
        return f"Evaluation({self.module} on {self.source}: {self.metrics}, {len(self.skipped)} files left out)"

    @property
    def accuracy(self) -> float:
        """The share of photos that got their label."""
        return self.metrics.accuracy

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "module": self.module,
            "source": self.source,
            **self.metrics.to_json(self.labels),
            "skipped": [{"path": skip.name, "reason": skip.reason} for skip in self.skipped],
            "warnings": list(self.warnings),
            "facts": {heading: dict(facts) for heading, facts in self.facts.items()},
        }

    def write_report(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the report page; an earlier report gives way.

        Args:
            path: the page's file.
            overwrite: replace also what is no report.

        Raises:
            OutputError: something else is there, or it cannot be written.
        """
        check_file_place(path, overwrite=overwrite)
        report = Report(
            title=f"{self.module} on {self.source}",
            lead=f"What the module says of {self.metrics.images} photos of {_present(self.metrics)} classes.",
            labels=self.labels,
            parts={"these": self.metrics},
            judged_on="these",
            outcomes=self.outcomes,
            maps=explain_worst(self.classifier, self.outcomes) if self.classifier else {},
            facts=self.facts,
            warnings=self.warnings,
            left_out=[Skipped(skip.path.name, skip.reason) for skip in self.skipped],
        )
        write_page(path, render(report))


def evaluate(
    module: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    precision: Precision = "auto",
    image_size: int | tuple[int, int] | None = None,
    fit: Fit | None = None,
    any_size: bool = False,
    threads: int | None = None,
    engine: EngineChoice = "auto",
    unseen: bool = False,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure a module with a classifier on photos in class folders.

    Args:
        module: a module folder's path, or any name of a module.
        source: a folder with one subfolder for each class, named as the module's labels are; or a .csv or .parquet
            table with the columns path and label.
        precision: as for `Classifier`.
        image_size: as for `Classifier`.
        fit: as for `Classifier`.
        any_size: as for `Classifier`.
        threads: as for `Classifier`.
        engine: as for `Classifier`.
        unseen: leave out the photos that the module was trained on or chosen by, where its folder tells.
        on_progress: called with what is being done, how much of it is done, and how much there is.

    Returns:
        The evaluation.

    Raises:
        InputError: no such photos, none of the module's classes, or a module without a classifier.

    Example:
        >>> evaluate("starter", "photos").accuracy  # doctest: +SKIP
        0.52
    """
    start = time.perf_counter()
    folder, found = resolve(module, kind="classification"), locate(module, kind="classification", usual_size=image_size)
    classifier = Classifier(found, precision, image_size, fit=fit, threads=threads, any_size=any_size, engine=engine)
    dataset = read_examples(source, classifier.labels)
    examples, warnings = _against_training(folder, classifier.config, dataset.examples, unseen)
    probabilities, skipped = predict(classifier, examples, on_progress)
    bad = {skip.path for skip in skipped}
    examples = [example for example in examples if example.path not in bad]
    if not examples:
        raise InputError(f"no photo of {source} can be decoded, e.g. {skipped[0].path}: {skipped[0].reason}")
    seconds = time.perf_counter() - start
    facts = {
        "Module": {
            "module": os.fspath(module),
            **_facts(classifier),
            "SHA-256 of the weights": weights_sha256(found),
        },
        "Photos": {"source": Path(source).name, "photos": str(len(examples)), "SHA-256 of all": fingerprint(examples)},
        "Speed": {"time": f"{seconds:.1f} s", "rate": f"{len(examples) / seconds:.0f} photos/s, start included"},
        "Made with": environment(),
    }
    return Evaluation(
        module=Path(module).name if Path(module).exists() else os.fspath(module),
        source=Path(source).name,
        labels=classifier.labels,
        metrics=measure(probabilities, np.array([example.label for example in examples])),
        outcomes=outcomes_of(examples, probabilities),
        skipped=(*dataset.skipped, *skipped),
        warnings=(*dataset.warnings, *warnings),
        facts=facts,
        classifier=classifier,
    )


def predict(
    classifier: Classifier, examples: Sequence[Example], on_progress: OnProgress | None = None
) -> tuple[np.ndarray, tuple[Skipped, ...]]:
    """Compute a classifier's probabilities for photos.

    Args:
        classifier: what is asked.
        examples: the photos.
        on_progress: told after each batch.

    Returns:
        float64 [n, classes] for the photos that can be decoded, in their order; and the others.
    """
    skipped: list[Skipped] = []
    parts = []
    paths = [example.path for example in examples]

    def skip(path: str, error: ImageError) -> None:
        skipped.append(Skipped(path, error.reason))

    for _, batch in batches(paths, classifier.preprocessing, skip, threads=classifier.engine.threads):
        parts.append(classifier.engine.scores(classifier.engine.run(batch)["logits"]))
        if on_progress:
            on_progress(Stage("photos", "photo"), sum(map(len, parts)) + len(skipped), len(paths))
    return np.concatenate(parts) if parts else np.empty((0, classifier.config.num_classes)), tuple(skipped)


def outcomes_of(examples: Sequence[Example], probabilities: np.ndarray) -> tuple[Outcome, ...]:
    """Return what was said about each photo, [n] of them, from probabilities [n, classes]."""
    return tuple(
        Outcome(e.path, e.name, e.digest, e.label, int(row.argmax()), float(row.max()), float(row[e.label]))
        for e, row in zip(examples, probabilities, strict=True)
    )


def _against_training(
    folder: Path, config: ModuleConfig, examples: Sequence[Example], unseen: bool
) -> tuple[Sequence[Example], tuple[str, ...]]:
    """Find the photos that the module was made with: an accuracy on them says little."""
    is_seen = seen_by(folder, config)
    if is_seen is None:
        if unseen:
            raise InputError(
                "the module does not say which photos it was trained on, so that what it has not seen cannot be told; "
                "evaluate it on photos that you know to be new, without unseen=True"
            )
        unknown = "the module does not say which photos it was trained on; any of these flatter it"
        return examples, (unknown,) if is_trained_here(config) else ()
    new = [example for example in examples if not is_seen(example.digest)]
    known = len(examples) - len(new)
    if unseen and not new:
        raise InputError("the module was trained on all of these photos; there is nothing unseen to measure it on")
    if not known or unseen:
        return (new if unseen else examples), ()
    return examples, (
        f"{known} of these {len(examples)} photos trained the module or chose its settings, which flatters it; "
        "unseen=True leaves them out",
    )


def _facts(classifier: Classifier) -> dict[str, str]:
    height, width = classifier.image_size
    return {
        "network": f"{classifier.config.architecture}, depth multiplier {classifier.config.depth_multiplier:g}",
        "image size": f"{width} x {height}",
        "fit": classifier.fit,
        "precision": classifier.precision,
        "engine": classifier.engine_name,
    }


def _present(metrics: Metrics) -> int:
    return int(np.count_nonzero(metrics.confusion.sum(1)))
