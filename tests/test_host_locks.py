"""Locks between threads and processes, and what is left of them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mobilenet_hub.errors import DownloadError, OutputError
from mobilenet_hub.host.locks import LOCK_FILE, claimed, is_locked, is_still_there, locked

HOLD = """
import sys, time
from pathlib import Path
from mobilenet_hub.host.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "locks" / "module.lock"


@pytest.fixture
def holder(lock):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_nothing_is_left(lock):
    with locked(lock) as held:
        assert held
        assert is_locked(lock)
    assert not lock.parent.exists()
    assert not is_locked(lock)


def test_the_lock_goes_with_an_error(lock):
    with pytest.raises(KeyError), locked(lock):
        raise KeyError
    with locked(lock, limit_s=0):
        pass


def test_a_second_owner_waits_for_its_limit_and_is_told_whom_for(lock, holder):
    started = time.monotonic()
    with pytest.raises(DownloadError, match=rf"process {holder.pid} .* 0.3 s") as caught, locked(lock, limit_s=0.3):
        pass
    assert time.monotonic() - started < 5
    assert str(lock) in str(caught.value)


def test_a_killed_owner_frees_its_lock(lock, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock.exists()
    with locked(lock, limit_s=5) as held:
        assert held
    assert not lock.exists()


def test_waiting_ends_when_the_work_is_done(lock, holder):
    with locked(lock, done=lambda: True) as held:
        assert not held
    assert is_locked(lock)


def test_threads_exclude_each_other(lock):
    inside, most, errors = 0, 0, []

    def work():
        nonlocal inside, most
        try:
            for _ in range(15):
                with locked(lock):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.001)
                    inside -= 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside, errors) == (1, 0, [])
    assert not lock.parent.exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="MOBILENET_HUB_CACHE"), locked(tmp_path / "file" / "module.lock"):
        pass


def test_an_open_file_that_is_no_longer_the_lock(lock):
    """An owner removes its file; who had that file open must not take the lock of it for the lock."""
    lock.parent.mkdir()
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
    assert is_still_there(lock, descriptor)
    lock.unlink()
    assert not is_still_there(lock, descriptor)
    lock.touch()
    assert not is_still_there(lock, descriptor)
    os.close(descriptor)


def test_a_file_that_is_no_lock_of_ours_is_left_as_it_is(tmp_path):
    file = tmp_path / LOCK_FILE
    file.write_text("my keys")
    with pytest.raises(OutputError, match="no lock of this program"), claimed(file, tmp_path):
        raise AssertionError("not reached")
    assert file.read_text() == "my keys"
    file.write_text("another-machine process 4711")  # its owner was killed
    with claimed(file, tmp_path):
        assert file.read_text().endswith(str(os.getpid()))
    assert not file.exists()
