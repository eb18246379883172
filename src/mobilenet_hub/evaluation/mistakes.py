"""The worst mistakes of a report: each photo with what spoke for the label that it got, and for the right one."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.evaluation.explained import map_figure
from mobilenet_hub.evaluation.metrics import Outcome
from mobilenet_hub.evaluation.page import card, figure, jpeg, thumbnail
from mobilenet_hub.host.percent import percent
from mobilenet_hub.images.batches import batches
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.explain import Explanation

MAX_PICTURES = 24
_MAP_SIZE = 160  # pixels on the longer side: of each mistake there are three pictures
_MAPS = (
    " Colored is what spoke for the label that it got, and for the right one; both on one scale, on the photo as the "
    "network sees it (docs/explain.md)."
)

Maps = Mapping[Path, Explanation]  # by the photo's path; of the label that it got, and of its own


def worst(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the photos that got a wrong label, the surest first."""
    return sorted((o for o in outcomes if o.label != o.predicted), key=lambda o: (-o.score, o.name))


def explain_worst(classifier: Classifier, outcomes: Sequence[Outcome]) -> Maps:
    """Return what spoke for the labels of the worst mistakes, and for the right ones.

    Args:
        classifier: whose mistakes they are; of one that keeps a quantized file nothing can be said.
        outcomes: what it said, of all photos.
    """
    shown = {o.path: o for o in worst(outcomes)[:MAX_PICTURES]}
    if not shown:
        return {}
    try:
        explainer = classifier.explainer
    except InputError:
        return {}

    def gone(path: str, error: ImageError) -> None:
        """Show the mistake without pictures: its photo was read before, and is not there any more."""

    found: dict[Path, Explanation] = {}
    for names, images in batches(list(shown), classifier.preprocessing, gone, threads=classifier.engine.threads):
        paths = [Path(name) for name in names]
        classes = np.array([(shown[path].predicted, shown[path].label) for path in paths])
        found.update(zip(paths, explainer.explain(names, images, classes), strict=True))
    return found


def mistakes_card(outcomes: Sequence[Outcome], labels: Sequence[str], maps: Maps) -> str:
    """Return the card of the worst mistakes; empty where there are no photos.

    Args:
        outcomes: what was said of each photo.
        labels: of the classes.
        maps: what `explain_worst` found, as far as it did.
    """
    wrong = worst(outcomes)
    if not outcomes:
        return ""
    if not wrong:
        return card("Mistakes", "", "None: every photo got its label.")
    shown = wrong[:MAX_PICTURES]
    pictures = [_explained(o, labels, maps[o.path]) if o.path in maps else _plain(o, labels) for o in shown]
    which = f"the {len(shown)} it was surest of" if len(wrong) > len(shown) else "surest first"
    explanation = f"{len(wrong)} photos got a wrong label; {which}. Some may be wrongly filed rather than wrongly seen."
    kind = "mistakes" if maps else "photos"
    return card("Worst mistakes", f'<div class="{kind}">{"".join(pictures)}</div>', explanation + _MAPS * bool(maps))


def _plain(outcome: Outcome, labels: Sequence[str]) -> str:
    truth = labels[outcome.label]
    caption = f"{_said(outcome, labels)}<br>{_is(outcome, labels)}"
    return figure(thumbnail(outcome.path), truth, caption, outcome.path.name)


def _explained(outcome: Outcome, labels: Sequence[str], explanation: Explanation) -> str:
    truth = labels[outcome.label]
    figures = [
        figure(jpeg(explanation.image, _MAP_SIZE), truth, "", outcome.path.name, outcome.name),
        map_figure(explanation, 0, _said(outcome, labels), _MAP_SIZE),
        map_figure(explanation, 1, _is(outcome, labels), _MAP_SIZE),
    ]
    return f'<div class="photos maps">{"".join(figures)}</div>'


def _said(outcome: Outcome, labels: Sequence[str]) -> str:
    return f"<b>{escape(labels[outcome.predicted])}</b> {percent(outcome.score, 0)}"


def _is(outcome: Outcome, labels: Sequence[str]) -> str:
    return f"is {escape(labels[outcome.label])} ({percent(outcome.true_score, 0)})"
