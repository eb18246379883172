"""Nothing of the user's is deleted or overwritten: every command that writes, on a tree of precious files."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_training_frozen import base, paint, photos  # noqa: F401 (fixtures)

from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import OutputError
from mobilenet_hub.host.ownership import MARK, check_apart, check_file_place

# What the user has, at places that an output, its work or its companions may want.
PRECIOUS = (
    *("out/thesis.txt", "out.work/thesis.txt", "out.csv.parts/thesis.txt", "out.parquet.skipped.csv", "out.npy"),
    *(
        "out.html",
        "out.csv",
        "out.jsonl",
        "out.parquet",
        "out.index.parquet",
        "out.csv.skipped.csv",
        "part/skipped.csv",
    ),
    *(
        "part/skipped.csv",
        "part/part-00000.parquet",
        "out.safetensors",
        "keep.jpg",
        "mine/module.json",
        "mine/README.md",
        "out.svg",
    ),
    *("out.svg", "out.parquet.parts/part-00000.parquet", "work/result/thesis.txt", "deep/out/module.json", "file.work"),
)
OUTPUTS = (
    *("out", "out/", "part", "mine", "deep", "deep/out", "work", "out.work", "file", "file.work", "keep.jpg", "photos"),
    *("out.html", "out.csv", "out.jsonl", "out.parquet", "out.npy", "out.safetensors", "photos/red", "photos/new", "."),
    *("model/weights.safetensors", "model/module.json", "model", "model/new", "nowhere/out.html"),
)
WORKS = ("", "work", "out.work")
COMMANDS = {
    "train": ["train", "photos", "--module", "model", "--views", "1"],
    "evaluate": ["evaluate", "model", "photos"],
    "classify": ["classify", "photos", "--module", "model"],
    "embed": ["embed", "photos", "--module", "model"],
    "convert": ["convert", "model"],
    "export": ["export", "model", "--format", "safetensors"],
}


def snapshot(root):
    return {p.relative_to(root): hashlib.sha1(p.read_bytes()).digest() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def tree(photos, base, tmp_path):  # noqa: F811
    """A working folder with photos, a trained module and precious files, and what of it must stay as it is."""
    shutil.copytree(photos, tmp_path / "photos")
    for folder in (tmp_path / "photos").iterdir():
        for photo in sorted(folder.iterdir())[6:]:
            photo.unlink()
    assert (
        main(["train", str(tmp_path / "photos"), "-o", str(tmp_path / "model"), "--module", str(base), "--quiet"]) == 0
    )
    (tmp_path / "model" / "thesis.txt").write_text("years")
    for number, name in enumerate(PRECIOUS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"precious {number}")
    here = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(here)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(
        st.tuples(st.sampled_from(sorted(COMMANDS)), st.sampled_from(OUTPUTS), st.sampled_from(WORKS)),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_random_commands_leave_every_byte_that_is_not_ours(tree, capsys, runs):
    before = snapshot(tree)
    for command, output, work in runs:
        words = [*COMMANDS[command], "-o", output, "--quiet"]
        if work and command == "train":
            words += ["--work", work]
        assert main(words) in (0, 1, 2)
        assert "unexpected" not in capsys.readouterr().err, words
        after = snapshot(tree)
        changed = sorted(str(name) for name, content in before.items() if after.get(name) != content)
        assert not changed, f"{words} changed {changed}"
    for name in snapshot(tree).keys() - before.keys():  # the next example begins with the same tree
        (tree / name).unlink()
    for folder in sorted((p for p in tree.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


@pytest.mark.parametrize("command", ["train", "convert"])
def test_force_keeps_what_is_not_ours_in_a_module_folder(tree, command):
    before = snapshot(tree)
    words = [*COMMANDS[command], "-o", "again", "--quiet"]
    assert main(words) == 0
    (tree / "again" / "thesis.txt").write_text("years")
    assert main(words) == 2
    assert main([*words, "--force"]) == 0
    assert (tree / "again" / "thesis.txt").read_text() == "years"
    after = snapshot(tree)
    assert all(after[name] == content for name, content in before.items())


def test_a_report_gives_way_to_the_next_and_nothing_else_does(tree, capsys):
    words = [*COMMANDS["evaluate"], "--quiet", "-o"]
    assert main([*words, "new.html"]) == 0
    assert MARK in (tree / "new.html").read_text()
    assert main([*words, "new.html"]) == 0
    assert main([*words, "keep.jpg"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "nowhere/report.html"]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([*words, "keep.jpg", "--force"]) == 0
    assert MARK in (tree / "keep.jpg").read_text()


@pytest.mark.parametrize("output", [".", "..", "/"])
def test_a_place_that_is_no_folder_of_its_own_is_refused(tree, capsys, output):
    before = snapshot(tree)
    for command in ("train", "convert", "evaluate", "export"):
        assert main([*COMMANDS[command], "-o", output, "--quiet", "--force"]) == 2
        assert capsys.readouterr().err.startswith(f"mobilenet: {output}" if command == "train" else "mobilenet: ")
    assert snapshot(tree) == before


def test_the_folder_that_one_stands_in_has_a_name(tree, capsys, monkeypatch):
    monkeypatch.chdir(tree / "photos")
    assert main(["train", ".", "-o", "../trained", "--module", "../model", "--views", "1", "--quiet"]) == 0
    assert "A classifier of photos" in (tree / "trained" / "README.md").read_text()


def test_places_in_each_other_are_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for other in ("photos", "photos/deep/er", "link", "link/deeper", "."):
        with pytest.raises(OutputError, match="lie in each other"):
            check_apart({"the photos": tmp_path / "photos", "the output": tmp_path / other})
    check_apart({"the photos": tmp_path / "photos", "the output": tmp_path / "photos2"})
    check_file_place(os.devnull, overwrite=False)
