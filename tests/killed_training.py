"""Processes that train and are killed: at a moment, or just before the Nth thing that they do to the disk."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

_CHANGES = frozenset(
    ["os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.symlink", "os.chmod", "os.utime"]
)
_PRELOADED = ["mobilenet_hub.cli.train", "mobilenet_hub.training.train", "mobilenet_hub.inference.engine"]
_OF_KERAS = ["keras", "mobilenet_hub.keras.mobilenet", "mobilenet_hub.training.gradient"]


class Trainer:
    """Runs one command again and again, each time in a fresh process that has everything imported."""

    def __init__(self, root: Path, words: list[str], *, needs_keras: bool):
        self.root, self.words = root, words
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(_PRELOADED + (_OF_KERAS if needs_keras else []))

    def run(self, *, kill_at_change: int | None = None, kill_after_s: float | None = None) -> tuple[int, list[str]]:
        """Run; return the exit status, -9 where it was killed, and what it has done to the disk."""
        log = self.root / "log"
        log.write_text("")
        process = self.context.Process(target=_work, args=(str(self.root), self.words, kill_at_change))
        process.start()
        if kill_after_s is not None:
            started = _wait_for(log, process)
            process.join(max(0.0, kill_after_s - (time.monotonic() - started)))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
        process.join()
        return process.exitcode, log.read_text().splitlines()


def _wait_for(log: Path, process) -> float:
    """Wait until the command begins; return when."""
    while process.is_alive() and not log.read_text():
        time.sleep(0.001)
    return time.monotonic()


def _work(root: str, words: list[str], kill_at_change: int | None) -> None:
    from mobilenet_hub.cli.main import main

    os.chdir(root)
    os.environ["TMPDIR"] = tempfile.tempdir = f"{root}/tmp"
    log = os.open("log", os.O_WRONLY | os.O_APPEND)
    os.write(log, b"begin\n")
    count = 0

    def watch(event: str, args: tuple) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = args
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in _CHANGES:
            path = args[0]
        else:
            return
        if not str(path).startswith(root) and str(path)[:1] == "/":
            return
        if count == kill_at_change:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        os.write(log, f"{event} {str(path).removeprefix(root)}\n".encode())

    sys.addaudithook(watch)
    with open("errors", "w") as errors, contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):  # noqa: PTH123
        status = main(words)
    os._exit(status)
