"""8-bit networks: near the original, repeatable, refused where they make no sense."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from reference_network import random_weights

from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError, MissingExtraError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module


@pytest.fixture(scope="module")
def engine():
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 5)
    return Engine(Module(config, random_weights(config.network)), ("features",), precision="f32")


def pixels(count, seed=0):
    """Photos of a kind: smooth, with colors of their own."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


def need_nncf():
    if find_spec("nncf") is None:
        pytest.skip("needs the extra int8")


def test_nncf_is_loaded_without_its_telemetry():
    need_nncf()
    code = (
        "import sys; from mobilenet_hub.inference.quantize import _import_nncf; nncf = _import_nncf();"
        "sys.exit('openvino_telemetry' in sys.modules or 'Stub' not in str(nncf.telemetry.telemetry)"
        " and 'Mock' not in str(nncf.telemetry.telemetry))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_without_nncf_the_extra_is_named(engine, monkeypatch):
    from mobilenet_hub.inference.quantize import Int8Engine

    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"mobilenet-hub\[int8\]"):
        Int8Engine(engine, pixels(2))


def test_an_8_bit_network_is_near_the_original(engine):
    need_nncf()
    from mobilenet_hub.inference.quantize import Int8Engine, agreement

    int8 = Int8Engine(engine, pixels(40))
    found = agreement(engine, int8, pixels(50, seed=1))
    assert (found.images, found.calibrated_with, found.accuracy) == (50, False, None)
    assert found.cosine > 0.97
    assert found.least_cosine <= found.cosine
    outputs = int8.run(pixels(50, seed=1))["features"]
    assert outputs.shape == (50, 256)
    assert not np.array_equal(outputs, engine.run(pixels(50, seed=1))["features"])  # it does compute otherwise
    again = Int8Engine(engine, pixels(40))
    assert np.array_equal(again.run(pixels(50, seed=1))["features"], outputs)
    assert again.calibration_sha256 == int8.calibration_sha256
    for wrong in (np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 31, 32, 3), np.uint8)):
        with pytest.raises(InputError, match="uint8"):
            int8.run(wrong)
    with pytest.raises(InputError, match="none that can be read"):
        Int8Engine(engine, pixels(0))


def test_the_command_calibrates_says_how_near_and_resumes(tmp_path, monkeypatch, capsys):
    need_nncf()
    from PIL import Image
    from pyarrow import parquet

    monkeypatch.chdir(tmp_path)
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 3)
    write_module(tmp_path / "m", Module(config, random_weights(config.network)))
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(pixels(30)):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number:02d}.png")
    words = ["photos", "--module", "m", "--precision", "int8"]
    assert main(["embed", *words, "-o", "out.parquet"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert re.search(r"30 of the images calibrated with: mean cosine similarity (0\.9|1\.0)", told.err)
    assert parquet.read_schema("out.parquet").metadata[b"mobilenet_hub.precision"] == b"int8"
    assert main(["embed", *words, "-o", "out.parquet", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["resumed"] == 30
    assert main(["embed", "photos", "--module", "m", "--precision", "f32", "-o", "out.parquet"]) == 2
    assert "precision 'int8' and not 'f32'" in capsys.readouterr().err
    assert main(["classify", *words]) == 2
    assert "add -o" in capsys.readouterr().err
    assert main(["classify", *words, "-o", "out.csv"]) == 0
    assert "same likeliest class for" in capsys.readouterr().err
    for label in ("0", "1"):  # folders named as classes: what is right is known
        (tmp_path / "known" / label).mkdir(parents=True)
        Image.fromarray(pixels(1)[0]).save(tmp_path / "known" / label / "a.png")
    assert main(["classify", "known", *words[1:], "-o", "known.csv"]) == 0
    assert "; right 50.0% of the time, f32 50.0%" in capsys.readouterr().err
    assert main(["classify", *words, "--limit", "20", "-o", "few.csv"]) == 0
    assert "on 20 of the images" in capsys.readouterr().err
    assert main(["embed", "-", "--module", "m", "--precision", "int8", "-o", "listed"]) == 2
    assert "reads images twice" in capsys.readouterr().err
