"""`mobilenet merge OUT`: the parts of a bulk run, computed anywhere, verified and put together."""

import argparse

from mobilenet_hub.cli.console import note, print_json

EXAMPLES = (
    "mobilenet merge features",
    "mobilenet merge part0 part1 -o features.parquet",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("outputs", nargs="+", metavar="OUT", help="what the parts were written to (-o of each)")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="where the parts of several outputs go; the parts are kept"
    )


def run(args: argparse.Namespace) -> int:
    """Merge; 1 where an input of any part could not be read."""
    from mobilenet_hub.bulk.merge import merge
    from mobilenet_hub.host.progress import Bars

    with Bars(args.quiet) as on_progress:
        summary = merge(args.outputs, args.output, on_progress=on_progress)
    if args.json:
        print_json(
            {
                "output": str(summary.output),
                "rows": summary.rows,
                "skipped": summary.skipped,
                "skipped_file": summary.skipped_file and str(summary.skipped_file),
            }
        )
    note(f"{summary.output}: {summary.rows} images", args.quiet or args.json)
    if summary.skipped:
        note(f"{summary.skipped} of the inputs could not be read; each with its reason: {summary.skipped_file}")
    return 1 if summary.skipped else 0
