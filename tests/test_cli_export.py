"""`mobilenet export`: the proof on the screen or as JSON, one line and status 2 where it cannot be."""

import json

import pytest
from exported import V1_CLASSES, made_module

from mobilenet_hub.cli.main import main
from mobilenet_hub.exporting.formats import FORMATS, takers
from mobilenet_hub.module_folder import write_module


@pytest.fixture
def module(tmp_path):
    return str(write_module(tmp_path / "module", made_module(V1_CLASSES)))


def test_the_proof_is_printed(module, tmp_path, capsys):
    pytest.importorskip("openvino")
    assert main(["export", module, "--format", "openvino", "-o", str(tmp_path / "net"), "--image-size", "96x64"]) == 0
    shown = capsys.readouterr()
    for part in ("largest difference", "same top class", "100.0%", "OpenVINO", "MB", "96x64", str(tmp_path / "net")):
        assert part in shown.out
    assert "exporting" in shown.err


def test_json_is_what_is_stored(module, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    words = ["--format", "onnx", "-o", str(tmp_path / "net.onnx"), "--batch", "2", "--outputs", "features", "layer_2"]
    assert main(["--quiet", "export", module, *words]) == 2  # V1 has no layer_2
    assert "no output 'layer_2'" in capsys.readouterr().err
    words[-1] = "Conv2d_3_pointwise"
    assert main(["--quiet", "--json", "export", module, *words]) == 0
    shown = capsys.readouterr()
    stored = json.loads((tmp_path / "net.onnx.proof.json").read_text())
    assert json.loads(shown.out) == stored
    assert stored["choices"]["batch_size"] == 2
    assert shown.err == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format", "onx"], "did you mean 'onnx'"),
        (["--format", "tfjs"], "onnx for browsers"),
        (["--format", "openvino", "--opset", "17"], "--opset"),
        (["--format", "openvino", "--image-size", "big"], "neither a number of pixels"),
        (["--format", "openvino", "--batch", "-1"], "neither a number of images"),
        (["--format", "litert", "--precision", "int8"], "--calibration FOLDER"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_2(words, says, module, tmp_path, capsys):
    assert main(["export", module, *words, "-o", str(tmp_path / "net")]) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    "option", ["image_size", "batch_size", "uint8_input", "opset", "precision", "calibration", "handle"]
)
def test_help_and_refusals_name_the_formats_that_take_an_option(option, module, tmp_path, capsys):
    flag = "--batch" if option == "batch_size" else f"--{option.replace('_', '-')}"
    words = {"uint8_input": [], "precision": ["int8"], "handle": ["me/net/1"], "opset": ["17"]}.get(option, ["64"])
    other = next(name for name, one in FORMATS.items() if option not in one.options)
    assert main(["export", module, "--format", other, "-o", str(tmp_path / "net"), flag, *words]) == 2
    refused = capsys.readouterr().err
    assert f"{flag} means nothing for {other}; it is for {takers(option)}" in refused
    assert main(["export", "--help"]) == 0
    assert takers(option) in " ".join(capsys.readouterr().out.split())


def test_an_existing_export_needs_force(module, tmp_path, capsys):
    words = ["--quiet", "export", module, "--format", "safetensors", "-o", str(tmp_path / "net")]
    assert main(words) == 0
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
