"""Parts of a run, computed in any order and merged: the bytes of one run, or an error that says what is missing."""

import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa  # noqa: TID253
import pytest
from pyarrow import parquet  # noqa: TID253
from small_photos import jpeg, make_work

from mobilenet_hub.cli.main import main

COUNT = 61
BAD = {"007.jpg": b"", "040.jpg": b"no picture", "060.jpg": b"\xff\xd8\xff\xe0"}
ENDINGS = ["", ".parquet", ".npy"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A module and the same photos as a folder, archives and a table."""
    folder = tmp_path_factory.mktemp("work")
    files = make_work(folder, COUNT, BAD)
    with tarfile.open(folder / "photos.tar.gz", "w:gz") as archive:
        archive.add(folder / "photos", "photos")
    with tarfile.open(folder / "photos.tar", "w") as archive:
        archive.add(folder / "photos", "photos")
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    table = pa.table({"image": pa.array(list(files.values()), pa.binary()), "id": list(files)})
    parquet.write_table(table, folder / "photos.parquet", row_group_size=10)
    return folder


@pytest.fixture
def here(work, monkeypatch):
    monkeypatch.chdir(work)
    return work


def run(command, output, *more, inputs=("photos",), expect=1):
    words = [command, *inputs, "--module", "m", "-o", str(output), "--shard-size", "8", "--quiet", *more]
    assert main(words) == expect
    return output


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("ending", ENDINGS)
def test_merged_parts_are_the_bytes_of_one_run(here, tmp_path, parts, ending):
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    run("embed", tmp_path / "one" / f"out{ending}")
    order = list(range(parts))
    random.Random(parts).shuffle(order)
    for index in order:
        bad = sum(1 for n in (7, 40, 60) if n // 8 % parts == index)
        for _ in range(2):  # and once more, which changes nothing
            run("embed", tmp_path / "many" / f"out{ending}", "--part", f"{index}/{parts}", expect=1 if bad else 0)
    for _ in range(2):
        assert main(["merge", str(tmp_path / "many" / f"out{ending}"), "--quiet"]) == 1
        assert contents(tmp_path / "many") == contents(tmp_path / "one")
    run("embed", tmp_path / "many" / f"out{ending}", "--part", f"0/{parts}", expect=1)  # a scheduler repeats it
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("top", ["1", "2"])
def test_labels_too_from_folders_of_their_own(here, tmp_path, ending, top):
    (tmp_path / "one").mkdir()
    run("classify", tmp_path / "one" / f"out{ending}", "--top", top)
    for index in range(3):
        (tmp_path / f"machine {index}").mkdir()
        run("classify", tmp_path / f"machine {index}" / f"out{ending}", "--top", top, "--part", f"{index}/3")
    before = [contents(tmp_path / f"machine {index}") for index in range(3)]
    (tmp_path / "many").mkdir()
    sources = [str(tmp_path / f"machine {index}" / f"out{ending}") for index in (2, 0, 1)]
    assert main(["merge", *sources, "-o", str(tmp_path / "many" / f"out{ending}"), "--quiet"]) == 1
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert [contents(tmp_path / f"machine {index}") for index in range(3)] == before


@pytest.mark.parametrize("source", ["photos.tar", "photos.tar.gz", "photos.zip", "photos.parquet"])
def test_archives_and_tables(here, tmp_path, source):
    run("embed", tmp_path / "one", inputs=[source])
    for index in (1, 0):
        run("embed", tmp_path / "many", "--part", f"{index}/2", inputs=[source])
    assert main(["merge", str(tmp_path / "many"), "--quiet"]) == 1
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def refused(capsys, words, *texts):
    capsys.readouterr()
    assert main([*map(str, words), "--quiet"]) == 2
    error = capsys.readouterr().err
    for text in texts:
        assert text in error
    return error


def test_what_is_missing_other_or_damaged_is_named(here, tmp_path, capsys):
    out = tmp_path / "out"
    refused(capsys, ["merge", tmp_path / "nothing"], "no parts of", "nothing")
    refused(capsys, ["merge", tmp_path, tmp_path], "say which")
    run("embed", out, "--part", "0/3")
    refused(capsys, ["merge", out], "missing: 1/3, 2/3")
    refused(capsys, ["embed", "photos", "--module", "m", "-o", out, "--shard-size", "8"], "holds parts of a run")
    refused(capsys, ["embed", "photos", "--module", "m", "-o", out, "--shard-size", "8", "--part", "0/4"], "in 3")
    refused(capsys, ["embed", "photos", "--module", "m", "-o", out, "--part", "3/3"], "I/N")
    run("embed", out, "--part", "2/3")
    run("embed", tmp_path / "squashed", "--part", "1/3", "--fit", "squash")
    refused(capsys, ["merge", out, tmp_path / "squashed", "-o", tmp_path / "all"], "squash")
    (here / "photos" / "0075.jpg").write_bytes(jpeg(5))
    try:
        run("embed", tmp_path / "grown", "--part", "1/3")
        refused(capsys, ["merge", out, tmp_path / "grown", "-o", tmp_path / "all"], "other inputs (62)")
        refused(capsys, ["embed", "photos", "--module", "m", "-o", out, "--shard-size", "8", "--part", "0/3"], "inputs")
    finally:
        (here / "photos" / "0075.jpg").unlink()
    run("embed", out, "--part", "1/3")
    whole = contents(out)
    shard = out / "part-00004.parquet"
    shard.write_bytes(shard.read_bytes()[:-9] + b"9" + shard.read_bytes()[-8:])
    refused(capsys, ["merge", out], "part-00004.parquet is damaged", "part 1/3")
    shard.unlink()
    refused(capsys, ["merge", out], "part-00004.parquet", "not there")
    assert {name: data for name, data in whole.items() if "00004" not in name} == contents(out)
    shard.write_bytes(whole["part-00004.parquet"])
    assert main(["merge", str(out), "--quiet"]) == 1


def test_the_same_part_twice(here, tmp_path, capsys):
    for name, index in (("a", 0), ("b", 1)):
        run("embed", tmp_path / name, "--part", f"{index}/2")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    words = ["merge", tmp_path / "a", tmp_path / "b", tmp_path / "copy", "-o", tmp_path / "all"]
    assert main([*map(str, words), "--quiet"]) == 1
    manifest = tmp_path / "copy" / "manifest.part-0-of-2.json"
    manifest.write_text(manifest.read_text().replace('"rows": 7', '"rows": 8'))
    refused(capsys, [*words[:-1], tmp_path / "other"], "both hold part 0/2")


def command(output, part):
    return [sys.executable, "-m", "mobilenet_hub.cli.main", "embed", "photos", "--module", "m", "-o", str(output),
            "--shard-size", "4", "--quiet", "--part", part]  # fmt: skip


@pytest.mark.slow
def test_killed_workers_lose_nothing(here, tmp_path):
    one = [*command(tmp_path / "one", "0/1")[:-2]]
    assert subprocess.run(one, check=False, timeout=120).returncode == 1
    chance = random.Random(5)
    for _ in range(4):
        workers = [subprocess.Popen(command(tmp_path / "many", f"{index}/3")) for index in range(3)]
        time.sleep(chance.uniform(0.2, 1.2))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    for index in range(3):
        assert subprocess.run(command(tmp_path / "many", f"{index}/3"), check=False, timeout=120).returncode in (0, 1)
    assert main(["merge", str(tmp_path / "many"), "--quiet"]) == 1
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


@pytest.mark.parametrize("ending", ["", ".parquet"])
def test_a_merge_killed_at_every_step_goes_on(here, tmp_path, monkeypatch, ending):
    (tmp_path / "one").mkdir()
    run("embed", tmp_path / "one" / f"out{ending}")
    (tmp_path / "parts").mkdir()
    for index in range(2):
        run("embed", tmp_path / "parts" / f"out{ending}", "--part", f"{index}/2")
    for step in range(60):
        shutil.copytree(tmp_path / "parts", tmp_path / str(step))
        left = [step]

        def dying(real, left=left):
            def step_or_die(*arguments, **named):
                if left[0] == 0:
                    raise SystemExit(9)
                left[0] -= 1
                return real(*arguments, **named)

            return step_or_die

        words = ["merge", str(tmp_path / str(step) / f"out{ending}"), "--quiet"]
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying(Path.replace))
            patch.setattr(Path, "unlink", dying(Path.unlink))
            patch.setattr("shutil.rmtree", dying(shutil.rmtree))
            try:
                finished = main(words) == 1
            except SystemExit:
                finished = False
        assert main(words) == 1
        assert contents(tmp_path / str(step)) == contents(tmp_path / "one")
        if finished:
            break
    assert step > 3
