"""`mobilenet check FOLDER`: what is wrong with labelled photos, before one trains on them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenet_hub.cli.console import note, open_page, print_json, table
from mobilenet_hub.cli.options import add_force, add_labelled_folder, add_module, add_open, add_threads, check_open
from mobilenet_hub.host.progress import Bars

if TYPE_CHECKING:
    from mobilenet_hub.search.check import Findings

EXAMPLES = (
    "mobilenet check photos",
    "mobilenet check photos -o findings.html --exclusions leave_out.csv",
)

EXCLUSIONS = ("path", "reason")
_MAX_SHOWN = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_labelled_folder(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write the report page, REPORT.html")
    add_open(parser)
    parser.add_argument("--exclusions", metavar="LIST", help="write a .csv of what to leave out, for train --exclude")
    add_module(parser)
    parser.add_argument("--false-pairs", type=float, metavar="P", help="as for dedupe (default: 1e-6)")
    parser.add_argument("--seed", type=int, default=0, help="of the split that train makes (default: 0)")
    add_threads(parser)
    add_force(parser, "write also over files that are not from here")


def run(args: argparse.Namespace) -> int:
    """Check; 1 where something was found."""
    from mobilenet_hub.evaluation.page import write_page
    from mobilenet_hub.search.check import check
    from mobilenet_hub.search.page import check_page
    from mobilenet_hub.search.tables import checked_output, kept_work, write_table

    check_open(args.open, args.output, "-o findings.html")
    report = checked_output(args.output, (".html",), overwrite=args.overwrite)
    listing = checked_output(args.exclusions, (".csv",), EXCLUSIONS, overwrite=args.overwrite)
    with kept_work(report) as work:
        with Bars(args.quiet) as bars:
            found = check(
                args.folder,
                module=args.module,
                seed=args.seed,
                false_pairs=args.false_pairs,
                work=work,
                threads=args.threads,
                on_progress=bars,
            )
        if report is not None:
            write_page(report, check_page(found))
        if listing is not None:
            write_table(listing, EXCLUSIONS, found.exclusions())
    if args.json:
        print_json(found.to_json())
    else:
        print(_shown(found))
    for warning in found.warnings:
        note(f"warning: {warning}", args.quiet)
    for file in (report, listing):
        note(f"written: {file}", args.quiet or file is None)
    if args.open:
        open_page(args.output, args.quiet)
    return 1 if found.found else 0


def _shown(found: "Findings") -> str:
    from mobilenet_hub.search.check import summary

    rows = summary(found)
    parts = [f"{found.photos} photos of {len(found.labels)} classes"]
    parts.append(table(("found", "number", "which means"), rows, "<><") if rows else "nothing was found")
    if found.mislabelled:
        worst = [(m.path, m.label, m.suggested, f"{m.confidence:.2f}") for m in found.mislabelled[:_MAX_SHOWN]]
        parts.append("probably mislabelled:\n" + table(("path", "label", "suggested", "confidence"), worst, "<<<>"))
    crossing = [c for c in found.duplicated if c.across_classes or c.across_split][:_MAX_SHOWN]
    if crossing:
        told = [(c.path, c.split, c.of, c.of_split, c.kind, f"{c.similarity:.4f}") for c in crossing]
        parts.append("copies across:\n" + table(("path", "part", "copy of", "part", "kind", "similarity"), told))
    if found.unreadable:
        bad = [(Path(skip.name), skip.reason) for skip in found.unreadable[:_MAX_SHOWN]]
        parts.append("unreadable:\n" + table(("path", "reason"), bad))
    return "\n\n".join(parts)
