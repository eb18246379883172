"""`mobilenet classify IMAGES...`: labels with scores, to the screen or to a file."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mobilenet_hub.cli.bulk_run import add_bulk_options, expected, note_precision, open_model, run_bulk
from mobilenet_hub.cli.console import Table, bar, is_fancy, note, note_passed_over, open_page, print_json, table
from mobilenet_hub.cli.options import add_force, add_module, add_open, check_open
from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.host.percent import percent
from mobilenet_hub.host.progress import Bars, Stage
from mobilenet_hub.images.skipped import Skipped

if TYPE_CHECKING:
    from mobilenet_hub.evaluation.explained import ExplainedPage
    from mobilenet_hub.images.batches import Batch
    from mobilenet_hub.inference.classify import Classifier, Prediction

EXAMPLES = (
    "mobilenet classify photo.jpg",
    "mobilenet classify photos --module my_module --min-score 0.8",
    "mobilenet classify photos --module my_module -o labels.csv",
    "mobilenet classify photos --module my_module --explain why.html --open",
)

_TOP_OF_ONE = 5
_NO_ANSWER = "(no answer: no score is high enough)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_module(parser)
    parser.add_argument("--top", type=int, metavar="K", help="classes of each image (5; of many, or in a file: 1)")
    parser.add_argument(
        "--min-score", type=float, default=0.0, metavar="S", help="give no answer below this score (0 to 1)"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="instead of the screen a .csv, .jsonl or .parquet, or a folder of shards"
    )
    parser.add_argument(
        "--explain", metavar="OUT.html", help="write a page that shows which part of each photo spoke for its labels"
    )
    add_open(parser)
    add_force(parser, "with --explain: write the page also over a file that is no such page")
    add_bulk_options(parser)


def run(args: argparse.Namespace) -> int:
    """Classify; 1 where an image could not be."""
    from mobilenet_hub.inference.classify import Classifier

    if args.top is not None and args.top < 1:
        raise InputError(f"--top must be 1 or more, not {args.top}")
    if not 0 <= args.min_score <= 1:
        raise InputError(f"--min-score must be from 0 to 1, not {args.min_score:g}")
    check_open(args.open, args.explain, "--explain why.html")
    if args.explain is not None:
        _check_page(args)
    module, classifier = open_model(args, Classifier)
    if args.output is None:
        return _to_screen(args, classifier)
    from mobilenet_hub.bulk.rows import label_rows

    top = min(args.top or 1, len(classifier.labels))
    rows = label_rows(classifier.labels, top, classifier.engine.scores, args.min_score)
    settings = {"top": top, **({"min_score": args.min_score} if args.min_score else {})}
    return run_bulk("classify", args, classifier, rows, settings, module)


def _check_page(args: argparse.Namespace) -> None:
    """Refuse, before the work, a page that could not be written after it."""
    from mobilenet_hub.host.ownership import check_file_place

    if args.output is not None:
        raise InputError("--explain shows photos on a page, -o writes a table of them: ask for one at a time")
    if not args.explain.lower().endswith((".html", ".htm")):
        raise InputError(f"--explain writes a page: give a name that ends in .html, not {args.explain!r}")
    check_file_place(args.explain, overwrite=args.overwrite)


def _to_screen(args: argparse.Namespace, classifier: "Classifier") -> int:
    note_precision(args, classifier.engine)
    passed_over: Counter[str] = Counter()
    page = None
    if args.explain is not None:
        from mobilenet_hub.evaluation.explained import ExplainedPage

        _ = classifier.explainer  # refuses a module whose maps cannot be reached
        page = ExplainedPage(args.top or 1)
    screen = None if args.json else _Screen(args.top or 1, _shown_label(classifier))
    predictions, skipped = _classify(args, classifier, passed_over, page, screen)
    if screen is not None:
        screen.end()
    else:
        print_json({**_as_json(classifier, args.module, predictions, skipped), "passed_over": dict(passed_over)})
    if page is not None:
        _write_page(args, classifier, page, skipped)
    note_passed_over(passed_over, args.quiet)
    for path, reason in skipped:
        note(f"{path}: {reason}")
    if skipped and (predictions or (screen and screen.photos)):
        note(f"{len(skipped)} of the inputs could not be classified")
    return 1 if skipped else 0


def _classify(
    args: argparse.Namespace,
    classifier: "Classifier",
    passed_over: Counter[str],
    page: "ExplainedPage | None",
    screen: "_Screen | None",
) -> "tuple[list[Prediction], list[Skipped]]":
    """Return what was said, unless a screen shows it as it comes, and the images that could not be read."""
    from itertools import islice

    from mobilenet_hub.images.batches import decode_batches
    from mobilenet_hub.images.inputs import items

    predictions: list[Prediction] = []
    skipped: list[Skipped] = []
    top = args.top or _TOP_OF_ONE
    total, done = expected(args), 0
    with Bars(args.quiet or (screen is not None and sys.stdout.isatty())) as on_progress:  # the rows are the progress
        inputs = islice(items(args.images, passed_over=passed_over), args.limit)
        for batch in decode_batches(inputs, classifier.preprocessing, threads=classifier.engine.threads):
            if args.strict and batch.skipped:
                key, reason = batch.skipped[0]
                raise ImageError(reason, key)
            said = _said(classifier, batch, top, args.min_score, page)
            believed = [prediction.believed(args.min_score) for prediction in said]
            if screen is not None:
                screen.add(believed, len(batch.inputs))
            else:
                predictions += believed
            skipped += batch.skipped
            done += len(batch.inputs)
            on_progress(Stage("classify", "image"), done, total)
    return predictions, skipped


def _said(
    classifier: "Classifier", batch: "Batch", top: int, min_score: float, page: "ExplainedPage | None"
) -> "list[Prediction]":
    """Return the predictions of a batch; as long as there is room on the page, its photos are explained there."""
    from mobilenet_hub.inference.classify import Prediction

    if page is None or page.full:
        if page is not None:
            page.leave_out(len(batch.keys))
        return classifier.predictions(batch.keys, classifier.engine.run(batch.images)["logits"], top)
    explanations = classifier.explainer.explain(batch.keys, batch.images, top)
    for explanation in explanations:
        page.add(explanation, min_score)
    return [Prediction(e.source, e.labels, e.scores, e.indices) for e in explanations]


def _write_page(
    args: argparse.Namespace, classifier: "Classifier", page: "ExplainedPage", skipped: list[Skipped]
) -> None:
    from mobilenet_hub.evaluation.page import write_page

    name = classifier.config.handle or args.module
    height, width = classifier.image_size
    lead = f"What {name} saw in each photo, at {width} x {height} pixels, fit {classifier.fit}."
    write_page(args.explain, page.render("What spoke for the labels", lead, skipped))
    more = f" (the first {page.photos} of {page.photos + page.more} photos)" if page.more else ""
    note(f"{args.explain}: what spoke for the labels{more}", args.quiet)
    if args.open:
        open_page(args.explain, args.quiet)


class _Screen:
    """What is printed as it comes: one photo with its labels, or a row or a few for each of many."""

    def __init__(self, top: int, shown_label: Callable[[str], str]):
        self.photos = 0
        self._top, self._shown_label = top, shown_label
        self._table = Table(("image", "label", "score", ""), "<<>")
        self._inputs = 0
        self._waiting: list[Prediction] = []  # until it is known whether there is more than one

    def add(self, predictions: "list[Prediction]", inputs: int) -> None:
        """Take what was said of some inputs, of which some may have been no photos."""
        self._inputs += inputs
        self.photos += len(predictions)
        self._waiting += predictions
        if self._inputs > 1 and self._waiting:
            print(self._table.rows([row for prediction in self._waiting for row in self._rows(prediction)]), flush=True)
            self._waiting = []

    def end(self) -> None:
        """Print the one photo, where it stayed at that."""
        for prediction in self._waiting:
            print(_one_table(prediction))

    def _rows(self, prediction: "Prediction") -> list[tuple[str, str, str, str]]:
        ranked = list(zip(prediction.labels[: self._top], prediction.scores[: self._top], strict=True))
        digits = len("100.0%") if self._table.fancy else 0  # rows to come may have it
        shown = [
            (self._shown_label(label), percent(score).rjust(digits), bar(score, 12, self._table.fancy))
            for label, score in ranked
        ] or [(_NO_ANSWER, "", "")]
        return [(prediction.source if rank == 0 else "", *cells) for rank, cells in enumerate(shown)]


def _shown_label(classifier: "Classifier") -> Callable[[str], str]:
    """Return how a label is shown in a row on a terminal: of ImageNet's synonyms the first."""
    from mobilenet_hub.catalog.labels import imagenet_labels

    if is_fancy() and classifier.labels == imagenet_labels():
        return lambda label: label.split(",")[0]
    return str


def _one_table(prediction: "Prediction") -> str:
    fancy = is_fancy()
    if not prediction.labels:
        return f"{prediction.source}\n\n{_NO_ANSWER}"
    rows = [
        (label, percent(score), bar(score, 24, fancy))
        for label, score in zip(prediction.labels, prediction.scores, strict=True)
    ]
    return f"{prediction.source}\n\n{table(('label', 'score', ''), rows, '<>', fancy)}"


def _as_json(
    classifier: "Classifier", module: str, predictions: "Iterable[Prediction]", skipped: list[Skipped]
) -> dict[str, Any]:
    from mobilenet_hub.version import __version__

    return {
        "module": classifier.config.handle or module,
        "version": __version__,
        "precision": classifier.precision,
        "engine": classifier.engine_name,
        "fit": classifier.fit,
        "image_size": list(classifier.image_size),
        "predictions": [
            {"path": p.source, "labels": list(p.labels), "scores": list(p.scores), "indices": list(p.indices)}
            for p in predictions
        ],
        "skipped": [{"path": path, "reason": reason} for path, reason in skipped],
    }
