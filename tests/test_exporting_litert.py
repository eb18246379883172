"""LiteRT files: equal in float32, within stated bounds when quantized, pixels in, labels attached."""

import json
import shutil
import warnings
import zipfile
from functools import cache

import numpy as np
import pytest
from exported import HANDLES, MAX_DIFFERENCE, V1_CLASSES, V2_CLASSES, V2_FEATURES, made_module
from reference_network import forward

from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import ProofError
from mobilenet_hub.exporting.export import export
from mobilenet_hub.exporting.proof import LEAST_AGREEMENT
from mobilenet_hub.exporting.request import Options, make_request
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import write_module


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


@pytest.mark.parametrize("uint8_input", [False, True])
def test_the_metadata_say_what_goes_in_and_what_comes_out(uint8_input, tmp_path):
    options = {"uint8_input": uint8_input, "outputs": ["features", "logits"]}
    export(made_module(V1_CLASSES), "litert", tmp_path / "net.tflite", **options)
    content = (tmp_path / "net.tflite").read_bytes()
    model = Flat.root(content)
    assert content[4:8] == b"TFL3"
    entries = {entry.text(0): entry.number(1, np.uint32) for entry in model.tables(6)}  # Model.metadata
    metadata = bytes(model.tables(4)[entries["TFLITE_METADATA"]].vector(0, np.uint8))  # Model.buffers
    assert metadata[4:8] == b"M001"
    described = Flat.root(metadata)
    assert V1_CLASSES in described.text(1)
    (graph,) = described.tables(3)
    (images,) = graph.tables(2)
    assert images.text(0) == "images"
    assert images.table(3).number(0, np.uint8) == 2  # ImageProperties
    (unit,) = images.tables(4)
    mean, deviation = (unit.table(1).vector(field, np.float32) for field in (0, 1))
    assert (mean, deviation) == ([0.0], [1.0 if uint8_input else 255.0])
    outputs = {output.text(0): [file.text(0) for file in output.tables(6)] for output in graph.tables(3)}
    assert outputs == {"logits": ["labels.txt"], "features": []}


class Flat:
    """A table of a flatbuffer, read by field numbers."""

    def __init__(self, data, at):
        import flatbuffers

        self.flat = flatbuffers.table.Table(bytearray(data), at)

    @classmethod
    def root(cls, data):
        return cls(data, int.from_bytes(data[:4], "little"))

    def field(self, number):
        offset = self.flat.Offset(4 + 2 * number)
        return self.flat.Pos + offset if offset else None

    def number(self, number, dtype):
        return np.frombuffer(self.flat.Bytes, dtype, 1, self.field(number))[0]

    def text(self, number):
        return self.flat.String(self.field(number)).decode()

    def table(self, number):
        return Flat(self.flat.Bytes, self.flat.Indirect(self.field(number)))

    def tables(self, number):
        if self.field(number) is None:
            return []
        offset = self.field(number) - self.flat.Pos
        starts = (self.flat.Vector(offset) + 4 * i for i in range(self.flat.VectorLen(offset)))
        return [Flat(self.flat.Bytes, self.flat.Indirect(start)) for start in starts]

    def vector(self, number, dtype):
        offset = self.field(number) - self.flat.Pos
        return np.frombuffer(self.flat.Bytes, dtype, self.flat.VectorLen(offset), self.flat.Vector(offset)).tolist()


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


@cache
def nearly_tied():
    """A module whose classes are told apart by weights that float16 rounds to the same: it has steps of 1 there."""
    module = made_module(V1_CLASSES)
    name = module.config.network.classifier[0].name
    return Module(module.config, {**module.weights, name: module.weights[name] + np.float32(1500)})


def test_top_classes_that_changed_are_a_caution_and_more_than_half_a_failure(tmp_path, capsys):
    with pytest.raises(ProofError, match=r"in float16 \d of 8 top classes are others .* overwrite=True"):
        export(nearly_tied(), "litert", tmp_path / "net.tflite", precision="float16")
    assert list(tmp_path.iterdir()) == []
    folder = write_module(tmp_path / "module", nearly_tied())
    words = ["export", str(folder), "--format", "litert", "-o", str(tmp_path / "net"), "--precision", "float16"]
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force", "--quiet"]) == 0
    assert main([*words, "--force"]) == 0
    assert "warning: in float16" in capsys.readouterr().err
    stored = json.loads((tmp_path / "net" / "proof.json").read_text())
    assert stored["top1_agreement"] < LEAST_AGREEMENT
    assert "top classes are others" in stored["warnings"][0]
    assert export(made_module(V1_CLASSES), "litert", tmp_path / "same.tflite").warnings == ()


def test_a_file_that_is_no_photo_is_not_calibrated_with_and_named(photos, tmp_path, capsys):
    folder = shutil.copytree(photos, tmp_path / "photos")
    (folder / "0.png").write_bytes(b"not a photo")
    request = make_request(made_module(V1_CLASSES), "litert", Options(precision="int8", calibration=folder))
    assert request.photos.shape == (11, 128, 128, 3)
    assert [skip.path for skip in request.left_out] == [folder / "0.png"]
    module = write_module(tmp_path / "module", made_module(V1_CLASSES))
    words = ["export", str(module), "--format", "litert", "-o", str(tmp_path / "net"), "--precision", "int8"]
    assert main([*words, "--calibration", str(folder)]) == 1
    assert f"{folder / '0.png'}: left out: " in capsys.readouterr().err
    assert json.loads((tmp_path / "net" / "proof.json").read_text())["images"] == 11
    for file in folder.iterdir():
        file.write_bytes(b"not a photo")
    assert main([*words, "--calibration", str(folder), "--force"]) == 2
    assert "cannot be calibrated with" in capsys.readouterr().err
