"""The tutorial's figures and Python blocks, on the ants and bees that it is about."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest

import mobilenet_hub as hub
from mobilenet_hub.cli.main import main

TUTORIAL = Path(__file__).resolve().parents[1] / "docs/tutorial.md"
README = TUTORIAL.parents[1] / "README.md"


@pytest.mark.slow
def test_the_tutorial_is_true(shared, tmp_path, monkeypatch, capsys):
    text = TUTORIAL.read_text("utf-8")
    with zipfile.ZipFile(shared("datasets/ants_bees.zip")) as archive:
        archive.extractall(tmp_path / "photos")
    source = shared("weights/slim_frozen/mobilenet_v1_0.25_224_frozen.tgz")
    shutil.copyfile(source, tmp_path / "mobilenet_v1_0.25_224.tgz")
    monkeypatch.chdir(tmp_path)
    for command in re.findall(r"^\$ mobilenet (.+)$", text, re.MULTILINE):
        assert main(command.split()) == 0, command
    printed = capsys.readouterr().out
    # Another CPU may turn a photo or two: 71 of them were tested.
    accuracy = float(re.search(r"^test +71 +([\d.]+)%", printed, re.MULTILINE)[1])
    assert accuracy == pytest.approx(85.9, abs=2.9)
    assert re.search(r"^bees +(9\d|100)\.", printed, re.MULTILINE)
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(block, {"hub": hub})
    assert capsys.readouterr().out.startswith("bees\n")


def test_the_readme_prints_what_train_prints(shared, tmp_path, monkeypatch, capsys):
    """In float32, where no CPU turns a photo; elsewhere the same to a photo or two."""
    shown = re.search(r"^\$ mobilenet train ants_bees\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)[
        1
    ]
    with zipfile.ZipFile(shared("datasets/ants_bees.zip")) as archive:
        archive.extractall(tmp_path / "ants_bees")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ants_bees", "--precision", "f32"]) == 0
    out, err = capsys.readouterr()
    printed = (out + err).splitlines()
    for line in shown.splitlines():
        if "accuracy" in line or "%" in line:
            assert line in printed
        else:
            assert line.split(" (")[0] in [said.split(" (")[0] for said in printed]
