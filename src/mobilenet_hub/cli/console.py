"""What the commands print with: thin tables, bars, JSON, notes, progress.

Results go to standard output; notes, warnings and progress to standard error. On a terminal the tables are drawn
with box characters and bold headings; in a pipe, or with NO_COLOR set, they are plain ASCII.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from mobilenet_hub.host.environment import setting
from mobilenet_hub.images.content import passed_over_text
from mobilenet_hub.images.skipped import Skipped

_MAX_LISTED = 10  # files left out that are named; of more, the number
_PHOTOS = ("image", "photo", "path", "keep", "copy", "copy of")  # columns of names of photos
_LEAST_WIDTH = 12  # of a column that is cut to fit a terminal
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def is_fancy() -> bool:
    """Tell whether standard output takes box characters and bold type."""
    stream = sys.stdout
    if setting("NO_COLOR") or setting("TERM") == "dumb" or not stream.isatty():
        return False
    return _is_utf8(stream)


def _is_utf8(stream: TextIO | None) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


class Table:
    """A thin table whose rows may come bit by bit: a line of headings, a rule, the rows.

    The first rows decide the widths; later ones can only widen them. On a terminal the table fits: what is too long is
    cut, the name of a photo at its left.
    """

    def __init__(self, headers: Sequence[str], align: str = "", fancy: bool | None = None):
        """Begin a table.

        Args:
            headers: a heading for each column.
            align: "<" or ">" for each column; columns beyond its end are left-aligned.
            fancy: draw for a terminal; None: if standard output is one that can.
        """
        self.fancy = is_fancy() if fancy is None else fancy
        self._headers = headers
        self._align = align.ljust(len(headers), "<")
        # What may be cut: words, neither figures nor bars.
        self._texts = [index for index, side in enumerate(self._align) if side == "<" and headers[index]]
        self._widths: list[int] = []

    def rows(self, rows: Sequence[Sequence[object]]) -> str:
        """Return rows as text, the first ones below the headings; None is shown empty."""
        cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
        lines = []
        is_first, known = not self._widths, self._widths or [0] * len(self._headers)
        columns = zip(known, zip(self._headers, *cells, strict=True), strict=True)
        self._widths = [max(width, *map(_width, column)) for width, column in columns]
        if self.fancy:
            self._fit(shutil.get_terminal_size().columns)
        if is_first:
            heading = self._line(self._headers)
            lines.append(f"\033[1m{heading}\033[0m" if self.fancy else heading)
            lines.append("  ".join(("─" if self.fancy else "-") * width for width in self._widths))
        return "\n".join([*lines, *map(self._line, cells)])

    def _fit(self, columns: int) -> None:
        """Take from the widest columns of text what the terminal has no room for."""
        while self._texts and sum(self._widths) + 2 * (len(self._widths) - 1) > columns:
            widest = max(self._texts, key=lambda index: self._widths[index])
            if self._widths[widest] <= _LEAST_WIDTH:
                break
            self._widths[widest] -= 1

    def _line(self, row: Sequence[str]) -> str:
        shown = []
        for index, (cell, align, width) in enumerate(zip(row, self._align, self._widths, strict=True)):
            is_photo = self._headers[index] in _PHOTOS
            text = _cut(cell, width, is_photo) if self.fancy and index in self._texts else cell
            blanks = " " * (width - _width(text))
            shown.append(f"{blanks}{text}" if align == ">" else f"{text}{blanks}")
        return "  ".join(shown).rstrip()


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], align: str = "", fancy: bool | None = None) -> str:
    """Return a whole table.

    Args:
        headers: a heading for each column.
        rows: cells; None is shown empty.
        align: as for `Table`.
        fancy: as for `Table`.

    Example:
        >>> print(table(["label", "score"], [["cat", "0.91"], ["lynx", "0.05"]], "<>", fancy=False))
        label  score
        -----  -----
        cat     0.91
        lynx    0.05
    """
    return Table(headers, align, fancy).rows(rows)


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese, Japanese and Korean letters take two."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _cut(text: str, width: int, is_photo: bool) -> str:
    """Return a text that takes no more columns; a photo's name keeps its end, anything else its beginning."""
    if _width(text) <= width:
        return text
    while _width(text) >= width:
        text = text[1:] if is_photo else text[:-1]
    return f"…{text}" if is_photo else f"{text}…"


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
