"""What a trained module's folder holds besides the module: metrics.json, report.html, README.md and photos.csv."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import OutputError
from mobilenet_hub.evaluation.dataset import SPLITS, Dataset, Split
from mobilenet_hub.evaluation.metrics import Curve, Metrics, Outcome
from mobilenet_hub.evaluation.mistakes import explain_worst
from mobilenet_hub.evaluation.provenance import environment, fingerprint
from mobilenet_hub.evaluation.report import Report, render
from mobilenet_hub.evaluation.seen import KEY as SEEN
from mobilenet_hub.evaluation.seen import PHOTOS_FILE, as_text
from mobilenet_hub.evaluation.twins import Twin, WithoutTwins
from mobilenet_hub.host.files import sha256_of
from mobilenet_hub.host.ownership import MARK
from mobilenet_hub.host.percent import percent
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import REPORT_FILE, WEIGHTS_FILE, write_module

_METHODS = {
    "frozen": "a classifier fitted on its features, the network itself unchanged",
    "fine-tune": "its classifier fitted, then the whole network trained",
    "from-scratch": "the whole network trained",
}


_NEUTRAL: Mapping[Split, str] = {  # what the photos that it is judged by have done
    "test": "The test photos neither trained it nor chose any setting.",
    "validation": "There were no test photos: the validation photos chose its settings, which flatters it.",
    "train": "There were neither test nor validation photos: it is judged by what it learned from, which flatters it.",
}


@dataclass(frozen=True)
class Fitted:
    """A trained module, before it is measured and written."""

    module: Module  # with its classifier; its labels are the data set's
    dataset: Dataset  # less the files that turned out to be no photos
    curves: tuple[Curve, ...]  # for the report
    settings: Mapping[str, object]  # what was chosen and how, for metrics.json and the report
    # Per part float32 [photos, classes], in the order of `dataset.part(split)`; None: to be computed by the engine.
    probabilities: Mapping[Split, np.ndarray] | None = None
    warnings: tuple[str, ...] = field(default=())
    twins: tuple[Twin, ...] = ()  # test photos that are all but copies of training photos, where features were computed


@dataclass(frozen=True)
class Record:
    """How a module was trained and what came of it."""

    method: str
    base: str  # the module that it started from
    metrics: Mapping[Split, Metrics]  # of each part that has photos
    judged_on: Split
    outcomes: Mapping[Split, tuple[Outcome, ...]]
    split: Mapping[str, float]  # shares and seed
    seconds: float
    left: WithoutTwins | None = None  # of the test photos without a twin, where there are twins
    uncalibrated: Metrics | None = None  # of the part it is judged by, at temperature 1


def write_result(folder: Path, fitted: Fitted, record: Record, *, threads: int | None = None) -> Path:
    """Write the module folder with all that belongs to it; what is there is replaced.

    Args:
        folder: the folder to make.
        fitted: the module.
        record: how it was trained, and what came of it.
        threads: how many explain the worst mistakes; None: as many as there are cores.

    Returns:
        The folder.

    Raises:
        OutputError: it cannot be written.
    """
    judged, metrics = record.judged_on, record.metrics[record.judged_on]
    dataset = fitted.dataset
    config = replace(
        fitted.module.config,
        handle=None,
        source={"module": record.base, "method": record.method},
        trained_on={
            "photos": dataset.name,
            "images": len(dataset.part("train")),
            "classes": len(dataset.labels),
            SEEN: as_text(e.digest for split in ("train", "validation") for e in dataset.part(split)),
        },
        metrics={judged: {"accuracy": round(metrics.accuracy, 6), "images": metrics.images}},
    )
    try:
        write_module(folder, Module(config, fitted.module.weights), overwrite=True)
        facts = _facts(folder, fitted, record)
        text = json.dumps(_metrics_json(fitted, record, facts), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "metrics.json").write_text(f"{text}\n", "utf-8", "backslashreplace")
        _write_photos(folder / PHOTOS_FILE, record)
        page = render(_report(fitted, record, facts, threads))
        (folder / REPORT_FILE).write_text(page, "utf-8", "backslashreplace")
        (folder / "README.md").write_text(_card(fitted, record, facts), "utf-8", "backslashreplace")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None
    return folder


def _facts(folder: Path, fitted: Fitted, record: Record) -> dict[str, dict[str, str]]:
    config, dataset = fitted.module.config, fitted.dataset
    height, width = config.image_size
    counts = ", ".join(f"{len(dataset.part(split))} {split}" for split in SPLITS)
    shares = f"{record.split['validation']:g} validation, {record.split['test']:g} test, seed {record.split['seed']}"
    return {
        "Module": {
            "started from": record.base,
            "method": f"{record.method}: {_METHODS[record.method]}",
            "network": f"{config.architecture}, depth multiplier {config.depth_multiplier:g}",
            "image size": f"{width} x {height}",
            "SHA-256 of the weights": sha256_of(folder / WEIGHTS_FILE),
        },
        "Photos": {
            "source": dataset.name,
            "photos": f"{len(dataset.examples)} ({counts})",
            "shares": shares,
            "left out": str(len(dataset.skipped)),
            "SHA-256 of all": fingerprint(dataset.examples),
        },
        "Settings": {name.replace("_", " "): _plain(value) for name, value in fitted.settings.items()},
        "Time and versions": {"time": f"{record.seconds:.1f} s, all included", **environment()},
    }


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _metrics_json(fitted: Fitted, record: Record, facts: Mapping[str, Mapping[str, str]]) -> dict[str, object]:
    dataset = fitted.dataset
    missing = {split: {"accuracy": None, "interval": None, "images": 0} for split in reversed(SPLITS)}
    return {
        **missing,
        **{split: metrics.to_json(dataset.labels) for split, metrics in record.metrics.items()},
        "calibration_error_before": record.uncalibrated and round(record.uncalibrated.calibration_error, 6),
        "test_without_twins": record.left and record.left.to_json(),
        "twins": [{"photo": t.photo.name, "of": t.of.name, "similarity": round(t.similarity, 4)} for t in fitted.twins],
        "method": record.method,
        "module": record.base,
        "labels": list(dataset.labels),
        "split": dict(record.split),
        "settings": dict(fitted.settings),
        "curves": [
            {"title": c.title, "x": c.x_label, "y": c.y_label, "lines": {n: list(p) for n, p in c.lines.items()}}
            for c in fitted.curves
        ],
        "seconds": round(record.seconds, 2),
        "warnings": [*dataset.warnings, *fitted.warnings],
        "skipped": [{"path": _shown(skip.path, dataset.source), "reason": skip.reason} for skip in dataset.skipped],
        "facts": facts,
    }


def _shown(path: Path, source: Path) -> str:
    """Return a path as seen from the source: where someone's home lies is nobody's business."""
    root = source if source.is_dir() else source.parent
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _write_photos(file: Path, record: Record) -> None:
    """List every photo with its part and what was said of it: `evaluate` knows by it what it must not be judged by."""
    with file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["photo", "sha1", "split", "label", "predicted", "score"])
        for split in SPLITS:
            for o in record.outcomes[split]:
                writer.writerow([o.name, o.digest, split, o.label, o.predicted, f"{o.score:.6f}"])


def _report(fitted: Fitted, record: Record, facts: Mapping[str, Mapping[str, str]], threads: int | None) -> Report:
    dataset, outcomes = fitted.dataset, record.outcomes[record.judged_on]
    parts: dict[str, Metrics] = {**record.metrics}
    return Report(
        title=f"A classifier of {dataset.name}",
        lead=_lead(fitted, record),
        labels=dataset.labels,
        parts=parts,
        judged_on=record.judged_on,
        outcomes=outcomes,
        twins=fitted.twins,
        left=record.left,
        maps=explain_worst(Classifier(fitted.module, "f32", threads=threads), outcomes),
        uncalibrated=record.uncalibrated,
        curves=fitted.curves,
        facts=facts,
        warnings=(*dataset.warnings, *fitted.warnings),
        left_out=[Skipped(_shown(skip.path, dataset.source), skip.reason) for skip in dataset.skipped],
    )


def _lead(fitted: Fitted, record: Record) -> str:
    count, classes = len(fitted.dataset.part("train")), len(fitted.dataset.labels)
    return f"{classes} classes, learned from {count} photos, from {record.base}: {_METHODS[record.method]}."


def _card(fitted: Fitted, record: Record, facts: Mapping[str, Mapping[str, str]]) -> str:
    """Return the model card, in Markdown."""
    dataset = fitted.dataset
    judged, metrics = record.judged_on, record.metrics[record.judged_on]
    rows = [
        f"| {split} | {m.images} | {percent(m.accuracy)} | {percent(m.interval[0])} to {percent(m.interval[1])} |"
        for split, m in record.metrics.items()
    ]
    listed = ", ".join(dataset.labels[:20]) + (f" and {len(dataset.labels) - 20} more" if dataset.labels[20:] else "")
    sections = [f"## {heading}\n\n" + "\n".join(f"- {k}: {v}" for k, v in f.items()) for heading, f in facts.items()]
    return "\n".join(
        [
            f"<!-- {MARK} -->\n# A classifier of {dataset.name}\n",
            f"{_lead(fitted, record)} On {metrics.images} {judged} photos it is right "
            f"{percent(metrics.accuracy)} of the time (95% interval {percent(metrics.interval[0])} to "
            f"{percent(metrics.interval[1])}).\n",
            "```sh",
            "mobilenet classify photo.jpg --module THIS_FOLDER",
            "mobilenet evaluate THIS_FOLDER MORE_PHOTOS\n```\n",
            f"It tells apart: {listed}. Shown anything else it still answers with one of them.\n",
            "| photos | number | accuracy | 95% interval |\n|---|---|---|---|",
            *rows,
            f"\n{_NEUTRAL[judged]} `report.html` has the mistakes, the confusion "
            "matrix and the calibration; `photos.csv` says which photo was in which part.\n",
            "\n\n".join(sections),
            "",
        ]
    )
