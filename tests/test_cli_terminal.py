"""What the program prints, on a real terminal of 80 and of 200 columns: tables fit, rows come as they are ready."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
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


@pytest.mark.parametrize("columns", [80, 200])
def test_bench_says_beforehand_how_long_it_takes_and_its_table_fits(columns, tmp_path):
    command = ["bench", "mobilenet_v1_025_128/classification", "starter", "--engine", "all", "--seconds", "0.6"]
    terminal = on_terminal(columns, *command, cwd=tmp_path, stderr=None)
    terminal.read(until=b" s\r\n")
    assert re.fullmatch(rb"measuring, about \d+ s\r\n", terminal.arrived)  # and nothing has been measured yet
    lines = terminal.read(timeout_s=120)
    assert terminal.close() == 0
    assert [line.split()[0] for line in lines if line.startswith(("mobilenet_v1", "starter"))].count("starter") >= 1
    assert all(len(line) <= columns for line in lines if "images a second" not in line.lower() and "auto:" not in line)


@pytest.mark.slow
@pytest.mark.keras_backend
def test_training_prints_nothing_of_tensorflow_and_fits_80_columns(tmp_path):
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow" or not find_spec("tensorflow"):
        pytest.skip("is about TensorFlow's lines")
    for label in ("ant", "bee"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(12):
            (tmp_path / f"photos/{label}/{number}.jpg").write_bytes(jpeg(number + 100 * (label == "bee")))
    words = ["train", "photos", "--fine-tune", "--epochs", "1", "--image-size", "32", "--any-size", "--views", "1"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    terminal = on_terminal(80, *words, cwd=tmp_path, stderr=None, env=environment)
    lines = terminal.read(timeout_s=240)
    assert terminal.close() == 0, lines
    assert not [line for line in lines if re.search(r"absl|cuda|oneDNN|^[IWE]\d{4}|cpu_feature_guard", line)]
    drawn = re.split(rb"[\r\n]", re.sub(rb"\033\[[0-9;]*[mKA]", b"", terminal.arrived))
    bars = [line.decode() for line in drawn if b"%|" in line]
    assert all(len(line) <= 80 for line in bars)


def test_rows_of_many_photos_come_as_they_are_ready(tmp_path):
    make_work(tmp_path, 1, {})
    names = [f"{number}.jpg" for number in range(600)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(jpeg(number % 7))
    terminal = on_terminal(80, "classify", "-", "--module", "m", cwd=tmp_path, stdin=subprocess.PIPE)
    listed = terminal.process.stdin
    assert listed is not None
    listed.write("".join(f"{name}\n" for name in names[:-1]).encode())
    listed.flush()
    terminal.read(until=b"63.jpg")  # the list has not ended yet
    listed.write(f"{names[-1]}\n".encode())
    listed.close()
    assert [line.split()[0] for line in terminal.read()[2:]] == names
    terminal.close()
