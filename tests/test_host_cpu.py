"""A thread that keeps to a core."""

import os
from threading import Thread

import pytest

from mobilenet_hub.host.cpu import available_cores, keep_to, on_every_core, own_cores

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no cores to choose")


def in_a_thread(ask):
    answers = []
    thread = Thread(target=lambda: answers.append(ask()))
    thread.start()
    thread.join()
    return answers[0]


def test_a_thread_keeps_to_its_core_until_it_is_let_go():
    cores = os.sched_getaffinity(0)

    def ask():
        seen = []
        for core in (max(cores), max(cores), min(cores), None, None, max(cores)):
            keep_to(core)
            seen.append(os.sched_getaffinity(0))
        return seen, available_cores(), list(own_cores(len(cores)))

    first, last = {min(cores)}, {max(cores)}
    # Whoever asks from such a thread for all cores is told of all.
    assert in_a_thread(ask) == ([last, last, first, cores, cores, last], len(cores), sorted(cores))
    assert os.sched_getaffinity(0) == cores


def test_a_core_that_is_not_there_leaves_a_thread_where_it_is():
    def ask():
        keep_to(1 << 20)
        keep_to(None)
        return os.sched_getaffinity(0)

    assert in_a_thread(ask) == os.sched_getaffinity(0)


def test_what_a_thread_begins_may_run_everywhere_and_it_comes_back_even_after_an_error():
    cores = os.sched_getaffinity(0)

    def ask():
        keep_to(max(cores))
        with pytest.raises(ZeroDivisionError), on_every_core():
            inside = os.sched_getaffinity(0), in_a_thread(lambda: os.sched_getaffinity(0))
            raise ZeroDivisionError
        return inside, os.sched_getaffinity(0)

    assert in_a_thread(ask) == ((cores, cores), {max(cores)})
