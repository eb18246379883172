"""Collections into tables through the real command: order, every form of output, kills, full disks, bad inputs."""

import csv
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet  # noqa: TID253
from reference_network import random_weights
from small_photos import jpeg, make_work

from mobilenet_hub.cli.main import main
from mobilenet_hub.inference.embed import Embedder
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module

COUNT = 150
BAD = {"017.jpg": b"", "080.jpg": b"no picture", "149.jpg": b"\xff\xd8\xff\xe0"}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a small module `m` with three classes, 147 photos and 3 files that are none."""
    folder = tmp_path_factory.mktemp("work")
    make_work(folder, COUNT, BAD)
    return folder


@pytest.fixture
def here(work, monkeypatch):
    monkeypatch.chdir(work)
    return work


GOOD = [f"photos/{number:03d}.jpg" for number in range(COUNT) if f"{number:03d}.jpg" not in BAD]


def embed(output, *more, expect=1):
    assert main(["embed", "photos", "--module", "m", "-o", str(output), "--quiet", *more]) == expect
    return Path(output)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def features_of(folder):
    tables = [parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    return [path for t in tables for path in t["path"].to_pylist()], np.concatenate(
        [t["features"].combine_chunks().flatten().to_numpy().reshape(t.num_rows, -1) for t in tables]
    )


def test_features_are_the_embedders_in_order(here, tmp_path):
    paths, features = features_of(embed(tmp_path / "out", "--shard-size", "40"))
    assert paths == GOOD
    expected = Embedder("m").embed(GOOD)
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()  # batches of other sizes
    table = parquet.read_table(tmp_path / "out" / "part-00000.parquet")
    assert str(table.schema.field("features").type) == "fixed_size_list<element: float not null>[256]"
    assert (table["width"][1].as_py(), table["height"][1].as_py()) == (61, 50)
    about = {
        key.decode().removeprefix("mobilenet_hub."): value.decode() for key, value in table.schema.metadata.items()
    }
    assert (
        about.items()
        >= {"command": "embed", "module": "m", "precision": Embedder("m").precision, "fit": "center"}.items()
    )
    assert json.loads(about["image_size"]) == [32, 32]
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        listed = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert list(listed) == sorted(BAD)
    assert listed["017.jpg"] == "empty file (0 bytes)"


def test_one_file_forms_hold_the_same(here, tmp_path):
    _, features = features_of(embed(tmp_path / "out"))
    table = parquet.read_table(embed(tmp_path / "one.parquet", "--shard-size", "40"))
    assert table["path"].to_pylist() == GOOD
    array = np.load(embed(tmp_path / "one.npy", "--shard-size", "40"))
    assert array.dtype == np.float32
    index = parquet.read_table(tmp_path / "one.index.parquet")
    assert index.column_names == ["path", "width", "height"]
    assert index["path"].to_pylist() == GOOD
    for values in (table["features"].combine_chunks().flatten().to_numpy().reshape(-1, 256), array):
        assert np.abs(values - features).max() <= 1e-5 * features.max()
    for name in ("one.npy", "one.parquet"):
        assert (tmp_path / f"{name}.skipped.csv").read_text() == (tmp_path / "out" / "skipped.csv").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one.index.parquet", "one.npy", "one.npy.skipped.csv", "one.parquet", "one.parquet.skipped.csv", "out",
    ]  # fmt: skip
    half = np.load(embed(tmp_path / "half.npy", "--float16"))
    assert half.dtype == np.float16
    assert np.abs(half - features).max() <= 1e-3 * features.max()


def test_labels_in_a_folder_of_shards(here, tmp_path, capsys):
    words = ["classify", "photos", "--module", "m", "--shard-size", "64", "--top", "2"]
    assert main([*words, "-o", str(tmp_path / "out"), "--quiet"]) == 1
    assert main([*words, "-o", str(tmp_path / "out.parquet"), "--quiet"]) == 1
    parts = [parquet.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [part.num_rows for part in parts] == [63, 63, 21]
    rows = [row for part in parts for row in part.to_pylist()]
    assert rows == parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["path"] for row in rows] == GOOD
    for row in rows:
        assert row["score"] == sorted(row["score"], reverse=True)
        assert [("ant", "bee", "cat")[i] for i in row["index"]] == row["label"]


def test_archives_and_lists_give_what_the_folder_gives(here, tmp_path, monkeypatch):
    _, features = features_of(embed(tmp_path / "out"))
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for path in sorted(Path("photos").iterdir()):
            archive.add(path)
    inputs = {str(tmp_path / "photos.tar"): "", "photos/*.jpg": "", "-": "photos\n"}
    for number, (argument, text) in enumerate(inputs.items()):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        output = tmp_path / f"out{number}"
        assert main(["embed", argument, "--module", "m", "-o", str(output), "--quiet"]) == 1
        assert np.array_equal(features_of(output)[1], features)


def test_a_folder_may_have_a_dot_in_its_name(here, tmp_path):
    embed(f"{tmp_path}/features.2026/")
    assert (tmp_path / "features.2026" / "manifest.json").exists()


def test_outputs_of_one_stem_keep_their_own_lists_of_what_was_skipped(here, tmp_path):
    embed(tmp_path / "out.parquet")
    assert main(["classify", GOOD[0], "--module", "m", "-o", str(tmp_path / "out.csv"), "--quiet"]) == 0
    assert (tmp_path / "out.parquet.skipped.csv").exists()


def test_the_rows_say_where_they_come_from(here, tmp_path):
    table = parquet.read_table(embed(tmp_path / "out.parquet"))
    assert json.loads(table.schema.metadata[b"mobilenet_hub.inputs"]) == ["photos"]
    assert main(["embed", *GOOD, "--module", "m", "-o", str(tmp_path / "many.parquet"), "--quiet"]) == 0
    named = json.loads(parquet.read_schema(tmp_path / "many.parquet").metadata[b"mobilenet_hub.inputs"])
    assert named == [*GOOD[:20], f"and {len(GOOD) - 20} more"]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_killed_while_it_tidied_up_text_is_made_again(here, tmp_path, ending):
    words = [
        "classify",
        "photos",
        "--module",
        "m",
        "--shard-size",
        "64",
        "--quiet",
        "-o",
        str(tmp_path / f"out{ending}"),
    ]
    assert main(words) == 1
    whole = (tmp_path / f"out{ending}").read_bytes()
    parts = tmp_path / f"out{ending}.parts"
    assert main([*words[:-1], str(tmp_path / "shards")]) == 1
    parts.mkdir()
    for name in ("part-00001.parquet", "skipped.csv"):  # the manifest goes first
        shutil.copy(tmp_path / "shards" / name, parts)
    assert main(words) == 1
    assert (tmp_path / f"out{ending}").read_bytes() == whole
    assert not parts.exists()
    parts.mkdir()
    (parts / "thesis.txt").write_text("mine")
    assert main(words) == 2
    assert (parts / "thesis.txt").exists()


def test_names_of_all_kinds_in_the_list_of_what_was_skipped(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    names = [b"a\rb.jpg", b'c"d,e.jpg', b"f\xff.jpg", b"g\nh.jpg"]
    for name in names:
        (Path("photos") / os.fsdecode(name)).write_bytes(b"")
    assert main(["embed", "photos", "--module", str(work / "m"), "-o", "out", "--quiet"]) == 1
    with Path("out/skipped.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == [f"photos/{name.decode('utf-8', 'backslashreplace')}" for name in names]


def test_a_glob_of_tables_goes_on_where_it_stopped(here, tmp_path):
    import pyarrow as pa

    for table in range(3):
        images = [jpeg(10 * table + row) for row in range(10)]
        parquet.write_table(pa.table({"image": images}), tmp_path / f"{table}.parquet", row_group_size=4)
    words = ["embed", f"{tmp_path}/?.parquet", "--module", "m", "--shard-size", "7", "--quiet", "-o"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    assert main([*words, str(tmp_path / "begun")]) == 0
    manifest = json.loads((tmp_path / "begun" / "manifest.json").read_text())
    manifest |= {"complete": False, "shards": manifest["shards"][:2]}
    (tmp_path / "begun" / "manifest.json").write_text(json.dumps(manifest))
    assert main([*words, str(tmp_path / "begun")]) == 0
    assert contents(tmp_path / "begun") == contents(tmp_path / "whole")


def test_limit_and_strict(here, tmp_path, capsys):
    embed(tmp_path / "out", "--limit", "10", expect=0)
    assert features_of(tmp_path / "out")[0] == GOOD[:10]
    embed(tmp_path / "out", expect=2)
    assert "limit 10 and not None" in capsys.readouterr().err
    embed(tmp_path / "strict", "--strict", "--shard-size", "25", expect=2)
    assert "photos/080.jpg: not a picture" not in (told := capsys.readouterr().err)
    assert "photos/017.jpg: empty file" in told
    embed(tmp_path / "later", "--strict", "--shard-size", "10", expect=2)
    assert features_of(tmp_path / "later")[0] == GOOD[:10]


def test_the_summary_for_machines(here, tmp_path, capsys):
    embed(tmp_path / "out", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["skipped"], told["resumed"]) == (147, 3, 0)
    assert told["skipped_file"] == str(tmp_path / "out" / "skipped.csv")
    embed(tmp_path / "out", "--json")
    assert json.loads(capsys.readouterr().out)["resumed"] == 150


def test_changed_settings_are_refused(here, tmp_path, capsys):
    for output in ("out", "out.parquet", "out.npy"):
        embed(tmp_path / output)
        for change, name in (
            (["--fit", "pad"], "fit"),
            (["--image-size", "40"], "--image-size"),
            (["--float16"], "dtype"),
        ):
            embed(tmp_path / output, *change, expect=2)
            assert name in capsys.readouterr().err
    other = Module((config := ModuleConfig("mobilenet_v1", 0.25, (32, 32), 2)), random_weights(config.network, 5))
    write_module(tmp_path / "m", other)
    words = ["embed", "photos", "--module", str(tmp_path / "m"), "-o", str(tmp_path / "out"), "--quiet"]
    assert main(words) == 2
    assert "weights_sha256" in capsys.readouterr().err
    assert main(["embed", "photos/00*.jpg", "--module", "m", "-o", str(tmp_path / "out.npy"), "--quiet"]) == 2
    assert "photos/00*.jpg" in capsys.readouterr().err


def test_foreign_outputs_are_refused(here, tmp_path, capsys):
    (tmp_path / "mine.parquet").write_text("precious")
    (tmp_path / "folder.npy").mkdir()
    for name, word in (
        ("mine.parquet", "not from this command"), ("folder.npy", "is a folder"), ("out.docx", ".npy"),
        ("gone/out", "does not exist"), ("out.csv", ".npy"),
    ):  # fmt: skip
        embed(tmp_path / name, expect=2)
        assert word in capsys.readouterr().err
    assert (tmp_path / "mine.parquet").read_text() == "precious"
    for name, text in (("mine.csv", "name,price\n"), ("mine.jsonl", '{"path": "a"}\n'), ("notes.jsonl", "precious")):
        (tmp_path / name).write_text(text)
        assert main(["classify", "photos", "--module", "m", "-o", str(tmp_path / name)]) == 2
        assert "not from this command" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == text
    for option in ("--limit", "--shard-size"):
        embed(tmp_path / "out", option, "0", expect=2)
        assert "1 or more" in capsys.readouterr().err


# Kills


def command(output, *more):
    return [sys.executable, "-m", "mobilenet_hub.cli.main", "embed", "photos", "--module", "m", "-o", str(output),
            "--shard-size", "8", "--precision", "f32", "--quiet", *more]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", ".parquet", ".npy"])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(here, tmp_path, ending):
    assert subprocess.run(command(tmp_path / f"whole{ending}"), check=False, timeout=120).returncode == 1
    (tmp_path / "runs").mkdir()
    output = tmp_path / "runs" / f"whole{ending}"
    folder = output.with_name(f"{output.name}.parts") if ending else output
    chance = random.Random(ending)
    for wanted in (0, 1, 4, 9, 15, 18, 19):  # shards, of 19: the last kill falls into the putting together or the end
        process = subprocess.Popen(command(output))
        while process.poll() is None and len(list(folder.glob("part-*.parquet"))) < wanted:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL or wanted > 15  # the last ones may just have ended
    assert subprocess.run(command(output), check=False, timeout=120).returncode == 1
    if ending:
        expected = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
        assert contents(tmp_path / "runs") == expected
    else:
        assert contents(output) == contents(tmp_path / "whole")


@pytest.mark.parametrize("ending", ["", ".parquet", ".npy"])
def test_killed_at_every_step_of_writing(here, tmp_path, ending, monkeypatch):
    """Stops before each rename and each removal in turn, as a kill between two system calls would."""
    options = ("--shard-size", "60")
    whole = embed(tmp_path / f"whole{ending}", *options)
    steps = 0
    for step in range(100):
        folder = tmp_path / str(step)
        folder.mkdir()
        left = [step]

        def dying(real, left=left):
            def step_or_die(*arguments, **named):
                if left[0] == 0:
                    raise SystemExit(9)  # nothing of ours catches it, as nothing catches a kill
                left[0] -= 1
                return real(*arguments, **named)

            return step_or_die

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying(Path.replace))
            patch.setattr(Path, "unlink", dying(Path.unlink))
            patch.setattr("shutil.rmtree", dying(__import__("shutil").rmtree))
            try:
                embed(folder / f"whole{ending}", *options)
                finished = True
            except SystemExit:
                finished = False
        steps += 1
        again = embed(folder / f"whole{ending}", *options)
        if ending:
            assert contents(folder) == {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
        else:
            assert contents(again) == contents(whole)
        if finished:
            break
    assert steps > 6


# Disks


def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))


def test_a_full_disk_is_named_and_what_was_finished_stays(here, tmp_path):
    # Shards of 8 fit under the limit on the size of a file, the file of all does not.
    done = subprocess.run(
        command(tmp_path / "out.parquet"), preexec_fn=limited, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "run the same command again" in done.stderr
    assert len(list((tmp_path / "out.parquet.parts").glob("part-*.parquet"))) == 19
    assert not (tmp_path / "out.parquet").exists()
    again = subprocess.run(command(tmp_path / "out.parquet"), capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 1
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 147
    first = subprocess.run(
        [*command(tmp_path / "big"), "--shard-size", "100"],
        preexec_fn=limited, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert first.returncode == 2
    assert "File too large" in first.stderr
    assert len(first.stderr.splitlines()) == 1
    assert sorted(contents(tmp_path / "big")) == ["manifest.json", "skipped.csv"]


def test_a_small_disk_fills_up(here, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system takes rights that this user has not")
    try:
        full = subprocess.run(command(disk / "out"), capture_output=True, text=True, check=False, timeout=120)
        assert full.returncode == 2
        assert "No space left" in full.stderr
        assert "are kept" in full.stderr
        kept = len(list((disk / "out").glob("part-*.parquet")))
        assert kept > 2
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        assert subprocess.run(command(disk / "out"), check=False, timeout=120).returncode == 1
        assert features_of(disk / "out")[0] == GOOD
    finally:
        subprocess.run(["umount", "-l", disk], check=True)  # lazily: somebody else may look into it


# Python


def test_stream(here):
    embedder = Embedder("m")
    arrays = [np.random.default_rng(n).integers(0, 256, (40, 40, 3), np.uint8) for n in range(3)]
    batches = list(embedder.stream(["photos", *arrays, Path("photos/000.jpg")]))
    assert [name for batch in batches for name in batch.sources] == [*GOOD, "image 1", "image 2", "image 3", GOOD[0]]
    assert [len(batch.skipped) for batch in batches] == [1, 1, 1]
    features = np.concatenate([batch.features for batch in batches])
    expected = embedder.embed([*GOOD, *arrays, GOOD[0]])
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()
    assert [batch.sources for batch in embedder.stream("photos/000.jpg")] == [["photos/000.jpg"]]
    assert list(embedder.stream([])) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(here, tmp_path):
    peaks = []
    for repeats in (2, 20):
        listing = "photos\n" * repeats
        code = (
            "import re, pathlib; from mobilenet_hub.cli.main import main;"
            f"main(['embed', '-', '--module', 'm', '-o', {str(tmp_path / str(repeats))!r}, '--quiet']);"
            # Not ru_maxrss: that of a child begins with what the parent, pytest, held when it was started.
            "print(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], input=listing, capture_output=True, text=True, check=True, timeout=300
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.15 * peaks[0]
    assert peaks[1] < 700_000  # KiB
