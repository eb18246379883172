"""Progress: how work says how far it is, and the bars that show it.

Whatever takes long is given an `OnProgress` and calls it; only the commands, and a fetch that nobody asked for by name,
give it `Bars`.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

# Called with what is being done, how much of it is done, and how much there is (None: not known).
OnProgress = Callable[[str, int, int | None], object]

_DELAY_S = 2.0  # what is over sooner shows no bar
_NOT_EMPTY_S = 1e-9  # tqdm draws a bar of nothing first, unless it is asked to wait
_INTERVAL_S, _LOG_INTERVAL_S = 0.1, 10.0  # a log file needs no ten lines a second


class Stage(str):
    """What is being done: its name, with what is counted and a few words on how it goes.

    Example:
        >>> stage = Stage("training", "photo", "loss 0.5")
        >>> stage == "training", stage.detail
        (True, 'loss 0.5')
    """

    __slots__ = ("detail", "unit")
    unit: str
    detail: str

    def __new__(cls, name: str, unit: str = "step", detail: str = "") -> "Stage":
        """Name a stage.

        Args:
            name: what is being done.
            unit: what is counted; "B" for bytes.
            detail: shown beside the bar.
        """
        stage = super().__new__(cls, name)
        stage.unit, stage.detail = unit, detail
        return stage


def silent(stage: str, done: int, total: int | None) -> None:
    """Report nothing."""


class Bars:
    """A bar on standard error for each stage of the work, one after the other, with rate and time left.

    A bar appears once its stage has taken two seconds, and counts from where this process began, so that a resumed
    run's rate and time left are right.

    Example:
        >>> with Bars() as on_progress:
        ...     on_progress("reading", 3, 3)
    """

    def __init__(self, quiet: bool = False):
        """Make bars; quiet ones show nothing."""
        self._quiet = quiet
        self._stage, self._first, self._done = "", 0, 0
        self._since: float | None = None  # when the stage began; None: there is none
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show how far a stage is."""
        if self._quiet:
            return
        if stage != self._stage or self._since is None or done < self._done:
            self._close()
            self._stage, self._first, self._done = stage, done, done
            self._since = time.time()
        if self._bar is None and time.time() - self._since >= _DELAY_S:
            self._bar = _bar(stage, None if total is None else total - self._first, self._since)
            self._done = self._first
        if self._bar is not None:
            if isinstance(stage, Stage):
                self._bar.set_postfix_str(stage.detail, refresh=False)
            self._bar.update(done - self._done)
        self._done = done

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._since = None


def _bar(stage: str, total: int | None, since: float) -> Any:
    """Return a bar of a stage that began then. Importing tqdm takes as long as classifying a photo: not before."""
    from tqdm import tqdm

    unit = stage.unit if isinstance(stage, Stage) else "step"
    bar = tqdm(
        total=total,
        desc=stage,
        unit=unit if unit == "B" else f" {unit}",
        unit_scale=unit == "B",
        delay=_NOT_EMPTY_S,
        mininterval=_INTERVAL_S if sys.stderr.isatty() else _LOG_INTERVAL_S,
        dynamic_ncols=True,
        leave=False,
        file=sys.stderr,
    )
    bar.start_t = bar.last_print_t = since
    return bar
