"""Objects of a store read ahead of whoever takes them: many connections at once, in order, with bounded memory.

An object comes after some hundredths of a second, whatever its size: one after the other, a thousand photos would take
a minute of waiting. What lies on a disk is not read ahead; the threads that decode do that themselves.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mobilenet_hub.host.stores import CONNECTIONS

Thing = TypeVar("Thing")
Made = TypeVar("Made")

_MAX_BYTES = 1 << 26  # that are under way, or have come and are not yet taken


def ahead(
    things: Iterable[tuple[Thing, int, Callable[[], Made] | None]], *, at_once: int = CONNECTIONS
) -> Iterator[tuple[Thing, Made | None]]:
    """Yield each thing with what its task gave, in order, while the tasks of the next are done.

    Args:
        things: a thing, how many bytes its task brings into memory, and its task; None: it has none.
        at_once: how many tasks are done at once; twice as many wait or have ended.

    Raises:
        Exception: what a task raised, at its turn.

    Example:
        >>> list(ahead([("a", 1, lambda: 1), ("b", 0, None), ("c", 1, lambda: 3)]))
        [('a', 1), ('b', None), ('c', 3)]
    """
    pending: deque[tuple[Thing, int, Future[Made] | None]] = deque()
    held = 0
    pool: ThreadPoolExecutor | None = None
    try:
        for thing, size, task in things:
            if task is None and not pending:
                yield thing, None
                continue
            if task is not None and pool is None:
                pool = ThreadPoolExecutor(at_once, "decode-read")  # named as those whose end nobody waits for
            pending.append((thing, size, pool.submit(task) if pool and task else None))
            held += size
            while pending and (len(pending) > 2 * at_once or held > _MAX_BYTES or pending[0][2] is None):
                held -= pending[0][1]
                yield _first(pending)
        while pending:
            yield _first(pending)
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _first(pending: deque[tuple[Thing, int, Future[Made] | None]]) -> tuple[Thing, Made | None]:
    thing, _, future = pending.popleft()
    return thing, None if future is None else future.result()
