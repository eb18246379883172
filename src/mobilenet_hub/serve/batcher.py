"""Batches of images out of many requests: each core's thread takes what is there, and nobody waits.

A thread takes pictures, decodes them, has the network compute them on one core and makes the answers, all by itself: a
request changes threads on its way in, and its answer on its way out. It takes several pictures at a time where many
wait. As many threads work as there are cores, whatever the number of modules, and each keeps to one; a picture that is
all there is, and was for a while, has them all for the network.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.host.cpu import available_cores, keep_to, own_cores
from mobilenet_hub.serve.served import LOGITS, Outputs, Postponed, Served

Result = dict[str, np.ndarray]
IMAGES = "images"  # of a result, beside the outputs: what the network saw, [n, height, width, 3]
INDICES, SCORES = "indices", "scores"  # of a result, where the likeliest classes are asked for: [n, top]
_LONELY_S = 0.05  # without company, before one picture is spread over all cores: others would soon want theirs
_PART = 8  # pictures that a thread takes at a time, at most


class Work:
    """The images of one request on their way through decoding and the network.

    Attributes:
        served: the module, as it was when the request came.
        outputs: what to compute.
        top: how many of the likeliest classes to name beside it, as `INDICES` and `SCORES`; 0: none.
        keep_images: whether what the network saw is kept beside the results, as `IMAGES`.
        make: called with the work once it is complete, in a thread of the batcher; what it returns or raises is `made`.
        count: how many images there are.
        results: for each image (or part of a batch) its outputs [n, ...] by name, or the reason why there are none.
        late: the deadline passed before the network was reached.
        failure: an error of ours.
        decode_s, wait_s, compute_s: where the time went; of several images, the longest.
    """

    def __init__(
        self,
        served: Served,
        outputs: Outputs,
        *,
        top: int = 0,
        keep_images: bool = False,
        make: "Callable[[Work], Any] | None" = None,
    ):
        self.served, self.outputs, self.top, self.keep_images, self.make = served, outputs, top, keep_images, make
        self.count = 0
        self.results: list[Result | str] = []
        self.made: Any = None
        self.left = 0
        self.deadline = 0.0
        self.late = False
        self.failure: Exception | None = None
        self.decode_s = self.wait_s = self.compute_s = 0.0

    def output(self, name: str) -> np.ndarray:
        """Return one output of all images together, [n, ...] float32, where all are good."""
        good = [result[name] for result in self.results if not isinstance(result, str)]
        return good[0] if len(good) == 1 else np.concatenate(good)

    def failures(self) -> list[tuple[int, str]]:
        """Return (index, reason) of the images that could not be read."""
        return [(index, result) for index, result in enumerate(self.results) if isinstance(result, str)]

    def expect(self, count: int, deadline: float) -> None:
        """Have so many results to come, until then."""
        self.results = [""] * count
        self.left, self.deadline = count, deadline

    def finish(self) -> None:
        """Make what is to be made of the results."""
        if self.make is not None and not self.late and self.failure is None:
            try:
                self.made = self.make(self)
            except Exception as error:  # whoever waits hears of it
                self.made = error

    def outcome(self) -> Any:
        """Return what was made, or raise what went wrong; once."""
        error = self.failure or self.made
        if not isinstance(error, Exception):
            return self.made
        # An error holds the frames that it came through, with all that they know: pictures, this work. Held by those in
        # turn, they would stay until the next collection of garbage.
        self.failure = self.made = None
        try:
            raise error
        finally:
            del error


@dataclass(slots=True, eq=False)
class _Task:
    work: Work
    index: int
    source: bytes | np.ndarray  # a picture; or images [n, height, width, 3], float32 in [0, 1]
    since: float
    is_picture: bool
    is_settled: bool = False
    postponed: bool = False


_Images = tuple[_Task, np.ndarray]  # [n, height, width, 3], uint8 or float32 in [0, 1]
# Called in a thread of the batcher: the requests that are done, and the size of the batch that they were done by or 0.
OnDone = Callable[[list[Work], int], None]


class Batcher:
    """The threads that decode and compute, and beside them those of `pool`, for bodies and answers that take long."""

    def __init__(self, on_done: OnDone, threads: int | None = None):
        count = threads or available_cores()
        self.pool = ThreadPoolExecutor(count, "body")
        self._on_done = on_done
        self._waiting: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = Lock()
        self._busy = 0  # threads that have something to do
        self._company = 0.0  # when last there was more than one thing to do
        # Left to itself, Linux has two busy ones take turns of 4 ms on one core, while another idles.
        cores = [*own_cores(count)] or [None] * count
        self._threads = [
            Thread(target=self._work, args=(core,), name=f"compute_{number}", daemon=True)
            for number, core in enumerate(cores)
        ]
        for thread in self._threads:
            thread.start()

    def pictures(self, work: Work, pictures: Sequence[bytes | np.ndarray], timeout_s: float) -> None:
        """Take the pictures of a request: bytes of files, or uint8 arrays [h, w, 3]."""
        now = time.monotonic()
        work.expect(len(pictures), now + timeout_s)
        for index, picture in enumerate(pictures):
            self._waiting.put(_Task(work, index, picture, now, is_picture=True))

    def batch(self, work: Work, images: np.ndarray, timeout_s: float) -> None:
        """Take a float32 batch [n, height, width, 3] in [0, 1] as it is, each thread a part."""
        now = time.monotonic()
        size = min(_PART, -(-len(images) // len(self._threads)))
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        work.expect(len(parts), now + timeout_s)
        for index, part in enumerate(parts):
            self._waiting.put(_Task(work, index, part, now, is_picture=False))

    def close(self) -> None:
        """Let the threads finish what they have, and end them."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        self.pool.shutdown(wait=True)

    def _work(self, core: int | None) -> None:
        while (first := self._waiting.get()) is not None:
            with self._lock:
                self._busy += 1
            now = time.monotonic()
            if self._busy > 1 or not self._waiting.empty():
                self._company = now
            keep_to(None if self._is_lonely(now) else core)
            tasks = [first, *self._more()]
            try:
                self._compute(self._decoded(tasks))
            except Exception as error:  # ours to mend; whoever waits must hear of it, and the thread goes on
                self._fail([task for task in tasks if not task.is_settled and not task.postponed], error)
            finally:
                with self._lock:
                    self._busy -= 1

    def _is_lonely(self, now: float) -> bool:
        return now - self._company > _LONELY_S

    def _more(self) -> Iterable[_Task]:
        """Take some of what waits beside the first: half of this thread's share, for the last of them waits longest."""
        for _ in range(min(_PART - 1, self._waiting.qsize() // (2 * len(self._threads)))):
            try:
                task = self._waiting.get_nowait()
            except Empty:
                return
            if task is None:  # the end, which comes last
                self._waiting.put(None)
                return
            yield task

    def _decoded(self, tasks: Sequence[_Task]) -> list[_Images]:
        decoded: list[_Images] = []
        for task in tasks:
            work, start = task.work, time.monotonic()
            work.wait_s = max(work.wait_s, start - task.since)
            if start > work.deadline:
                self._settle([(task, "")], late=True)
                continue
            if not task.is_picture:
                decoded.append((task, task.source))  # type: ignore[arg-type]
                continue
            try:
                images = work.served.load(task.source, patient=task.postponed)[np.newaxis]
            except Postponed:
                task.postponed = True
                self._waiting.put(task)
            except ImageError as error:
                self._settle([(task, error.reason)])
            except Exception as error:  # a picture that trips the decoder must not cost the others
                self._fail([task], error)
            else:
                work.decode_s = max(work.decode_s, time.monotonic() - start)
                decoded.append((task, images))
        return decoded

    def _compute(self, decoded: Sequence[_Images]) -> None:
        """Compute what goes together: of the same module, outputs and type."""
        groups: dict[object, list[_Images]] = {}
        for task, images in decoded:
            work = task.work
            groups.setdefault((work.served, work.outputs, work.top, images.dtype), []).append((task, images))
        for group in groups.values():
            self._run(group)

    def _run(self, group: list[_Images]) -> None:
        start = time.monotonic()
        if late := [(task, "") for task, _ in group if start > task.work.deadline]:
            self._settle(late, late=True)
            group = [(task, images) for task, images in group if start <= task.work.deadline]
        if not group:
            return
        work, images = group[0][0].work, group[0][1]
        if len(group) > 1:
            images = np.concatenate([images for _, images in group])
        try:
            engine = work.served.engine(work.outputs)
            alone = len(images) == 1 and self._is_lonely(start)
            if alone:
                keep_to(None)  # OpenVINO sends its caller to every core anyway, and leaves it there
            outputs = (engine.run if alone else engine.run_here)(images)
            if work.top:
                assert work.served.classifier is not None
                outputs[INDICES], outputs[SCORES] = work.served.classifier.ranked(outputs[LOGITS], work.top)
        except Exception as error:  # of the engine; whoever waits must hear of it
            self._fail([task for task, _ in group], error)
            return
        seconds = time.monotonic() - start
        position, settled = 0, []
        for task, own in group:
            rows = slice(position, position + len(own))
            position = rows.stop
            task.work.compute_s = max(task.work.compute_s, seconds)
            result = {name: value[rows] for name, value in outputs.items()}
            if task.work.keep_images:
                result[IMAGES] = own
            settled.append((task, result))
        self._settle(settled, size=len(images))

    def _fail(self, tasks: Sequence[_Task], error: Exception) -> None:
        for task in tasks:
            task.work.failure = error
        self._settle([(task, "") for task in tasks])

    def _settle(self, settled: Sequence[tuple[_Task, Result | str]], *, late: bool = False, size: int = 0) -> None:
        """Note results, and hand on the requests that have all of theirs."""
        done: list[Work] = []
        with self._lock:
            for task, result in settled:
                work, task.is_settled = task.work, True
                work.results[task.index] = result
                work.late = work.late or late
                work.left -= 1
                if work.left == 0:
                    done.append(work)
        for work in done:
            work.finish()
        if done or size:
            self._on_done(done, size)
