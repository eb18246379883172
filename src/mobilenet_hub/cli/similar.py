"""`mobilenet similar PHOTO... --in FEATURES`: the nearest photos of an embedded collection."""

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from mobilenet_hub.cli.console import note, note_passed_over, print_json, table
from mobilenet_hub.cli.options import add_force, add_threads
from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.host.progress import Bars, Stage

if TYPE_CHECKING:
    from mobilenet_hub.search.similar import Match

EXAMPLES = (
    "mobilenet similar photo.jpg --in features",
    "mobilenet similar photo.jpg --in features -o similar.html",
)

COLUMNS = ("photo", "rank", "path", "similarity")
ENDINGS = (".csv", ".jsonl", ".parquet", ".html")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from mobilenet_hub.images.inputs import HELP

    parser.add_argument("photos", nargs="+", metavar="PHOTO", help=HELP)
    parser.add_argument("--in", dest="features", metavar="FEATURES", required=True, help="what `embed -o` wrote")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="how many for each photo (default: 10)")
    parser.add_argument("--exact", action="store_true", help="compare with every photo, without an index")
    parser.add_argument("--module", metavar="MODULE", help="where FEATURES' module is (default: as FEATURES says)")
    parser.add_argument("-o", "--output", metavar="OUT", help="a .csv, .jsonl or .parquet, or a page, .html")
    add_threads(parser)
    add_force(parser, "write also over a file that is not from here")


def run(args: argparse.Namespace) -> int:
    """Search; 1 where a photo could not be read."""
    from mobilenet_hub.search.features import Features
    from mobilenet_hub.search.similar import Searcher
    from mobilenet_hub.search.tables import checked_output, write_table

    if args.k < 1:
        raise InputError(f"-k must be 1 or more, not {args.k}")
    output = checked_output(args.output, ENDINGS, COLUMNS, overwrite=args.overwrite)
    features = Features(args.features)
    passed_over: Counter[str] = Counter()
    with Bars(args.quiet) as bars:
        searcher = Searcher(features, module=args.module, exact=args.exact, threads=args.threads, on_progress=bars)
        note(f"the index is not kept: {searcher.note}", args.quiet or searcher.note is None)
        names: list[str] = []
        found: list[list[Match]] = []
        skipped: list[tuple[str, str]] = []
        for name, matches in searcher.stream(args.photos, args.k, skipped=skipped, passed_over=passed_over):
            names.append(name)
            found.append(matches)
            bars(Stage("photos", "photo"), len(names) + len(skipped), None)
    if not names:
        name, reason = skipped[0] if skipped else (", ".join(args.photos), "no photos there")
        raise ImageError(reason, name)
    rows = [
        (name, rank, match.path, match.similarity)
        for name, matches in zip(names, found, strict=True)
        for rank, match in enumerate(matches, start=1)
    ]
    if output is not None and output.suffix.lower() == ".html":
        from mobilenet_hub.evaluation.page import write_page
        from mobilenet_hub.search.page import similar_page

        write_page(output, similar_page(args.features, names, found))
    elif output is not None:
        write_table(output, COLUMNS, rows)
    if args.json:
        print_json({**_as_json(names, found, skipped), "passed_over": dict(passed_over)})
    elif output is None:
        print(_table(rows, alone=len(names) == 1))
    if output is not None:
        note(f"{output}: the nearest {args.k} of {features.rows} photos to {len(names)}", args.quiet)
    note_passed_over(passed_over, args.quiet)
    for name, reason in skipped:
        note(f"{name}: {reason}")
    return 1 if skipped else 0


def _table(rows: list[tuple[str, int, str, float]], *, alone: bool) -> str:
    if alone:
        return table(("path", "similarity"), [(path, f"{s:.4f}") for _, _, path, s in rows], "<>")
    cells = [(photo if rank == 1 else "", path, f"{s:.4f}") for photo, rank, path, s in rows]
    return table(("photo", "path", "similarity"), cells, "<<>")


def _as_json(names: list[str], found: "list[list[Match]]", skipped: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "photos": [
            {"photo": name, "matches": [{"path": m.path, "similarity": round(m.similarity, 6)} for m in matches]}
            for name, matches in zip(names, found, strict=True)
        ],
        "skipped": [{"path": name, "reason": reason} for name, reason in skipped],
    }
