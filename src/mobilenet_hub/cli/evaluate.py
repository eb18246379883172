"""`mobilenet evaluate MODULE FOLDER`: how good a module is on labelled photos; `-o report.html` shows it."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenet_hub.cli.console import note, note_cautions, open_page, print_json, table
from mobilenet_hub.cli.options import MODULE_HELP, add_computing, add_force, add_labelled_folder, add_open, check_open
from mobilenet_hub.errors import InputError
from mobilenet_hub.host.percent import percent
from mobilenet_hub.host.progress import Bars

if TYPE_CHECKING:
    from mobilenet_hub.evaluation.evaluate import Evaluation

EXAMPLES = (
    "mobilenet evaluate my_module photos",
    "mobilenet evaluate my_module new_photos --unseen -o report.html",
)

_MAX_MISTAKES = 10
_MAX_CLASSES = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("module", metavar="MODULE", help=MODULE_HELP)
    add_labelled_folder(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write the report page, report.html")
    parser.add_argument("--unseen", action="store_true", help="leave out the photos that the module was trained on")
    add_open(parser)
    add_computing(parser)
    add_force(parser, "write the report also over a file that is no report")


def run(args: argparse.Namespace) -> int:
    """Evaluate; 1 where files had to be left out."""
    from mobilenet_hub.evaluation.evaluate import evaluate
    from mobilenet_hub.host.ownership import check_file_place

    _check_order(args.module, args.folder)
    check_open(args.open, args.output, "-o report.html")
    if args.output:
        check_file_place(args.output, overwrite=args.overwrite)
    with Bars(args.quiet) as bars:
        result = evaluate(
            args.module,
            args.folder,
            precision=args.precision,
            image_size=args.image_size,
            fit=args.fit,
            any_size=args.any_size,
            threads=args.threads,
            engine=args.engine,
            unseen=args.unseen,
            on_progress=bars,
        )
    if args.output:
        result.write_report(args.output, overwrite=args.overwrite)
    if args.json:
        print_json(result.to_json())
    else:
        print(result.metrics)
        print()
        print(_classes(result))
        if mistakes := _mistakes(result):
            print(f"\nworst mistakes:\n{mistakes}")
    if args.output:
        note(f"report: {args.output}", args.quiet)
    note_cautions(result.warnings, result.skipped, args.quiet)
    if args.open:
        open_page(args.output, args.quiet)
    return 1 if result.skipped else 0


def _check_order(module: str, folder: str) -> None:
    """Refuse photos where the module belongs, and a module where the photos belong."""
    from mobilenet_hub.store import is_name_of_module

    if Path(module).is_dir() and not is_name_of_module(module) and is_name_of_module(folder):
        swapped = shlex.join(["mobilenet", "evaluate", folder, module])
        raise InputError(f"{module} holds no module, and {folder} is one: the module comes first, `{swapped}`")


def _classes(result: "Evaluation") -> str:
    metrics = result.metrics
    images, precision, recall = metrics.confusion.sum(1), metrics.precision, metrics.recall
    present = sorted((i for i in range(len(images)) if images[i]), key=lambda i: recall[i])
    rows = [
        # No precision where nothing was taken for this class.
        (result.labels[i], images[i], percent(recall[i]), percent(precision[i], unknown=""))
        for i in present[:_MAX_CLASSES]
    ]
    shown = table(["class", "photos", "recall", "precision"], rows, "<>>>")
    more = len(present) - _MAX_CLASSES
    return shown + (f"\nand {more} classes with a higher recall" if more > 0 else "")


def _mistakes(result: "Evaluation") -> str:
    from mobilenet_hub.evaluation.mistakes import worst

    shown = worst(result.outcomes)[:_MAX_MISTAKES]
    rows = [(o.name, result.labels[o.predicted], percent(o.score, 0)) for o in shown]
    return table(["photo", "taken for", "score"], rows, "<<>") if rows else ""
