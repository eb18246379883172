"""Works that go wrong leave nothing behind."""

import gc
import weakref

import pytest

from mobilenet_hub.serve.batcher import Work
from mobilenet_hub.serve.limits import Refusal
from mobilenet_hub.serve.served import LOGITS, Options, Served
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
