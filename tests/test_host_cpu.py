"""A thread that keeps to a core, and what it begins."""

import os
from threading import Thread

import pytest

from mobilenet_hub.host.cpu import available_cores, keep_to, on_every_core

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no cores to choose")


def in_a_thread(ask):
    answers = []
    thread = Thread(target=lambda: answers.append(ask()))
    thread.start()
    thread.join()
    return answers[0]


def test_a_thread_keeps_to_its_core_and_leaves_it_for_what_it_begins():
    cores = os.sched_getaffinity(0)
    core = max(cores)

    def ask():
        keep_to(core)
        seen = [os.sched_getaffinity(0)]
        with on_every_core():
            seen += [os.sched_getaffinity(0), in_a_thread(lambda: os.sched_getaffinity(0))]
        return [*seen, os.sched_getaffinity(0)], available_cores()

    assert in_a_thread(ask) == ([{core}, cores, cores, {core}], len(cores))
    assert os.sched_getaffinity(0) == cores


def test_it_comes_back_after_an_error_and_wherever_it_was_sent_meanwhile():
    cores = os.sched_getaffinity(0)
    core = max(cores)

    def ask():
        keep_to(core)
        with pytest.raises(ZeroDivisionError), on_every_core():
            raise ZeroDivisionError
        first = os.sched_getaffinity(0)
        with on_every_core():
            os.sched_setaffinity(0, {min(cores)})  # as OpenVINO leaves a thread
        return first, os.sched_getaffinity(0)

    assert in_a_thread(ask) == ({core}, {core})


def test_a_thread_without_a_core_of_its_own_is_left_where_it_is():
    def ask():
        keep_to(None)
        keep_to(1 << 20)  # a core that is not there
        with on_every_core():
            return os.sched_getaffinity(0)

    assert in_a_thread(ask) == os.sched_getaffinity(0)
