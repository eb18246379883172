"""Works that go wrong leave nothing behind; each thread keeps to a core."""

import gc
import os
import time
import weakref
from contextlib import suppress
from pathlib import Path
from queue import Queue

import numpy as np
import pytest

from mobilenet_hub.serve.batcher import Batcher, Work
from mobilenet_hub.serve.limits import Refusal
from mobilenet_hub.serve.served import FEATURES, LOGITS, Options, Served
from mobilenet_hub.store import resolve


@pytest.fixture(scope="module")
def served():
    return Served("starter", "1", resolve("starter"), Options())


def refuse(work):
    raise Refusal(400, f"{len(work.results)} of 1 could not be read")


def break_down(work):
    raise ZeroDivisionError


@pytest.mark.parametrize("make", [refuse, break_down])
@pytest.mark.parametrize("is_failure", [False, True])
def test_a_work_that_went_wrong_is_gone_without_a_collection_of_garbage(served, make, is_failure):
    """Its pictures go with it; held until a collection they once took half as much memory as the server itself."""

    def ask():
        work = Work(served, (LOGITS,), make=make)
        work.expect(1, 0.0)
        if is_failure:
            try:
                make(work)
            except Exception as error:
                work.failure = error
        work.finish()
        try:
            work.outcome()
        except (Refusal, ZeroDivisionError):
            return weakref.ref(work)
        raise AssertionError("nothing was raised")

    gc.disable()
    try:
        assert ask()() is None
    finally:
        gc.enable()


def test_what_was_made_is_the_outcome(served):
    work = Work(served, (LOGITS,), make=lambda work: len(work.results))
    work.expect(3, 0.0)
    work.finish()
    assert work.outcome() == 3


def narrow_threads():
    """The numbers of this process's threads that may not run on every core."""
    cores, narrow = os.sched_getaffinity(0), set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            if os.sched_getaffinity(int(task.name)) != cores:
                narrow.add(int(task.name))
    return narrow


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no cores to choose")
@pytest.mark.parametrize("engine", ["litert", "openvino"])
def test_each_thread_keeps_to_its_core_and_nothing_that_it_begins_does(engine):
    """LiteRT's threads inherit the cores of the one that begins them; OpenVINO sends its caller to all, for good."""
    pytest.importorskip({"litert": "ai_edge_litert", "openvino": "openvino"}[engine])
    served = Served("starter", "1", resolve("starter"), Options(engine=engine))
    cores, before, done = os.sched_getaffinity(0), narrow_threads(), Queue()
    batcher = Batcher(lambda works, _: done.put(works))

    def compute(count):
        work = Work(served, (FEATURES,), make=lambda work: len(work.results))
        batcher.pictures(work, [np.zeros((32, 32, 3), np.uint8)] * count, 30)
        while work not in done.get(timeout=30):
            pass
        assert work.outcome() == count

    def kept():
        return sorted(tuple(os.sched_getaffinity(thread.native_id)) for thread in batcher._threads)

    try:
        for _ in range(2):
            end = time.monotonic() + 30  # one thread may be quick enough for all of a few
            while kept() != [(core,) for core in sorted(cores)] and time.monotonic() < end:
                compute(40)
            assert kept() == [(core,) for core in sorted(cores)]
            time.sleep(0.06)
            compute(1)  # alone: it has all cores
            assert tuple(sorted(cores)) in kept()
        if engine == "litert":  # OpenVINO chooses cores for its own
            assert narrow_threads() - before <= {thread.native_id for thread in batcher._threads}
    finally:
        batcher.close()
