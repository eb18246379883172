"""What this machine is: its cores, its CPU's name and instructions."""

import os
import platform
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import local


class _Place(local):
    core: int | None = None  # that this thread keeps to
    before: Set[int] = frozenset()  # the cores that it had until then


_place = _Place()


def available_cores() -> int:
    """Return how many cores this process may use.

    Example:
        >>> available_cores() >= 1
        True
    """
    return len(_cores()) or os.cpu_count() or 1


def _cores() -> Set[int]:
    """Return the cores of this process, whichever of them this thread keeps to; none where it cannot be said."""
    if _place.core is not None:
        return _place.before
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def own_cores(threads: int) -> Iterator[int]:
    """Return a core for each of so many threads; none where they are not as many as the cores, or it cannot be said.

    Fewer threads go where there is room: two programs that both kept to the first core would have half of it.

    Example:
        >>> list(own_cores(available_cores() + 1))
        []
    """
    cores = _cores()
    return iter(sorted(cores) if len(cores) == threads else [])


def keep_to(core: int | None) -> None:
    """Have this thread run on one core alone; None: wherever it might before."""
    if core == _place.core:
        return
    with suppress(OSError):  # a core that was taken away meanwhile
        if _place.core is None:
            _place.before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, _place.before if core is None else {core})
        _place.core = core


@contextmanager
def on_every_core() -> Iterator[None]:
    """Let a thread that keeps to a core run wherever it might before: threads that begin meanwhile inherit its cores.

    Example:
        >>> with on_every_core():
        ...     available_cores() >= 1
        True
    """
    core = _place.core
    keep_to(None)
    try:
        yield
    finally:
        keep_to(core)


@cache
def cpu_features() -> frozenset[str]:
    """Return the names of this CPU's instruction sets as Linux lists them; empty elsewhere.

    Example:
        >>> isinstance(cpu_features(), frozenset)
        True
    """
    facts = _cpu_facts()
    return frozenset((facts.get("flags") or facts.get("features") or "").split())


def cpu_name() -> str:
    """Return what the CPU calls itself, or at least its kind.

    Example:
        >>> cpu_name() != ""
        True
    """
    return _cpu_facts().get("model name") or platform.machine()


@cache
def _cpu_facts() -> dict[str, str]:
    """Return what Linux says of the first core; nothing elsewhere."""
    facts: dict[str, str] = {}
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            for line in lines:
                name, colon, value = line.partition(":")
                if not colon:
                    break
                facts[name.strip().lower()] = value.strip()
    except OSError:
        pass
    return facts
