"""What the commands print with: thin tables, bars, JSON, notes, progress.

Results go to standard output; notes, warnings and progress to standard error. On a terminal the tables are drawn
with box characters and bold headings; in a pipe, or with NO_COLOR set, they are plain ASCII.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TextIO

from mobilenet_hub.host.environment import setting

PROGRESS_DELAY_S = 2.0
_MAX_LISTED = 10  # files left out that are named; of more, the number
_UNITS = {"features": "photo", "photos": "photo", "training": "photo"}  # of stages; of others: step
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Progress(Protocol):
    """What `progress` yields: call `update(n)` for every n items done."""

    def update(self, n: int = 1) -> object:
        """Count n more items as done."""
        ...

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> object:
        """Show a few words beside the bar."""
        ...


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


@contextmanager
def progress(total: int | None, description: str, unit: str = "image", quiet: bool = False) -> Iterator[Progress]:
    """Show a progress bar with rate and time left on standard error, once the work has taken two seconds.

    Args:
        total: how many items there are; None: not known.
        description: what is being done.
        unit: what is counted.
        quiet: show nothing.

    Example:
        >>> with progress(3, "reading") as done:
        ...     for _ in range(3):
        ...         _ = done.update()
    """
    if quiet:
        yield _Silent()
        return
    from tqdm import tqdm

    interval_s = 0.1 if sys.stderr.isatty() else 10.0  # a log file needs no ten lines a second
    with tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        delay=PROGRESS_DELAY_S,
        mininterval=interval_s,
        dynamic_ncols=True,
        leave=False,
        file=sys.stderr,
    ) as shown:
        yield shown


class Stages:
    """A progress bar for each stage of the work, one after the other."""

    def __init__(self, quiet: bool):
        self._quiet = quiet
        self._stage, self._done = "", 0
        self._bar: Progress | None = None
        self._open = ExitStack()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; what follows ": " in its name is shown beside the bar.

        The bar counts from where this process began, so that a resumed run's rate and time left are right.
        """
        stage, _, detail = stage.partition(": ")
        if stage != self._stage or self._bar is None or done < self._done:
            self._open.close()
            self._bar = self._open.enter_context(progress(total - done, stage, _UNITS.get(stage, "step"), self._quiet))
            self._stage, self._done = stage, done
        self._bar.set_postfix_str(detail, refresh=False)
        self._bar.update(done - self._done)
        self._done = done

    def __enter__(self) -> "Stages":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def note_cautions(warnings: Sequence[str], left_out: Sequence[tuple[str, str]], quiet: bool) -> None:
    """Print warnings, unless quiet, and the files that were left out, [(path, reason)], the first few by name."""
    for warning in warnings:
        note(f"warning: {warning}", quiet)
    for path, reason in left_out[:_MAX_LISTED]:
        note(f"{path}: left out: {reason}")
    if len(left_out) > _MAX_LISTED:
        note(f"and {len(left_out) - _MAX_LISTED} more files were left out")


class _Silent:
    def update(self, n: int = 1) -> None:
        """Count nothing."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Show nothing."""
