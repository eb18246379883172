"""Exports come into being whole or not at all, and replace nothing that is not theirs."""

import subprocess
import sys
import time

import pytest

from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.exporting.output import PROOF_FILE, find_place, finished_at


def fill(work, *names, content="new"):
    for name in (*names, PROOF_FILE):
        (work / name).write_text(content)


def test_a_name_with_the_ending_is_a_file_and_any_other_a_folder(tmp_path):
    for name in ("a.onnx", "A.ONNX"):
        place = find_place(tmp_path / name, ".onnx", overwrite=False)
        assert place.is_file
        assert place.main == name
        assert place.in_place(PROOF_FILE).name == f"{name}.proof.json"
    for name in ("a", "mobilenet_v1_0.25"):
        place = find_place(tmp_path / name, ".onnx", overwrite=False)
        assert not place.is_file
        assert place.main == "model.onnx"
        assert place.in_place(PROOF_FILE) == tmp_path / name / PROOF_FILE
    assert find_place(tmp_path / "a", None, overwrite=False).main is None


@pytest.mark.parametrize(("name", "suffix"), [("a.tflite", ".onnx"), ("a.onnx", None), ("a.tar.gz", None)])
def test_the_ending_of_another_format_is_refused(tmp_path, name, suffix):
    with pytest.raises(InputError, match="ending of something else"):
        find_place(tmp_path / name, suffix, overwrite=False)


def test_what_is_made_appears_in_its_place_and_nothing_else_stays(tmp_path):
    with finished_at(find_place(tmp_path / "deep" / "net.xml", ".xml", overwrite=False)) as work:
        fill(work, "net.xml", "net.bin")
        assert {path.parent for path in tmp_path.rglob("net.*")} == {work}
        assert [path for path in (tmp_path / "deep").iterdir() if not path.name.startswith(".")] == []
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["net.bin", "net.xml", "net.xml.proof.json"]


@pytest.mark.parametrize("name", ["net.onnx", "net"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, InputError])
def test_a_failure_leaves_nothing_and_what_was_there(tmp_path, name, error):
    for already in (False, True):
        with pytest.raises(error), finished_at(find_place(tmp_path / name, ".onnx", overwrite=True)) as work:
            fill(work, "net.onnx", content="half")
            raise error("stop")
        if not already:
            assert list(tmp_path.iterdir()) == []
            with finished_at(find_place(tmp_path / name, ".onnx", overwrite=False)) as work:
                fill(work, find_place(tmp_path / name, ".onnx", overwrite=True).main)
    assert {file.read_text() for file in tmp_path.rglob("*") if file.is_file()} == {"new"}


def test_force_replaces_an_export_and_nothing_else(tmp_path):
    for name in ("net.onnx", "net"):
        for content in ("first", "second"):
            overwrite = content == "second"
            place = find_place(tmp_path / name, ".onnx", overwrite=overwrite)
            with finished_at(place) as work:
                fill(work, place.main, content=content)
            with pytest.raises(OutputError, match="overwrite=True"):
                find_place(tmp_path / name, ".onnx", overwrite=False)
        assert place.in_place(place.main).read_text() == "second"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(OutputError, match="something else"):
        find_place(tmp_path / "photos", None, overwrite=True)
    with pytest.raises(OutputError, match="is a folder"):
        (tmp_path / "folder.onnx").mkdir()
        find_place(tmp_path / "folder.onnx", ".onnx", overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        (tmp_path / "file").write_text("")
        find_place(tmp_path / "file", None, overwrite=True)


def test_a_companion_that_is_someone_elses_is_not_overwritten(tmp_path):
    (tmp_path / "net.bin").write_text("mine")
    with (
        pytest.raises(OutputError, match=r"net\.bin exists"),
        finished_at(find_place(tmp_path / "net.xml", ".xml", overwrite=False)) as work,
    ):
        fill(work, "net.xml", "net.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["net.bin"]
    assert (tmp_path / "net.bin").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"net\.onnx cannot be written"),
        finished_at(find_place(tmp_path / "file" / "net.onnx", ".onnx", overwrite=False)),
    ):
        raise AssertionError("not reached")


def test_a_killed_process_leaves_no_export(tmp_path):
    code = (
        "import sys, time; from mobilenet_hub.exporting.output import find_place, finished_at\n"
        f"with finished_at(find_place({str(tmp_path / 'net')!r}, '.onnx', overwrite=False)) as work:\n"
        "    (work / 'model.onnx').write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
    time.sleep(0.01)
    assert not (tmp_path / "net").exists()
