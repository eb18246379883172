"""Every format without TensorFlow x {V1, V2} x {classes, features} x {trained size, another}: equal where it runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from exported import HANDLES, MAX_DIFFERENCE, V1_CLASSES, V2_CLASSES, V2_FEATURES, made_module
from reference_network import forward, random_weights

from mobilenet_hub.architecture import Variant, mobilenet_v1
from mobilenet_hub.errors import CorruptFileError, InputError, ProofError
from mobilenet_hub.exporting.export import export
from mobilenet_hub.inference.graph import import_openvino
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_module
from mobilenet_hub.weights.convert import load_source

LIGHT = ("onnx", "openvino", "safetensors")


def need(format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")


def run_onnx(file, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True))


@pytest.fixture(autouse=True)
def packages(request):
    """Skip what needs OpenVINO where it is not installed."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    if parameters.get("format") == "openvino":
        pytest.importorskip("openvino", reason="needs the extra openvino")


def run_openvino(file, images):
    compiled = import_openvino().Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(images)
    return {name: results[output] for output in compiled.outputs for name in output.get_names()}


RUN = {"onnx": run_onnx, "openvino": run_openvino}
ENDING = {"onnx": ".onnx", "openvino": ".xml"}


def difference(value, expected):
    assert value.shape == expected.shape
    return np.abs(value.astype(np.float64) - expected).max() / max(1, np.abs(expected).max())


def test_the_public_name_is_the_function():
    import mobilenet_hub.exporting.export  # must not hide it

    assert mobilenet_hub.export is export
    assert "export" in mobilenet_hub.__all__


@pytest.mark.parametrize("size", [None, (96, 130)])
@pytest.mark.parametrize("handle", HANDLES)
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_exports_follow_the_definition(format, handle, size, tmp_path):
    need(format)
    module = made_module(handle)
    file = tmp_path / f"net{ENDING[format]}"
    proof = export(module, format, file, image_size=size, any_size=size is not None)
    assert proof.difference <= proof.tolerance
    height, width = size or module.config.image_size
    images = np.random.default_rng(0).random((2, height, width, 3), np.float32)
    name = "logits" if module.config.num_classes else "features"
    value = RUN[format](file, images)[name]
    assert difference(value, forward(module.config.network, module.weights, images)[name]) < MAX_DIFFERENCE


@pytest.mark.parametrize("handle", HANDLES)
def test_a_module_folder_comes_back_bit_for_bit(handle, tmp_path):
    module = made_module(handle)
    proof = export(module, "safetensors", tmp_path / "net")
    found = read_module(tmp_path / "net")
    assert found.config == module.config
    assert all(found.weights[name].tobytes() == array.tobytes() for name, array in module.weights.items())
    assert proof.difference == 0


@pytest.mark.parametrize(("handle", "key"), [(V1_CLASSES, "mobilenet_v1_025_128"), (V2_CLASSES, "mobilenet_v2_035_96")])
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_exports_give_what_tf_slim_gives(format, handle, key, tmp_path, golden, published):
    need(format)
    config = made_module(handle).config
    weights = {name: golden.golden_array(name, v.shape) for name, v in config.network.variables.items()}
    file = tmp_path / f"net{ENDING[format]}"
    export(Module(config, weights), format, file, outputs=["logits", "features"])
    results = RUN[format](file, golden.golden_images(2, *config.image_size))
    for name in ("logits", "features"):
        assert difference(results[name], published[f"{key}/{name}"]) < MAX_DIFFERENCE


@pytest.mark.parametrize("opset", [13, 26])
def test_onnx_of_any_size_and_opset(opset, tmp_path):
    onnx = pytest.importorskip("onnx")
    need("onnx")
    module = made_module(V1_CLASSES)
    proof = export(module, "onnx", tmp_path / "net.onnx", image_size="free", opset=opset)
    assert len(proof.sizes) == 2
    model = onnx.load(tmp_path / "net.onnx")
    assert model.opset_import[0].version == opset
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["labels"].split("\n") == list(module.config.labels)
    for size in ((97, 64), (33, 33)):
        images = np.random.default_rng(1).random((3, *size, 3), np.float32)
        value = run_onnx(tmp_path / "net.onnx", images)["logits"]
        assert difference(value, forward(module.config.network, module.weights, images)["logits"]) < MAX_DIFFERENCE


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_pixels_in_and_several_outputs_out_of_a_fixed_batch(format, tmp_path):
    need(format)
    module = made_module(V2_CLASSES)
    names = ["probabilities", "layer_7/output", "global_pool", "Logits", "features"]
    file = tmp_path / f"net{ENDING[format]}"
    proof = export(module, format, file, uint8_input=True, batch_size=3, outputs=names)
    assert proof.top1_agreement == 1
    photos = np.random.default_rng(2).integers(0, 256, (3, 96, 96, 3), np.uint8)
    results = RUN[format](file, photos)
    expected = forward(module.config.network, module.weights, photos / 255)
    for name in names:
        assert (
            difference(results[name], expected["Predictions" if name == "probabilities" else name]) < MAX_DIFFERENCE
        ), name
    with pytest.raises(Exception, match=r"(?i)batch|shape|dimension"):  # each runtime has its own
        RUN[format](file, photos[:2])


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("padding", ["symmetric", "bottom_right"])
def test_networks_of_peers_keep_their_arithmetic(format, padding, tmp_path):
    need(format)
    config = ModuleConfig(
        "mobilenet_v1", 0.25, (64, 64), 3, variant=Variant(0.01, padding, 1.9, -0.8, hidden_units=(5, 4))
    )
    module = Module(config, random_weights(config.network))
    assert config.network != mobilenet_v1(0.25, 3)
    size = "free" if format == "onnx" else None
    export(module, format, tmp_path / "net", image_size=size)
    images = np.random.default_rng(4).random((1, 64, 64, 3), np.float32)
    value = RUN[format](tmp_path / "net" / f"model{ENDING[format]}", images)["logits"]
    assert difference(value, forward(config.network, module.weights, images)["logits"]) < MAX_DIFFERENCE


@pytest.mark.parametrize("format", LIGHT)
def test_the_proof_lies_beside_the_export(format, tmp_path):
    need(format)
    proof = export(made_module(V2_FEATURES), format, tmp_path / "net")
    stored = json.loads((tmp_path / "net" / "proof.json").read_text())
    assert stored["difference"] == proof.difference
    assert stored["choices"]["module"] == V2_FEATURES
    files = [file for file in (tmp_path / "net").iterdir() if file.name != "proof.json"]
    assert stored["bytes"] == sum(file.stat().st_size for file in files) == proof.bytes
    assert proof.top1_agreement is None
    assert Path(proof.path) == tmp_path / "net"


@pytest.mark.parametrize("format", LIGHT)
def test_an_export_that_differs_fails_and_leaves_nothing(format, tmp_path):
    need(format)
    module = made_module(V1_CLASSES)
    huge = {
        name: (array * 3e38 if "/Logits/" in name else array).clip(-3e38, 3e38)
        for name, array in module.weights.items()
    }
    with pytest.raises(ProofError, match="not finite"):
        export(Module(module.config, huge), format, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_a_saved_model_may_state_its_size_and_labels_beside_it(shared, tmp_path):
    folder = tmp_path / "net"
    shutil.copytree(shared("fixtures/hub2_mobilenet_v1_025_128_classification"), folder)
    for path in (folder, folder / "variables"):
        path.chmod(0o755)
    with pytest.raises(InputError, match="image size"):
        load_source(folder)
    labels = [f"class {i}" for i in range(1001)]
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "labels.txt").write_text("\n".join(labels) + "\n")
    (folder / "assets.extra" / "module.json").write_text('{"image_size": [128, 128]}')
    config = load_source(folder).config
    assert config.image_size == (128, 128)
    assert config.labels == tuple(labels)
    (folder / "assets.extra" / "module.json").write_text('{"image_size": 128}')
    with pytest.raises(CorruptFileError, match=r"assets\.extra is not what an export states"):
        load_source(folder)
