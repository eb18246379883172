"""`mobilenet dedupe PHOTOS|FEATURES -o GROUPS`: groups of (nearly) equal photos, moved only in a second call."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet_hub.cli.console import note, note_passed_over, print_json, table
from mobilenet_hub.cli.options import add_force, add_module, add_threads
from mobilenet_hub.errors import InputError
from mobilenet_hub.host.files import is_file, sha256_of
from mobilenet_hub.host.progress import Bars, OnProgress, Stage

if TYPE_CHECKING:
    from mobilenet_hub.search.dedupe import Duplicates
    from mobilenet_hub.search.moving import Moved

EXAMPLES = (
    "mobilenet dedupe photos -o copies.html",
    "mobilenet dedupe photos -o copies.csv --keep oldest",
    "mobilenet dedupe --from copies.csv --move-to copies",
    "mobilenet dedupe --undo copies",
)

COLUMNS = ("group", "path", "keep", "kind", "similarity", "sha256")
ENDINGS = (".csv", ".jsonl", ".parquet", ".html")
_MAX_SHOWN = 20  # groups, on the screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("photos", nargs="*", metavar="PHOTOS|FEATURES", help="photos, or what `embed -o` wrote")
    parser.add_argument("-o", "--output", metavar="GROUPS", help="a .csv, .jsonl or .parquet, or a page, .html")
    add_module(parser)
    near = parser.add_mutually_exclusive_group()
    near.add_argument(
        "--false-pairs",
        type=float,
        metavar="P",
        help="share of pairs of different photos that may be taken for copies (default: 1e-6, less of very many)",
    )
    near.add_argument("--threshold", type=float, metavar="T", help="the least cosine of copies, instead")
    parser.add_argument(
        "--keep", default="largest", metavar="WHICH", help="largest, oldest or first (default: largest)"
    )
    parser.add_argument("--against", metavar="FEATURES", help="only find what is in this collection already")
    add_threads(parser)
    add_force(parser, "write also over a file that is not from here")
    move = parser.add_argument_group("in a second call")
    move.add_argument("--from", dest="groups", metavar="GROUPS", help="the file of groups, looked through by you")
    move.add_argument("--move-to", metavar="DIR", help="move what is not kept to DIR, with a log")
    move.add_argument("--undo", metavar="LOG", help="move back what a log says was moved, or all logs in a folder")


def run(args: argparse.Namespace) -> int:
    """Find copies, or move them; 1 where a photo could not be read or moved."""
    moving = [args.groups, args.move_to]
    if args.undo is not None or any(moving):
        return _move(args, moving)
    from mobilenet_hub.search.dedupe import dedupe
    from mobilenet_hub.search.tables import checked_output, kept_work

    if not args.photos:
        raise InputError("give photos, or what `mobilenet embed -o` wrote; or --from GROUPS --move-to DIR")
    output = checked_output(args.output, ENDINGS, COLUMNS, overwrite=args.overwrite)
    with kept_work(output) as work, Bars(args.quiet) as bars:
        found = dedupe(
            args.photos[0] if len(args.photos) == 1 else args.photos,
            module=args.module,
            false_pairs=args.false_pairs,
            threshold=args.threshold,
            keep=args.keep,
            against=args.against,
            work=work,
            threads=args.threads,
            on_progress=bars,
        )
        if output is not None:
            _write(output, found, ", ".join(args.photos), bars)
    if args.json:
        print_json(_as_json(found))
    elif output is None:
        print(_table(found))
    note(_summary(found), args.quiet)
    if output is not None:
        note(f"{output}: {len(found)} groups", args.quiet)
    note_passed_over(found.passed_over, args.quiet)
    later = f"{found.newer} photos in groups are newer than their features; if they have changed, embed again"
    note(later, args.quiet or not found.newer)
    for name, reason in found.skipped:
        note(f"{name}: {reason}")
    return 1 if found.skipped else 0


def _summary(found: "Duplicates") -> str:
    bar = found.threshold
    copies = sum(len(group.others) for group in found.groups)
    kinds = [other.kind for group in found.groups for other in group.others]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("same file", "same pixels", "near") if kind in kinds)
    expected = found.expected_false_pairs
    false = "" if expected is None else f": about {expected:.2g} pairs of different photos expected among them"
    alike, unlike = (found.hashed and bar.with_hashes) or (bar.cosine, bar.cosine)
    told = f"{bar.cosine:.4f}" if alike == unlike else f"{unlike:.4f}, with hashes that are alike {alike:.4f},"
    how = f"near is a cosine of {told} and more ({bar.source}{false})"
    hashed = f", or hashes that hardly differ ({found.hashed} photos have one)" if found.hashed else ""
    links = f"; {found.links} are names of one file, and not counted" if found.links else ""
    listed = f" ({counted})" if counted else ""
    groups = "1 group" if len(found) == 1 else f"{len(found)} groups"
    return f"{copies} copies{listed} in {groups} of {found.photos} photos; {how}{hashed}{links}"


def _rows(found: "Duplicates", on_progress: OnProgress) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a file of groups, each with its file's digest: what has changed since is not moved."""
    for number, group in enumerate(found.groups):
        yield number, group.keep, True, "", 1.0, _digest(group.keep)
        for other in group.others:
            yield number, other.path, False, other.kind, other.similarity, _digest(other.path)
        on_progress(Stage("groups", "group"), number + 1, len(found.groups))


def _digest(path: str) -> str:
    try:
        return sha256_of(Path(path)) if is_file(path) else ""
    except OSError:
        return ""


def _write(output: Path, found: "Duplicates", source: str, on_progress: OnProgress) -> None:
    from mobilenet_hub.evaluation.page import write_page
    from mobilenet_hub.search.page import dedupe_page
    from mobilenet_hub.search.tables import write_table

    if output.suffix.lower() == ".html":
        write_page(output, dedupe_page(source, found.groups, _summary(found)))
    else:
        write_table(output, COLUMNS, list(_rows(found, on_progress)))


def _table(found: "Duplicates") -> str:
    rows = [
        (g.keep if not number else "", other.path, other.kind, f"{other.similarity:.4f}")
        for g in found.groups[:_MAX_SHOWN]
        for number, other in enumerate(g.others)
    ]
    shown = table(("keep", "copy", "kind", "similarity"), rows, "<<<>")
    more = len(found) - _MAX_SHOWN
    return shown + (f"\nand {more} more groups: -o GROUPS.csv has them all" if more > 0 else "")


def _as_json(found: "Duplicates") -> dict[str, Any]:
    return {
        "photos": found.photos,
        "threshold": found.threshold.cosine,
        "threshold_source": found.threshold.source,
        "false_pairs": found.threshold.false_pairs,
        "expected_false_pairs": found.expected_false_pairs,
        "hashed": found.hashed,
        "links": found.links,
        "groups": [
            {
                "keep": group.keep,
                "others": [
                    {"path": o.path, "kind": o.kind, "similarity": round(o.similarity, 6)} for o in group.others
                ],
            }
            for group in found.groups
        ],
        "skipped": [{"path": name, "reason": reason} for name, reason in found.skipped],
        "passed_over": dict(found.passed_over),
    }


def _move(args: argparse.Namespace, moving: list[str | None]) -> int:
    from mobilenet_hub.search.moving import move_copies, undo

    if args.photos or args.output:
        raise InputError(
            "--from with --move-to, and --undo, take no photos and write no groups: that is the first call"
        )
    if args.undo is not None:
        if any(moving):
            raise InputError("--undo stands alone")
        done = undo(args.undo)
        note(f"{len(done.moves)} photos moved back", args.quiet)
    else:
        if not all(moving):
            raise InputError("moving takes both: --from GROUPS --move-to DIR; look GROUPS through before")
        done = move_copies(args.groups, args.move_to)
        undoing = f"; to undo: mobilenet dedupe --undo {done.log}" if done.log else ""
        note(f"{len(done.moves)} photos moved to {args.move_to}{undoing}", args.quiet)
    for path, reason in done.left:
        note(f"{path}: left where it is: {reason}")
    if args.json:
        print_json(_moved_json(done))
    return 1 if done.left else 0


def _moved_json(done: "Moved") -> dict[str, Any]:
    return {
        "moved": [{"from": str(path), "to": str(target)} for path, target in done.moves],
        "left": [{"path": path, "reason": reason} for path, reason in done.left],
        "log": done.log and str(done.log),
    }
