"""The command line as a person meets it: help, typos, classify, doctor, exit statuses."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from reference_network import random_weights

from mobilenet_hub.cli.console import bar, table
from mobilenet_hub.cli.main import COMMANDS, main
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module


@pytest.fixture
def module(tmp_path):
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 3, labels=("ant", "bee", "cat"))
    return str(write_module(tmp_path / "module", Module(config, random_weights(config.network))))


@pytest.fixture
def photos(tmp_path):
    """Three photos in a folder and its subfolder, beside what is none."""
    from PIL import Image

    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.jpg", "b.PNG", "more/c.jpeg"):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def in_a_process(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "mobilenet_hub.cli.main", *words],
        capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip


def test_help_lists_every_command_and_imports_none(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    code = (
        "import sys; from mobilenet_hub.cli.main import main; main(['--help']);"
        "heavy = {'numpy', 'openvino', 'tqdm', 'PIL', 'keras'} & set(sys.modules);"
        "commands = {m for m in sys.modules if m.startswith('mobilenet_hub.cli.')};"
        "commands -= {'mobilenet_hub.cli.main', 'mobilenet_hub.cli.parser'};"
        "sys.exit(str((heavy, commands)) if heavy or commands else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_help_is_quick():
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        assert in_a_process("--help").returncode == 0
        best = min(best, time.perf_counter() - start)
    assert best < 1.0  # 0.05 s on a quiet machine; the promise of 0.3 s is measured in benchmarks/startup.py


def test_typos_versions_and_nothing(capsys):
    assert main(["clasify"]) == 2
    assert "`mobilenet classify`" in capsys.readouterr().err
    assert main(["xyzzy"]) == 2
    assert "doctor" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mobilenet-hub ")
    assert main([]) == 2
    assert main(["doctor", "--no-such-option"]) == 2
    assert main(["doctor", "--help"]) == 0


def test_errors_are_one_line_and_tracebacks_only_for_debug(photos, capsys):
    assert main(["classify", str(photos), "--module", "no/such/module"]) == 2
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    assert "no/such/module" in text
    assert "Traceback" in in_a_process("--debug", "classify", str(photos), "--module", "no/such/module").stderr


def test_a_name_that_cannot_be_opened_is_one_bad_image(photos, module, tmp_path, capsys, monkeypatch):
    endless = "a" * 300
    assert main(["classify", endless, str(photos / "a.jpg"), "--module", module]) == 1
    text = capsys.readouterr()
    assert f"{endless}: cannot be read" in text.err
    assert "a.jpg" in text.out
    for words in (["info", endless], ["convert", endless, "-o", "x"], ["classify", str(photos), "--module", endless]):
        assert main(words) == 2
        assert "unexpected" not in capsys.readouterr().err
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path / endless))
    assert main(["doctor"]) == 0
    assert main(["models"]) == 0


def test_any_name_can_be_shown(photos, module):
    (photos / "ünï.jpg").write_bytes((photos / "a.jpg").read_bytes())
    words = ("classify", str(photos / "ünï.jpg"), "--module", module)
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = in_a_process(*words, env=ascii_only)
    assert done.returncode == 0
    assert r"\xfcn\xef.jpg" in done.stdout
    done = in_a_process(*words, "--json", env=ascii_only)
    assert json.loads(done.stdout)["predictions"][0]["path"].endswith("ünï.jpg")


def test_closed_streams_are_no_accident(photos, module):
    shell = f'"{sys.executable}" -m mobilenet_hub.cli.main classify --module "{module}" '
    done = subprocess.run(f"{shell} - <&-", shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, "standard input is closed" in done.stderr) == (2, True)
    done = subprocess.run(f'{shell} "{photos / "a.jpg"}" >&-', shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_photo_is_a_table_with_bars(photos, module, capsys):
    assert main(["classify", str(photos / "a.jpg"), "--module", module]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(photos / "a.jpg")
    assert sorted(line.split()[0] for line in lines[4:]) == ["ant", "bee", "cat"]
    scores = [float(line.split()[1].removesuffix("%")) for line in lines[4:]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(100, abs=0.2)
    assert "#" in lines[4]


def test_folders_are_searched_whole(photos, module, capsys):
    assert main(["classify", str(photos), "--module", module]) == 0
    text = capsys.readouterr().out
    assert [name in text for name in ("a.jpg", "b.PNG", "c.jpeg", "notes.txt")] == [True, True, True, False]


@pytest.mark.parametrize("name", ["-dash.jpg", "--json", "--", "-o"])
def test_after_two_dashes_everything_is_a_name(name, photos, module, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "a.jpg").rename(photos / name)
    for words in (["classify", "--json", "--module", module], ["--json", "classify", f"--module={module}"]):
        assert main([*words, "--", name, "b.PNG"]) == 0, capsys.readouterr().err
        assert [p["path"] for p in json.loads(capsys.readouterr().out)["predictions"]] == [name, "b.PNG"]
    assert main(["classify", "b.PNG", "--json", "--module", module, "--", name]) == 0  # names on both sides
    assert [p["path"] for p in json.loads(capsys.readouterr().out)["predictions"]] == ["b.PNG", name]
    assert main(["embed", "-o", str(tmp_path / "made"), "--quiet", "--module", module, "--", name]) == 0
    assert main(["similar", "--in", str(tmp_path / "made"), "--json", "--module", module, "--", name]) == 0
    assert json.loads(capsys.readouterr().out)["photos"][0]["photo"] == name
    assert main(["doctor", "--", "-x"]) == 2  # which takes no names


@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ""])
def test_below_the_least_score_there_is_no_answer_in_any_file(ending, top, photos, module, tmp_path, capsys):
    """The rows are those of a run without it, less the classes whose scores are below."""
    wide = ["classify", str(photos), "--module", module, "--top", str(top), "--quiet"]
    assert main([*wide, "-o", str(tmp_path / f"all{ending}")]) == 0
    everything = rows_of(tmp_path / f"all{ending}")
    scores = sorted(score for row in everything for score in row["score"])
    between = (scores[len(scores) // 2 - 1] + scores[len(scores) // 2]) / 2
    for least in (between, 1.0, 0.0):
        output = tmp_path / f"some_{int(least * 1e6)}{ending}"
        assert main([*wide, "--min-score", repr(least), "-o", str(output)]) == 0
        for row, whole in zip(rows_of(output), everything, strict=True):
            sure = [score >= least for score in whole["score"]]
            assert row["path"] == whole["path"]
            if top == 1:  # an empty label, and the score that was not enough
                assert row["label"] == (whole["label"] if sure[0] else [""])
                assert row["index"] == (whole["index"] if sure[0] else [-1])
                assert row["score"] == whole["score"]
            else:
                count = sum(sure)
                assert all(row[name] == whole[name][:count] for name in ("label", "score", "index"))
    again = [*wide, "--min-score", "0.123", "-o", str(tmp_path / f"some_{int(between * 1e6)}{ending}")]
    assert main(again) == (0 if ending in (".csv", ".jsonl") else 2)  # text tells no settings, and is made again
    for bad in ("-0.1", "1.1", "nan", "half"):
        assert main([*wide, f"--min-score={bad}"]) == 2
        assert "min-score" in capsys.readouterr().err


def rows_of(output):
    """The rows of an output of any kind: path, and lists of label, score and index."""
    from pyarrow import parquet

    if output.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(output.read_text("utf-8"))))
        ends = ["", "_2", "_3"][: len(rows[0]) // 3]
        assert all(None not in row and None not in row.values() for row in rows)  # as long as the heading
        whole = [{n: [row[f"{n}{end}"] for end in ends] for n in ("label", "score", "index")} for row in rows]
        given = [[end for end in range(len(ends)) if row["score"][end]] for row in whole]  # others have empty cells
        kinds = {"label": str, "score": float, "index": int}
        return [
            {"path": row["path"], **{n: [kind(cells[n][end]) for end in there] for n, kind in kinds.items()}}
            for row, cells, there in zip(rows, whole, given, strict=True)
        ]
    if output.suffix == ".jsonl":
        rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    else:
        files = sorted(output.glob("*.parquet")) if output.is_dir() else [output]
        rows = [row for file in files for row in parquet.read_table(file).to_pylist()]
    return [{n: v if n == "path" or isinstance(v, list) else [v] for n, v in row.items()} for row in rows]


def test_bad_images_are_named_and_the_rest_classified(photos, module, tmp_path, capsys):
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.jpg").write_text("no picture")
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:300])
    (tmp_path / "nothing").mkdir()
    words = [str(photos), str(tmp_path / "nothing"), str(tmp_path / "gone.jpg"), "--module", module, "--json"]
    assert main(["classify", *words]) == 1
    told = capsys.readouterr()
    result = json.loads(told.out)
    names = [Path(p["path"]).name for p in result["predictions"]]
    assert names == ["a.jpg", "b.PNG", "c.jpeg"]
    bad = {Path(s["path"]).name: s["reason"] for s in result["skipped"]}
    assert set(bad) == {"empty.jpg", "text.jpg", "cut.jpg", "nothing", "gone.jpg"}
    for name, reason in bad.items():
        assert reason
        assert f"{name}: {reason}" in told.err
    assert result["precision"] in ("f32", "bf16")
    assert {"labels", "scores", "indices"} < set(result["predictions"][0])


def test_a_folder_of_nothing_is_named(module, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    assert main(["classify", str(tmp_path / "nothing"), "--module", module]) == 1
    assert "nothing: a folder without images" in capsys.readouterr().err


@pytest.mark.parametrize("top", [1, 2])
def test_files_hold_what_the_interface_says(photos, module, tmp_path, top, capsys):
    from pyarrow import parquet

    for ending in ("csv", "jsonl", "parquet"):
        output = tmp_path / f"out.{ending}"
        assert main(["classify", str(photos), "--module", module, "--top", str(top), "-o", str(output)]) == 0
    assert capsys.readouterr().out == ""
    read = parquet.read_table(tmp_path / "out.parquet")
    assert read.column_names == ["path", "label", "score", "index"]
    assert {b"mobilenet_hub.module", b"mobilenet_hub.precision", b"mobilenet_hub.fit"} < set(read.schema.metadata)
    rows = read.to_pylist()
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows
    with (tmp_path / "out.csv").open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert [row["path"] for row in cells] == [row["path"] for row in rows]
    if top == 1:
        assert [(c["label"], float(c["score"]), int(c["index"])) for c in cells] == [
            (r["label"], r["score"], r["index"]) for r in rows
        ]
    else:
        assert [[c["label"], c["label_2"]] for c in cells] == [r["label"] for r in rows]
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_what_cannot_be_written_is_refused_before_the_work(photos, module, tmp_path, capsys):
    assert main(["classify", str(photos), "--module", module, "-o", str(tmp_path / "out.docx")]) == 2
    assert ".parquet" in capsys.readouterr().err
    assert main(["classify", str(photos), "--module", module, "-o", str(tmp_path / "gone" / "out.csv")]) == 2
    assert "gone" in capsys.readouterr().err
    for words in (["--top", "0"], ["--fit", "sideways"], ["--precision", "f8"], ["--image-size", "0"]):
        assert main(["classify", str(photos), "--module", module, *words]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_lists_on_standard_input(photos, module):
    done = in_a_process("classify", "-", "--module", module, "--json", input=f"{photos}/a.jpg\n\n{photos}/b.PNG\n")
    assert [p["path"] for p in json.loads(done.stdout)["predictions"]] == [f"{photos}/a.jpg", f"{photos}/b.PNG"]
    assert done.returncode == 0


def test_a_reader_that_leaves_is_no_error(module, photos):
    command = f"{sys.executable} -m mobilenet_hub.cli.main doctor | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_doctor_tells_what_is_here(capsys, tmp_path, monkeypatch):
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["ai-edge-litert"]
    assert ("openvino" in facts["versions"]) == bool(find_spec("openvino")) == ("openvino" in facts["cpu"]["engines"])
    assert facts["cpu"]["precision"]["f32"] == "f32"
    assert facts["cache"]["path"] == os.environ["MOBILENET_HUB_CACHE"]
    assert main(["doctor"]) == 0
    assert "precision auto" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path / "file"))
    assert main(["doctor"]) == 1
    assert "MOBILENET_HUB_CACHE" in capsys.readouterr().err


def test_tables_and_bars():
    fancy = table(("a", "b"), [("x", None)], "<>", fancy=True)
    assert fancy.splitlines()[1] == "─  ─"
    assert [bar(f, 4, fancy=True) for f in (-1, 0, 0.5, 0.53125, 1, 2)] == ["", "", "██", "██▏", "████", "████"]
    assert bar(0.5, 4, fancy=False) == "##"


def test_each_shared_option_is_declared_once():
    """What several commands take is declared in cli/options.py alone; export's --precision is the file's arithmetic."""
    import mobilenet_hub.cli

    folder = Path(mobilenet_hub.cli.__file__).parent
    shared = ("--image-size", "--any-size", "--fit", "--threads", "--engine")
    for file in set(folder.glob("*.py")) - {folder / "options.py"}:
        text = file.read_text("utf-8")
        assert not [option for option in shared if f'"{option}", ' in text], file.name


def test_threads_are_a_number_from_one(photos, module, capsys):
    for bad in ("0", "-1", "two", "1.5"):
        assert main(["classify", str(photos), "--module", module, f"--threads={bad}"]) == 2
        assert f"'{bad}' is not a number of threads" in capsys.readouterr().err
    assert main(["classify", str(photos / "a.jpg"), "--module", module, "--threads", "1"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        "classify photos -o classes.csv",
        "embed photos -o features",
        "similar photos/a.jpg --in made",
        "dedupe photos",
        "check labelled",
        "evaluate module labelled",
        "train labelled -o trained --module module --test 0",
        "bench module --photos photos --seconds 0.03",
        "bench module --photos photos --engine all --precision all --seconds 0.03",
        "bench --catalog v1_025_128 --seconds 0.01",
    ],
)
def test_threads_are_those_of_decoding_and_of_the_engine(words, photos, module, tmp_path, monkeypatch, capsys):
    """Whatever decodes ahead and every engine that is opened have the number asked for, not that of the cores."""
    from PIL import Image

    from mobilenet_hub.images import batches
    from mobilenet_hub.inference.engine import Engine

    random = np.random.default_rng(0)
    for number in range(20):
        file = tmp_path / "labelled" / ("ant", "bee")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(file)
    monkeypatch.chdir(tmp_path)
    if "made" in words:
        assert main(["embed", "photos", "--module", module, "-o", "made", "--quiet"]) == 0
    decoding, computing = [], []

    class Pool(batches.ThreadPoolExecutor):
        def __init__(self, workers, name):
            decoding.append(workers)
            super().__init__(workers, name)

    opened = Engine.__init__

    def open_engine(self, *args, **options):
        opened(self, *args, **options)
        computing.append(self.job.threads)

    monkeypatch.setattr(batches, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(Engine, "__init__", open_engine)
    status = 1 if words.startswith("check") else 0  # it finds that the photos are small
    assert main([*words.split(), "--threads", "3", "--quiet"]) == status, capsys.readouterr().err
    assert set(computing) == {3}
    assert set(decoding) == (set() if "--catalog" in words else {3})
