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

ROUNDS = int(os.environ.get("MOBILENET_HUB_TEST_ROUNDS", "40"))  # of random commands; more by hand

# What the user has, at places that an output, its work or its companions may want.
PRECIOUS = (
    *("../above.txt", "out/thesis.txt", "out.work/thesis.txt", "out.html.work/thesis.txt", "out.csv.work/thesis.txt"),
    *("out.html", "out.csv", "out.jsonl", "out.parquet", "out.npy", "out.svg", "out.safetensors", "keep.jpg"),
    *("out.index.parquet", "out.csv.skipped.csv", "out.parquet.skipped.csv", ".lock", ".out.lock", "full/.lock"),
    *("out.csv.parts/thesis.txt", "out.parquet.parts/part-00000.parquet", "part/skipped.csv"),
    *("part/part-00000.parquet", "mine/module.json", "mine/README.md", "work/result/thesis.txt", "file.work"),
    *("deep/out/module.json", "site/me/net/1", "features/notes.txt", "features/index/segment-of-my-life/thesis.txt"),
    *("features/index/basis-of-all.txt", "halves/notes.txt"),
)
LINKS = {"link": "photos", "link.html": "keep.jpg", "link.csv": "out.jsonl", "new.html": "not there", "to": "work"}
OUTPUTS = (
    *(
        "out",
        "out/",
        "./out/.",
        "part",
        "mine",
        "deep",
        "deep/out",
        "work",
        "out.work",
        "file",
        "file.work",
        "keep.jpg",
    ),
    *("out.html", "out.csv", "out.jsonl", "out.parquet", "out.npy", "out.svg", "out.safetensors", "out.html/"),
    *(
        "photos",
        "photos/red",
        "photos/new",
        "photos/red/../new",
        ".",
        "..",
        "/",
        "../tree/out",
        "TREE/out.html",
        "TREE",
    ),
    *("model/weights.safetensors", "model/module.json", "model", "model/new", "nowhere/out.html", "features", "full"),
    *(
        "site",
        "halves",
        "link",
        "link/new",
        "link.html",
        "link.csv",
        "new.html",
        "to",
        "fresh.html",
        "fresh.csv",
        "fresh",
    ),
)
WORKS = ("", "work", "out.work", "to", "photos/new", "full")
COMMANDS = {
    "train": ["train", "photos", "--module", "model", "--views", "1", "-o"],
    "evaluate": ["evaluate", "model", "photos", "-o"],
    "classify": ["classify", "photos", "--module", "model", "-o"],
    "embed": ["embed", "photos", "--module", "model", "-o"],
    "part": ["embed", "photos", "--module", "model", "--part", "0/2", "-o"],
    "merge": ["merge", "halves", "-o"],
    "similar": ["similar", "photos/red/photo 0.png", "--in", "features", "-o"],
    "dedupe": ["dedupe", "photos", "--module", "model", "-o"],
    "check": ["check", "photos", "--module", "model", "-o"],
    "exclusions": ["check", "photos", "--module", "model", "--exclusions"],
    "convert": ["convert", "model", "-o"],
    "export": ["export", "model", "--format", "safetensors", "-o"],
    "litert": ["export", "model", "--format", "litert", "-o"],
    "bench": ["bench", "--catalog", "v1_025_128", "--seconds", "0.01", "--plot"],
}


def snapshot(root):
    return {p: str(p.readlink()) if p.is_symlink() else hashlib.sha1(p.read_bytes()).digest()
            for p in root.rglob("*") if p.is_symlink() or p.is_file()}  # fmt: skip


@pytest.fixture
def tree(photos, base, tmp_path):  # noqa: F811
    """A working folder with photos, a trained module and precious files, and what of it must stay as it is."""
    root = tmp_path / "tree"
    shutil.copytree(photos, root / "photos")
    for folder in (root / "photos").iterdir():
        for photo in sorted(folder.iterdir())[6:]:
            photo.unlink()
    here = Path.cwd()
    os.chdir(root)
    assert main(["train", "photos", "-o", "model", "--module", str(base), "--quiet"]) == 0
    assert main(["embed", "photos", "-o", "features", "--module", "model", "--quiet"]) == 0
    for part in ("0/2", "1/2"):
        assert main(["embed", "photos", "-o", "halves", "--module", "model", "--part", part, "--quiet"]) == 0
    (root / "model" / "thesis.txt").write_text("years")
    for number, name in enumerate(PRECIOUS):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"precious {number}")
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    yield root
    os.chdir(here)


@pytest.mark.slow
@settings(max_examples=ROUNDS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(
        st.tuples(st.sampled_from(sorted(COMMANDS)), st.sampled_from(OUTPUTS), st.sampled_from(WORKS)),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_random_commands_leave_every_byte_that_is_not_ours(tree, capsys, runs):
    above = tree.parent
    before = snapshot(above)
    for command, output, work in runs:
        words = [*COMMANDS[command], output.replace("TREE", str(tree)), "--quiet"]
        if work and command == "train":
            words += ["--work", work]
        assert main(words) in (0, 1, 2)
        assert "unexpected" not in capsys.readouterr().err, words
        after = snapshot(above)
        changed = sorted(str(name) for name, content in before.items() if after.get(name) != content)
        assert not changed, f"{words} changed {changed}"
    for name in snapshot(above).keys() - before.keys():  # the next example begins with the same tree
        name.unlink()
    for folder in sorted((p for p in above.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


@pytest.mark.slow
def test_a_site_leaves_what_is_there(tree, capsys):
    pytest.importorskip("tensorflow")
    before = snapshot(tree.parent)
    words = ["export", "model", "--format", "site", "--quiet", "--handle"]
    for handle, site in (
        ("me/net/1", "site"),
        ("me/net", "site"),
        ("me/net/1/2", "site"),
        ("me/x", "photos/red/photo 0.png"),
    ):
        assert main([*words, handle, "-o", site]) == 2, (handle, site)
        assert "unexpected" not in capsys.readouterr().err
    assert main([*words, "me/net/2", "-o", "site"]) == 0
    after = snapshot(tree.parent)
    assert all(after[name] == content for name, content in before.items())


def test_a_module_of_the_cache_goes_and_what_lies_beside_it_stays(golden_module, monkeypatch):
    from mobilenet_hub.store.cache import Origin, cache_folder, entry_folder, install

    name = golden_module("mobilenet_v1_025_128/feature_vector/5")
    (entry,) = [file.parent for file in cache_folder().rglob("module.json")]
    handle = entry.relative_to(cache_folder()).as_posix()
    (entry / "thesis.txt").write_text("years")
    (entry / "notes").mkdir()
    (entry / "notes" / "a.txt").write_text("days")
    staged = shutil.copytree(entry, cache_folder() / ".incoming" / "new", ignore=lambda *_: ["thesis.txt", "notes"])
    install(staged, Origin(handle, "test", "here", "2026-01-01", None, {}))
    assert entry_folder(handle) == entry
    assert sorted(file.name for file in entry.iterdir()) == [
        "module.json", "notes", "origin.json", "thesis.txt", "weights.safetensors"
    ]  # fmt: skip
    assert main(["cache", "remove", name, "--quiet"]) == 0
    assert sorted(file.name for file in entry.iterdir()) == ["notes", "thesis.txt"]
    assert (entry / "notes" / "a.txt").read_text() == "days"


@pytest.mark.parametrize("command", ["train", "convert"])
def test_force_keeps_what_is_not_ours_in_a_module_folder(tree, command):
    before = snapshot(tree)
    words = [*COMMANDS[command], "again", "--quiet"]
    assert main(words) == 0
    (tree / "again" / "thesis.txt").write_text("years")
    assert main(words) == 2
    assert main([*words, "--force"]) == 0
    assert (tree / "again" / "thesis.txt").read_text() == "years"
    after = snapshot(tree)
    assert all(after[name] == content for name, content in before.items())


def test_a_report_gives_way_to_the_next_and_nothing_else_does(tree, capsys):
    words = [*COMMANDS["evaluate"][:-1], "--quiet", "-o"]
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
        assert main([*COMMANDS[command], output, "--quiet", "--force"]) == 2
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
