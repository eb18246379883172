"""8-bit networks: near the original, repeatable, refused where they make no sense."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from reference_network import random_weights

from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError
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


def test_rounding_moves_no_means(engine):
    """Each bias takes back what its kernel's rounding moves: without that, the mean features are farther off."""
    from mobilenet_hub.inference.graph import fold_batch_norm
    from mobilenet_hub.inference.litert import LiteRTModel
    from mobilenet_hub.inference.litert_graph import build_litert
    from mobilenet_hub.inference.quantize import calibrated

    module, seen = engine.job.module(), pixels(40)
    network, weights = module.config.network, module.weights
    exact = engine.run(seen)["features"]

    def off(arithmetic):
        model = build_litert(network, weights, (32, 32), ["features"], input_type="uint8", arithmetic=arithmetic)
        return np.abs((LiteRTModel(model).run(seen)["features"] - exact).mean(axis=0)).mean()

    int8 = calibrated(network, weights, seen)
    plain = replace(int8, biases=[fold_batch_norm(network, unit, weights)[1] for unit in network.units])
    assert off(int8) < off(plain) / 1.5


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_8_bit_outputs_of_any_network(padding):
    """Endpoints, residual sums, odd sizes, other paddings and input scales: near the float network, image by image."""
    from mobilenet_hub.architecture import Variant, mobilenet_v2
    from mobilenet_hub.inference.litert import LiteRTModel
    from mobilenet_hub.inference.litert_graph import build_litert, signature_name
    from mobilenet_hub.inference.quantize import calibrated

    scale, offset = (2.0, -1.0) if padding == "same" else (255.0, 0.0)
    variant = Variant(padding=padding, input_scale=scale, input_offset=offset)
    network = replace(mobilenet_v2(0.35, num_classes=4), variant=variant)
    weights = random_weights(network)
    seen = np.random.default_rng(0).integers(0, 256, (6, 45, 67, 3), np.uint8)
    outputs = ["features", "layer_2/output", "layer_7/output", "global_pool"]

    def run(arithmetic):
        model = build_litert(network, weights, (45, 67), outputs, input_type="uint8", arithmetic=arithmetic)
        return LiteRTModel(model).run(seen)

    near, exact = run(calibrated(network, weights, seen)), run("float32")
    for name in map(signature_name, outputs):
        correlation = np.corrcoef(near[name].reshape(-1), exact[name].reshape(-1))[0, 1]
        assert correlation > 0.9, (
            name,
            correlation,
        )  # random weights are loud: trained ones come to 0.997, these to 0.96


def test_of_a_folder_the_quantized_model_is_kept(tmp_path, monkeypatch):
    from mobilenet_hub.inference.quantize import Int8Engine

    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path / "cache"))
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 3)
    write_module(tmp_path / "m", Module(config, random_weights(config.network)))
    engine = Engine(tmp_path / "m", ("logits",), precision="f32")
    first = Int8Engine(engine, pixels(5)).run(pixels(3))["logits"]
    (kept,) = (tmp_path / "cache" / "compiled").glob("*.tflite")
    made_at = kept.stat().st_mtime_ns
    assert np.array_equal(Int8Engine(engine, pixels(5)).run(pixels(3))["logits"], first)
    assert kept.stat().st_ino == next((tmp_path / "cache" / "compiled").glob("*.tflite")).stat().st_ino
    Int8Engine(engine, pixels(6))  # other images, another model
    assert len(list((tmp_path / "cache" / "compiled").glob("*.tflite"))) == 2
    kept.write_bytes(kept.read_bytes()[:-100])
    assert np.array_equal(Int8Engine(engine, pixels(5)).run(pixels(3))["logits"], first)
    assert kept.stat().st_mtime_ns >= made_at


def test_an_8_bit_network_is_near_the_original(engine):
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
