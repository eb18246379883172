"""Options are held against the format and the module before anything is written."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from exported import V1_CLASSES, V1_FEATURES, V2_CLASSES, V2_FEATURES, made_module

pytest.importorskip("onnxruntime", reason="most options are tried on ONNX: the extra mobilenet-hub[onnx]")

from mobilenet_hub.errors import InputError, MissingExtraError, OutputError
from mobilenet_hub.exporting.export import export
from mobilenet_hub.exporting.request import Options, make_request


def request(handle, format, **options):
    return make_request(made_module(handle), format, Options(**options))


@pytest.mark.parametrize(
    ("format", "options", "says"),
    [
        ("onx", {}, "did you mean 'onnx'"),
        ("zip", {}, "use one of tf-hub, onnx"),
        ("tfjs", {}, "tensorflowjs.*onnx"),
        ("keras", {"image_size": 96}, "means nothing for keras; it is for tf-hub, onnx"),
        ("tf-hub", {"uint8_input": True}, "uint8_input.*it is for onnx, openvino, litert"),
        ("openvino", {"opset": 17}, "opset.*it is for onnx"),
        ("onnx", {"precision": "int8"}, "precision.*it is for litert"),
        ("onnx", {"handle": "me/net/1"}, "handle.*it is for site"),
        ("onnx", {"opset": 9}, "13 to"),
        ("onnx", {"batch_size": 0}, "batch size must be"),
        ("onnx", {"image_size": 0}, "image size must be"),
        ("openvino", {"image_size": "free"}, "free sizes are for tf-hub and onnx"),
        ("litert", {"precision": "int4"}, "float32, float16, dynamic, int8"),
        ("litert", {"precision": "int8"}, "calibration=FOLDER"),
        ("litert", {"calibration": "photos"}, "for int8 only"),
        ("onnx", {"outputs": "layer_7"}, "no output 'layer_7'"),
        ("onnx", {"outputs": "probabilites"}, "did you mean probabilities"),
        ("onnx", {"outputs": []}, "one or more different names"),
        ("onnx", {"outputs": ["logits", "logits"]}, "one or more different names"),
        ("tf-hub", {"outputs": "probabilities"}, "return_endpoints=True"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(format, options, says, tmp_path):
    with pytest.raises(InputError, match=says):
        export(made_module(V1_CLASSES), format, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_size_is_insisted_on_or_kept():
    for options in ({"image_size": 128}, {"image_size": "free"}):
        with pytest.raises(InputError, match=r"96x96 pixels only.*any_size=True"):
            request(V2_FEATURES, "onnx", **options)
    assert request(V2_FEATURES, "onnx", image_size=128, any_size=True).image_size == (128, 128)
    assert request(V2_FEATURES, "onnx", image_size="free", any_size=True).image_size is None
    assert request(V2_FEATURES, "tf-hub").image_size == (96, 96)
    assert request(V1_FEATURES, "tf-hub").image_size is None
    assert request(V1_FEATURES, "tf-hub", image_size=(96, 160)).image_size == (96, 160)
    assert request(V1_FEATURES, "onnx").image_size == (128, 128)


def test_features_of_a_classifier_leave_it_out_where_the_whole_network_is_exported():
    for format in ("keras", "safetensors"):
        made = request(V2_CLASSES, format, outputs="features")
        assert made.config.num_classes == 0
        assert made.config.labels is None
        assert set(made.weights) == set(made.config.network.variables)
    assert request(V2_CLASSES, "onnx", outputs="features").config.num_classes == 1001


def test_endpoints_may_carry_the_scope():
    assert request(V2_CLASSES, "onnx", outputs="MobilenetV2/layer_7/output").outputs == ("layer_7/output",)


@pytest.mark.parametrize(
    ("format", "package", "extra"),
    [("onnx", "onnxruntime", "onnx"), ("tf-hub", "tensorflow", "tensorflow"), ("site", "tensorflow", "tensorflow")],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(format, package, extra, tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "mobilenet_hub.exporting.request.find_spec", lambda name: None if name == package else there(name)
    )
    with pytest.raises(MissingExtraError, match=rf"needs {package}.*pip install 'mobilenet-hub\[{extra}\]'"):
        export(made_module(V1_CLASSES), format, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_photos_cannot_calibrate(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="photos cannot be calibrated with: a folder without images"):
        _ = replace(request(V1_CLASSES, "openvino"), calibration=tmp_path / "photos").photos


def test_an_existing_output_is_refused_before_any_work(tmp_path):
    (tmp_path / "out.onnx").write_bytes(b"mine")
    for format in ("onnx", "safetensors"):
        path = tmp_path / ("out.onnx" if format == "onnx" else "out")
        path.exists() or (path.mkdir(), (path / "file").write_text("mine"))
        with pytest.raises(OutputError, match="exists"):
            export(made_module(V1_CLASSES), format, path)
    assert (tmp_path / "out.onnx").read_bytes() == b"mine"


def test_the_calibration_photos_are_brought_to_the_size(tmp_path):
    from PIL import Image

    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(tmp_path / "a.png")
    photos = replace(request(V1_CLASSES, "openvino", image_size=64), calibration=tmp_path).photos
    assert photos.shape == (1, 64, 64, 3)
    assert photos.dtype == np.uint8
    assert photos.min() == photos.max() == 200
