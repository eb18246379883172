"""What the program writes for machines is what docs/schemas.json says, in every command that has --json."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from draw_shapes import draw_folders

from mobilenet_hub.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "docs/schemas.json").read_text("utf-8"))
# In this order, in one folder: what one makes the next ones use.
RUNS = {
    "models": "models v2_140",
    "info": "info starter",
    "pull": "pull starter",
    "cache": "cache",
    "train": "train shapes -o made --views 1",
    "evaluate": "evaluate made shapes --unseen",
    "classify": "classify shapes/stars/000.jpg nothing.jpg --module made",
    "embed": "embed shapes -o features",
    "merge": "merge features",
    "similar": "similar shapes/stars/000.jpg --in features",
    "dedupe": "dedupe shapes -o groups.csv",
    "check": "check shapes",
    "convert": "convert made -o converted",
    "export": "export made --format litert -o made.tflite",
    "bench": "bench starter --seconds 0.05",
    "doctor": "doctor",
}
WITHOUT = ("serve", "completion")


def hold(name, value):
    definition = {**SCHEMA, "$ref": f"#/$defs/{name}"}
    jsonschema.Draft202012Validator.check_schema(definition)
    jsonschema.validate(value, definition, cls=jsonschema.Draft202012Validator)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    draw_folders(folder / "shapes", 30)
    shutil.copyfile(folder / "shapes/stars/001.jpg", folder / "shapes/stars/copy.jpg")
    return folder


@pytest.mark.slow
def test_every_command_prints_what_the_schema_says(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert set(RUNS) | set(WITHOUT) == set(COMMANDS)
    for command, words in RUNS.items():
        status = main([*words.split(), "--json"])
        printed = capsys.readouterr().out
        assert status == (command in ("classify", "check")), (command, printed)
        hold(f"{command} --json", json.loads(printed))
    hold("module.json", json.loads(Path("made/module.json").read_text("utf-8")))
    hold("metrics.json", json.loads(Path("made/metrics.json").read_text("utf-8")))
    hold("export --json", json.loads(Path("made.tflite.proof.json").read_text("utf-8")))
    hold("module.json", json.loads((ROOT / "src/mobilenet_hub/starter/module.json").read_text("utf-8")))


def test_the_schema_refuses_what_it_should():
    module = json.loads((ROOT / "src/mobilenet_hub/starter/module.json").read_text("utf-8"))
    for wrong in ({"format": 2}, {"depth_multiplier": 0}, {"image_size": [160]}, {"architecture": "resnet"}):
        with pytest.raises(jsonschema.ValidationError):
            hold("module.json", module | wrong)
