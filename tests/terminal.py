"""A command on a pseudo-terminal, and what of its output has arrived."""

import os
import pty
import re
import select
import subprocess
import termios
import time

_STYLES = re.compile("\033\\[[0-9;]*[mK]")


class Terminal:
    """A running command that believes it is on a terminal.

    Args:
        columns: the terminal's width.
        command: the words.
        cwd: where it runs.
        stdin: what subprocess takes; None: the terminal.
        stderr: where its notes and bars go; None: the terminal, too.
        env: the environment, less what the terminal sets.
    """

    def __init__(self, columns, command, *, cwd, stdin=None, stderr=subprocess.DEVNULL, env=None):
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, columns))
        kept = {k: v for k, v in (env or os.environ).items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            command, stdin=stdin or theirs, stdout=theirs, stderr=stderr or theirs, cwd=cwd, start_new_session=True,
            env={**kept, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        os.close(theirs)
        self.arrived = b""

    def read(self, until=None, timeout_s=60):
        """Read to the end, or until a text has arrived; return the lines as one sees them, less empty ones."""
        return [line for line in self.screen(until, timeout_s) if line]

    def screen(self, until=None, timeout_s=60):
        """Do the same, with the empty lines."""
        end = time.monotonic() + timeout_s
        while until is None or until not in self.arrived:
            assert time.monotonic() < end, self.arrived
            if select.select([self.ours], [], [], 0.1)[0]:
                try:
                    self.arrived += os.read(self.ours, 65536)
                except OSError:  # Linux's word for the end
                    break
        lines = _STYLES.sub("", self.arrived.decode(errors="ignore")).replace("\r\n", "\n").split("\n")
        return [line.rpartition("\r")[2] for line in lines]  # a bar is written over

    def close(self, timeout_s=60):
        """Wait for the end; return the exit status."""
        status = self.process.wait(timeout_s)
        os.close(self.ours)
        return status
