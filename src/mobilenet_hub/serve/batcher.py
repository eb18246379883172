"""Batches of images out of many requests: whoever finds the engine idle runs it with what is there, and nobody waits.

A picture is decoded by a thread of the pool. The thread that has one ready and finds no engine running runs the engine
itself, with all that is ready by then, and goes on until nothing is; what arrives meanwhile is decoded by the other
threads and forms the next batch. So a lone request changes threads once, and one engine runs at a time, whatever the
number of modules: each uses all cores.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.host.cpu import available_cores
from mobilenet_hub.images.batches import BATCH_SIZE
from mobilenet_hub.serve.served import Outputs, Served

Result = dict[str, np.ndarray]
IMAGES = "images"  # of a result, beside the outputs: what the network saw, [n, height, width, 3]
# While pictures wait to be decoded, threads go on with those until so many are ready: cores are never idle, and batches
# of one, which cost more for each image, are for when there is nothing else to do.
_ENOUGH = 8


class Work:
    """The images of one request on their way through decoding and the network.

    Attributes:
        served: the module, as it was when the request came.
        outputs: what to compute.
        keep_images: whether what the network saw is kept beside the results, as `IMAGES`.
        results: for each image (or part of a batch) its outputs [n, ...] by name, or the reason why there are none.
        late: the deadline passed before the network was reached.
        failure: an error of ours.
        decode_s, wait_s, compute_s: where the time went; of several images, the longest.
    """

    def __init__(self, served: Served, outputs: Outputs, count: int, deadline: float, *, keep_images: bool = False):
        self.served, self.outputs, self.deadline, self.keep_images = served, outputs, deadline, keep_images
        self.results: list[Result | str] = [""] * count
        self.left = count
        self.late = False
        self.failure: Exception | None = None
        self.decode_s = self.wait_s = self.compute_s = 0.0

    def output(self, name: str) -> np.ndarray:
        """Return one output of all images together, [n, ...] float32, where all are good."""
        return np.concatenate([result[name] for result in self.results if not isinstance(result, str)])

    def failures(self) -> list[tuple[int, str]]:
        """Return (index, reason) of the images that could not be read."""
        return [(index, result) for index, result in enumerate(self.results) if isinstance(result, str)]


@dataclass(slots=True, eq=False)
class _Ready:
    work: Work
    index: int
    images: np.ndarray  # [n, height, width, 3], uint8 or float32 in [0, 1]
    since: float


# Called in a thread of the batcher: the requests that are done, and the size of the batch that they were done by or 0.
OnDone = Callable[[list[Work], int], None]


class Batcher:
    """The threads that decode and compute."""

    def __init__(self, on_done: OnDone, threads: int | None = None):
        # As in bulk: as many decode as there are cores, while one more has the network running.
        self.pool = ThreadPoolExecutor((threads or available_cores()) + 1, "decode")
        self._on_done = on_done
        self._ready: deque[_Ready] = deque()
        self._lock = Lock()
        self._running = False
        self._undecoded = 0  # pictures that no thread has begun with

    def pictures(self, work: Work, pictures: Sequence[bytes | np.ndarray]) -> None:
        """Take the pictures of a request: bytes of files, or uint8 arrays [h, w, 3]."""
        with self._lock:
            self._undecoded += len(pictures)
        for index, picture in enumerate(pictures):
            self.pool.submit(self._decode, work, index, picture)

    def batch(self, work: Work, images: np.ndarray) -> None:
        """Take a float32 batch [n, height, width, 3] in [0, 1] as it is; `work` counts its parts of BATCH_SIZE."""
        now = time.monotonic()
        for index in range(len(work.results)):
            part = images[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
            self._ready.append(_Ready(work, index, part, now))
        self.pool.submit(self._compute)

    def close(self) -> None:
        """Let the threads finish what they have, and end them."""
        self.pool.shutdown(wait=True)

    def _decode(self, work: Work, index: int, picture: bytes | np.ndarray) -> None:
        start = time.monotonic()
        with self._lock:
            self._undecoded -= 1
        try:
            if start > work.deadline:
                self._settle([(work, index, "")], late=True)
                return
            images = work.served.load(picture)[np.newaxis]
            now = time.monotonic()
            work.decode_s = max(work.decode_s, now - start)
            self._ready.append(_Ready(work, index, images, now))
        except ImageError as error:
            self._settle([(work, index, error.reason)])
        except Exception as error:  # a picture that trips the decoder must not cost the thread
            work.failure = error
            self._settle([(work, index, "")])
        finally:
            self._compute()

    def _compute(self) -> None:
        """Run the engine until nothing is ready, unless another thread does."""
        while True:
            with self._lock:
                if self._running or not self._ready or (self._undecoded and len(self._ready) < _ENOUGH):
                    return
                self._running = True
                batch = self._taken()
            try:
                self._run(batch)
            finally:
                with self._lock:
                    self._running = False

    def _taken(self) -> list[_Ready]:
        """Take what is ready and goes with the first: the same module, outputs and type."""
        first = self._ready[0]
        key = (first.work.served, first.work.outputs, first.images.dtype)
        taken: list[_Ready] = []
        others: list[_Ready] = []
        room = BATCH_SIZE
        while self._ready and room > 0:
            ready = self._ready.popleft()
            fits = (ready.work.served, ready.work.outputs, ready.images.dtype) == key and len(ready.images) <= room
            (taken if fits else others).append(ready)
            room -= len(ready.images) if fits else 0
        self._ready.extendleft(reversed(others))
        return taken

    def _run(self, batch: list[_Ready]) -> None:
        start = time.monotonic()
        late = [ready for ready in batch if start > ready.work.deadline]
        if late:
            self._settle([(ready.work, ready.index, "") for ready in late], late=True)
            batch = [ready for ready in batch if ready not in late]
        if not batch:
            return
        work = batch[0].work
        try:
            images = batch[0].images if len(batch) == 1 else np.concatenate([ready.images for ready in batch])
            outputs = work.served.engine(work.outputs).run(images)
        except Exception as error:  # of the engine; whoever waits must hear of it
            for ready in batch:
                ready.work.failure = error
            self._settle([(ready.work, ready.index, "") for ready in batch])
            return
        seconds = time.monotonic() - start
        position, settled = 0, []
        for ready in batch:
            rows = slice(position, position + len(ready.images))
            position = rows.stop
            ready.work.wait_s = max(ready.work.wait_s, start - ready.since)
            ready.work.compute_s = max(ready.work.compute_s, seconds)
            result = {name: value[rows] for name, value in outputs.items()}
            if ready.work.keep_images:
                result[IMAGES] = ready.images
            settled.append((ready.work, ready.index, result))
        self._settle(settled, size=len(images))

    def _settle(self, settled: Sequence[tuple[Work, int, Result | str]], *, late: bool = False, size: int = 0) -> None:
        """Note results, and hand on the requests that have all of theirs."""
        done: list[Work] = []
        with self._lock:
            for work, index, result in settled:
                work.results[index] = result
                work.late = work.late or late
                work.left -= 1
                if work.left == 0:
                    done.append(work)
        if done or size:
            self._on_done(done, size)
