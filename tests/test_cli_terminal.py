"""What the program prints, on a real terminal of 80 and of 200 columns: tables fit, rows come as they are ready."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from small_photos import jpeg, make_work

CAT = Path(__file__).parents[1] / "examples/cat.jpg"


class Terminal:
    """A command on a pseudo-terminal, and what of its output has arrived."""

    def __init__(self, columns, *words, cwd, stdin=None):
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, columns))
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mobilenet_hub.cli.main", *words],
            stdin=stdin or theirs, stdout=theirs, stderr=subprocess.DEVNULL, cwd=cwd,
            env={**kept, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        os.close(theirs)
        self.arrived = b""

    def read(self, until=None, timeout_s=60):
        """Read to the end, or until a text has arrived; return the lines without their styles."""
        end = time.monotonic() + timeout_s
        while until is None or until not in self.arrived:
            assert time.monotonic() < end, self.arrived
            if select.select([self.ours], [], [], 0.1)[0]:
                try:
                    self.arrived += os.read(self.ours, 65536)
                except OSError:  # Linux's word for the end
                    break
        text = re.sub("\033\\[[0-9;]*m", "", self.arrived.decode(errors="ignore"))
        return [line for line in text.split("\r\n") if line]

    def close(self):
        self.process.wait(60)
        os.close(self.ours)


def seen(columns, *words, cwd):
    terminal = Terminal(columns, *words, cwd=cwd)
    lines = terminal.read()
    terminal.close()
    return lines


@pytest.mark.parametrize("columns", [80, 200])
def test_a_table_of_many_photos_fits_and_keeps_the_ends_of_paths(columns, tmp_path):
    deep = tmp_path / "a folder of a name" / "that goes on and on" / "and in it another one" / "照片照片照片"
    deep.mkdir(parents=True)
    for number in range(3):
        shutil.copy(CAT, deep / f"{number}.jpg")
    lines = seen(columns, "classify", str(deep), cwd=tmp_path)
    assert len(lines) == 5
    wide = sum(2 if ord(c) > 0x2E80 else 1 for c in "照")
    assert all(len(line) + line.count("照") + line.count("片") * (wide - 1) <= columns for line in lines)
    for number, line in enumerate(lines[2:]):
        assert f"照片/{number}.jpg  " in line
        assert line.startswith("…") == (len(str(deep)) + 40 > columns)


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("words", [("models",), ("cache",), ("info", "starter"), ("doctor",)])
def test_other_tables_fit_as_well(columns, words, tmp_path):
    lines = seen(columns, *words, cwd=tmp_path)
    tables = [line for line in lines if set(line) <= {"─", " "}]
    assert all(len(line) <= columns for line in tables)


def test_rows_of_many_photos_come_as_they_are_ready(tmp_path):
    make_work(tmp_path, 1, {})
    names = [f"{number}.jpg" for number in range(600)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(jpeg(number % 7))
    terminal = Terminal(80, "classify", "-", "--module", "m", cwd=tmp_path, stdin=subprocess.PIPE)
    listed = terminal.process.stdin
    listed.write("".join(f"{name}\n" for name in names[:-1]).encode())
    listed.flush()
    terminal.read(until=b"63.jpg")  # the list has not ended yet
    listed.write(f"{names[-1]}\n".encode())
    listed.close()
    assert [line.split()[0] for line in terminal.read()[2:]] == names
    terminal.close()
