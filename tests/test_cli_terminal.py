"""What the program prints, on a real terminal of 80 and of 200 columns: tables fit, rows come as they are ready."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_photos import jpeg, make_work
from terminal import Terminal

CAT = Path(__file__).parents[1] / "examples/cat.jpg"


def on_terminal(columns, *words, **options):
    return Terminal(columns, [sys.executable, "-m", "mobilenet_hub.cli.main", *words], **options)


def seen(columns, *words, cwd):
    terminal = on_terminal(columns, *words, cwd=cwd)
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
    terminal = on_terminal(80, "classify", "-", "--module", "m", cwd=tmp_path, stdin=subprocess.PIPE)
    listed = terminal.process.stdin
    listed.write("".join(f"{name}\n" for name in names[:-1]).encode())
    listed.flush()
    terminal.read(until=b"63.jpg")  # the list has not ended yet
    listed.write(f"{names[-1]}\n".encode())
    listed.close()
    assert [line.split()[0] for line in terminal.read()[2:]] == names
    terminal.close()
