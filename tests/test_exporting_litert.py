"""LiteRT files: equal in float32, within stated bounds when quantized, pixels in, labels attached."""

import warnings
import zipfile

import numpy as np
import pytest
from exported import HANDLES, MAX_DIFFERENCE, V1_CLASSES, V2_CLASSES, V2_FEATURES, made_module
from reference_network import forward

from mobilenet_hub.errors import ProofError
from mobilenet_hub.exporting import export
from mobilenet_hub.weights.module_folder import Module


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pictures to calibrate with."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for seed in range(12):
        random = np.random.default_rng(seed)
        small = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8))
        small.resize((120, 100), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    return folder


def runner(file):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tensorflow.lite.Interpreter(str(file))
    return Interpreter(str(file))


def run(file, images):
    return runner(file).get_signature_runner("serving_default")(images=images)


@pytest.mark.parametrize("size", [None, (96, 130)])
@pytest.mark.parametrize("handle", HANDLES)
def test_float32_follows_the_definition(handle, size, tmp_path):
    module = made_module(handle)
    proof = export(module, "litert", tmp_path / "net.tflite", image_size=size, any_size=True)
    assert proof.difference <= proof.tolerance
    images = np.random.default_rng(0).random((1, *(size or module.config.image_size), 3), np.float32)
    name = "logits" if module.config.num_classes else "features"
    expected = forward(module.config.network, module.weights, images)[name]
    value = run(tmp_path / "net.tflite", images)[name]
    assert np.abs(value - expected).max() <= MAX_DIFFERENCE * max(1, np.abs(expected).max())


def test_the_labels_are_attached_as_a_zip(tmp_path):
    export(made_module(V1_CLASSES), "litert", tmp_path / "net.tflite")
    with zipfile.ZipFile(tmp_path / "net.tflite") as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(made_module(V1_CLASSES).config.labels)
    export(made_module(V2_FEATURES), "litert", tmp_path / "features.tflite")
    assert not zipfile.is_zipfile(tmp_path / "features.tflite")


def test_pixels_in_and_several_outputs_out_of_a_free_batch(tmp_path):
    module, names = made_module(V2_CLASSES), ["probabilities", "layer_7/output"]
    options = {"uint8_input": True, "batch_size": "free", "outputs": names}
    export(module, "litert", tmp_path / "net.tflite", **options)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3), np.uint8)
    results = run(tmp_path / "net.tflite", pixels)
    expected = forward(module.config.network, module.weights, pixels / 255)
    assert np.abs(results["probabilities"] - expected["Predictions"]).max() < MAX_DIFFERENCE
    assert np.abs(results["layer_7_output"] - expected["layer_7/output"]).max() < MAX_DIFFERENCE * 6


@pytest.mark.parametrize(("precision", "smaller"), [("float16", 1.8), ("dynamic", 3.0), ("int8", 3.0)])
def test_smaller_arithmetic_makes_smaller_files_within_the_bounds(precision, smaller, photos, tmp_path):
    module = made_module(V1_CLASSES)
    full = export(module, "litert", tmp_path / "full.tflite")
    options = {"calibration": photos} if precision == "int8" else {}
    proof = export(module, "litert", tmp_path / "net.tflite", precision=precision, **options)
    assert full.bytes / proof.bytes > smaller
    assert full.tolerance < proof.tolerance
    assert 0 < proof.difference <= proof.tolerance
    assert proof.top1_agreement >= 0.5


def test_int8_takes_the_pixels_of_a_picture_as_they_are(photos, tmp_path):
    options = {"precision": "int8", "calibration": photos, "uint8_input": True}
    export(made_module(V1_CLASSES), "litert", tmp_path / "net.tflite", **options)
    (details,) = runner(tmp_path / "net.tflite").get_input_details()
    assert details["dtype"] is np.uint8
    scale, zero = details["quantization"]
    assert scale == pytest.approx(1 / 255, rel=1e-6)
    assert zero == 0


def test_what_float16_cannot_hold_is_not_exported(tmp_path):
    module = made_module(V1_CLASSES)
    huge = {name: array * np.float32(1e6) if "/Logits/" in name else array for name, array in module.weights.items()}
    with pytest.raises(ProofError):
        export(Module(module.config, huge), "litert", tmp_path / "net.tflite", precision="float16")
    assert list(tmp_path.iterdir()) == []
