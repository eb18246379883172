"""The report: one HTML page that holds everything it shows, for screens in light and dark and for paper.

Nothing on the page is fetched from anywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from mobilenet_hub.evaluation.calibration import TARGETS, abstaining, believed, threshold_for
from mobilenet_hub.evaluation.charts import (
    MAX_MATRIX_CLASSES,
    class_chart,
    confusion_chart,
    interval_chart,
    line_chart,
    reliability_chart,
)
from mobilenet_hub.evaluation.metrics import Curve, Metrics, Outcome
from mobilenet_hub.evaluation.mistakes import Maps, mistakes_card
from mobilenet_hub.evaluation.page import card, page, table
from mobilenet_hub.evaluation.twins import Twin, WithoutTwins, twins_card
from mobilenet_hub.host.percent import percent
from mobilenet_hub.images.skipped import Skipped

_MAX_CLASS_ROWS = 40
_MAX_CONFUSIONS = 15
_MAX_LISTED = 20


@dataclass(frozen=True)
class Report:
    """What the page tells."""

    title: str
    lead: str
    labels: Sequence[str]
    parts: Mapping[str, Metrics]  # by name of the part
    outcomes: Sequence[Outcome]  # of the photos of the part that the page is about
    curves: Sequence[Curve] = ()
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # heading -> name -> value
    warnings: Sequence[str] = ()
    left_out: Sequence[Skipped] = ()
    judged_on: str = "test"  # the part that the page is about
    twins: Sequence[Twin] = ()  # test photos that are all but copies of training photos
    left: WithoutTwins | None = None  # what was said of the others, where there are twins
    maps: Maps = field(default_factory=dict)  # of the worst mistakes
    uncalibrated: Metrics | None = None  # of the first part, before a temperature was fitted


def render(report: Report) -> str:
    """Return the page as HTML.

    Example:
        >>> from mobilenet_hub.evaluation.metrics import measure
        >>> metrics = measure(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
        >>> "100.0%" in render(Report("cats", "", ["cat", "dog"], {"test": metrics}, []))
        True
    """
    name, metrics = report.judged_on, report.parts[report.judged_on]
    sections = [_figures(name, metrics, report.left)]
    if len(report.parts) > 1:
        sections.append(
            card("Accuracy of each part", interval_chart(list(report.parts.items())), _explained(report.parts))
        )
    sections.append(twins_card(report.twins, report.left))
    sections.append(mistakes_card(report.outcomes, report.labels, report.maps))
    sections.append(_confusion(report.labels, metrics))
    sections.append(_classes(report.labels, metrics))
    plots = [card("Calibration", reliability_chart(metrics.reliability), _CALIBRATION)]
    if report.uncalibrated is not None:
        error, now = percent(report.uncalibrated.calibration_error), percent(metrics.calibration_error)
        text = f"As the logits are, without the temperature that was fitted on the validation photos: error {error}, "
        plots.append(card("Before", reliability_chart(report.uncalibrated.reliability), f"{text}now {now}."))
    plots += _abstaining(report.outcomes)
    plots += [card(curve.title, line_chart(curve), "") for curve in report.curves]
    sections.append(f'<div class="pair">{"".join(plots)}</div>')
    sections.append(_remarks(report))
    facts = "".join(_facts(heading, facts) for heading, facts in report.facts.items())
    sections.append(f'<div class="pair">{facts}</div>')
    return page(report.title, report.lead, sections)


_PARTS = {
    "test": "the test photos chose nothing and trained nothing",
    "validation": "the validation photos chose settings",
    "train": "the training photos were learned from, so theirs flatters",
}


def _explained(parts: Iterable[str]) -> str:
    found = "; ".join(_PARTS[part] for part in parts if part in _PARTS)
    return f"Dots are shares of right answers, lines their 95% intervals. {found[:1].upper()}{found[1:]}."


_CALIBRATION = (
    "How often the classifier is right when it is this sure. Bars and dots on the dashed line: its scores can be read "
    "as probabilities. Below the line it is too sure of itself. Numbers are photos."
)


def _figures(name: str, metrics: Metrics, left: WithoutTwins | None) -> str:
    low, high = metrics.interval
    counts = metrics.confusion.sum(1)
    present = counts[counts > 0]
    twinless = f"; {percent(left.accuracy)} of the {left.images} without a twin" if left and left.images else ""
    spread = f"{present.min()} to {present.max()} a class"
    cards = [
        (
            "main-figure",
            f"accuracy on {name} photos",
            percent(metrics.accuracy),
            f"95% interval {percent(low)} to {percent(high)}{twinless}",
        ),
        ("", "right", f"{metrics.correct}<small> of {metrics.images}</small>", spread),
        ("", "mean over classes", percent(metrics.balanced_accuracy), f"recall, {len(present)} classes"),
        ("", "calibration error", percent(metrics.calibration_error), "scores against shares right"),
    ]
    if metrics.top5 is not None:
        cards.insert(2, ("", "among the first five", percent(metrics.top5), "top-5 accuracy"))
    shown = (
        f'<div class="card {kind}"><div class="name">{escape(title)}</div><div class="figure">{figure}</div>'
        f'<div class="note">{escape(note)}</div></div>'
        for kind, title, figure, note in cards
    )
    return f'<div class="figures">{"".join(shown)}</div>'


def _abstaining(outcomes: Sequence[Outcome]) -> list[str]:
    """Show what share of the photos is answered, and how well, where only high scores are believed."""
    if not outcomes:
        return []
    scores, right = [o.score for o in outcomes], [o.label == o.predicted for o in outcomes]
    rows = [
        (f"{b.threshold:.2f}", percent(b.answered), percent(b.accuracy), str(b.images))
        for b in abstaining(scores, right)
    ]
    found = []
    for target in TARGETS:
        at = threshold_for(scores, right, target)
        if at is None:
            found.append(f"no score from which on {percent(target, 0)} of the answers are right")
        else:
            found.append(
                f"{percent(target, 0)} of the answers are right from {at.threshold:.3f} on "
                f"({percent(at.answered)} answered)"
            )
    steps = [believed(scores, right, step / 50) for step in range(50)]
    lines = {
        "photos answered": [(b.threshold, b.answered) for b in steps],
        "answers right": [(b.threshold, b.accuracy) for b in steps if b.images],
    }
    plot = line_chart(Curve("Believing only high scores", "least score that is believed", "share", lines))
    text = f"On these photos: {'; '.join(found)}. classify --min-score S gives no answer below S."
    body = table(("believed from", "photos answered", "answers right", "answered"), rows, numbers=4)
    return [card("If only high scores are believed", body, text), card("Answered, and right", plot, "")]


def _confusion(labels: Sequence[str], metrics: Metrics) -> str:
    if len(labels) <= MAX_MATRIX_CLASSES:
        chart = confusion_chart(labels, metrics.confusion)
        return card("Confusion matrix", chart, "Rows: what the photos show. Columns: what they were taken for.")
    off = metrics.confusion - np.diag(np.diagonal(metrics.confusion))
    order = np.argsort(-off, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    pairs = [(int(flat) // len(labels), int(flat) % len(labels)) for flat in order if off.flat[flat]]
    rows = [(labels[i], labels[j], f"{off[i, j]}", f"{metrics.confusion[i].sum()}") for i, j in pairs]
    body = table(("photos of", "taken for", "times", "of"), rows, numbers=2)
    return card("Most frequent confusions", body, "") if rows else ""


def _classes(labels: Sequence[str], metrics: Metrics) -> str:
    recall = np.nan_to_num(metrics.recall, nan=2.0)  # classes without photos last
    order = np.argsort(recall, kind="stable")
    order = [int(index) for index in order if recall[index] <= 1][:_MAX_CLASS_ROWS]
    which = f"The {len(order)} hardest of {len(labels)} classes" if len(order) < len(labels) else "Hardest first"
    explanation = (
        f"{which}. Recall: of the photos of this class, the share that was recognised. Precision: of the photos that "
        "were given this label, the share that deserved it."
    )
    return card("Classes", class_chart(labels, metrics, order), explanation)


def _remarks(report: Report) -> str:
    remarks = "".join(f"<li>{escape(warning)}</li>" for warning in report.warnings)
    body = f"<ul>{remarks}</ul>" if remarks else ""
    if report.left_out:
        body += table(("file", "left out because"), list(report.left_out[:_MAX_LISTED]))
        if (more := len(report.left_out) - _MAX_LISTED) > 0:
            body += f'<p class="explain">and {more} more files</p>'
    return card("Remarks on the photos", body, "") if body else ""


def _facts(heading: str, facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return card(heading, f'<table class="facts">{rows}</table>', "") if rows else ""
