"""What the commands print with: thin tables, bars, JSON, notes, progress.

Results go to standard output; notes, warnings and progress to standard error. On a terminal the tables are drawn
with box characters and bold headings; in a pipe, or with NO_COLOR set, they are plain ASCII.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from mobilenet_hub.host.environment import setting
from mobilenet_hub.images.content import passed_over_text
from mobilenet_hub.images.skipped import Skipped

_MAX_LISTED = 10  # files left out that are named; of more, the number
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def is_fancy() -> bool:
    """Tell whether standard output takes box characters and bold type."""
    stream = sys.stdout
    if setting("NO_COLOR") or setting("TERM") == "dumb" or not stream.isatty():
        return False
    return _is_utf8(stream)


def _is_utf8(stream: TextIO | None) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], align: str = "", fancy: bool | None = None) -> str:
    """Return a thin table: a line of headings, a rule, the rows.

    Args:
        headers: a heading for each column.
        rows: cells; None is shown empty.
        align: "<" or ">" for each column; columns beyond its end are left-aligned.
        fancy: draw for a terminal; None: if standard output is one that can.

    Example:
        >>> print(table(["label", "score"], [["cat", "0.91"], ["lynx", "0.05"]], "<>", fancy=False))
        label  score
        -----  -----
        cat     0.91
        lynx    0.05
    """
    fancy = is_fancy() if fancy is None else fancy
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    align = align.ljust(len(widths), "<")

    def line(row: Sequence[str]) -> str:
        return "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip()

    rule = "  ".join(("─" if fancy else "-") * width for width in widths)
    heading = f"\033[1m{line(headers)}\033[0m" if fancy else line(headers)
    return "\n".join([heading, rule, *map(line, cells)])


def bar(fraction: float, width: int = 20, fancy: bool | None = None) -> str:
    """Return a horizontal bar for a fraction in [0, 1], to an eighth of a character on a terminal.

    Example:
        >>> bar(0.5, width=8, fancy=False)
        '####'
    """
    fancy = is_fancy() if fancy is None else fancy
    fraction = min(max(fraction, 0.0), 1.0)
    if not fancy:
        return "#" * round(fraction * width)
    whole, eighths = divmod(round(fraction * width * 8), 8)
    return ("█" * whole + _EIGHTHS[eighths]).rstrip()


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, readable by people too."""
    print(json.dumps(value, indent=2, ensure_ascii=not _is_utf8(sys.stdout)))


def note(text: str, quiet: bool = False) -> None:
    """Print a line on standard error, unless quiet."""
    if not quiet:
        print(text, file=sys.stderr)


def note_passed_over(counts: Mapping[str, int], quiet: bool) -> None:
    """Print how many files in folders and archives are no pictures, once, unless quiet."""
    text = passed_over_text(counts)
    note(text, quiet or not text)


def open_page(path: str | os.PathLike[str], quiet: bool) -> None:
    """Show a page in the user's browser; where there is none, say where the page is."""
    import webbrowser

    address = Path(path).absolute().as_uri()
    if not webbrowser.open(address):
        note(f"no browser can be opened from here; open {address}", quiet)


def note_cautions(warnings: Sequence[str], left_out: Sequence[Skipped], quiet: bool) -> None:
    """Print warnings, unless quiet, and the files that were left out, the first few by name."""
    for warning in warnings:
        note(f"warning: {warning}", quiet)
    for path, reason in left_out[:_MAX_LISTED]:
        note(f"{path}: left out: {reason}")
    if len(left_out) > _MAX_LISTED:
        note(f"and {len(left_out) - _MAX_LISTED} more files were left out")
