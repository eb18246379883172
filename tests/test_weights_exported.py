"""Our own exports read back: the module that was exported, bit for bit where the format keeps the bits."""

import json
import zipfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_network import random_weights

from mobilenet_hub.architecture import ConvUnit, Variant
from mobilenet_hub.errors import CorruptFileError, InvalidModuleError, MobileNetHubError
from mobilenet_hub.evaluation.seen import is_trained_here
from mobilenet_hub.exporting.export import export
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_module, read_stated, stated, write_module
from mobilenet_hub.weights.convert import convert, load_source
from mobilenet_hub.weights.exported import _divided, _times

NEEDS = {
    "onnx": ["onnx", "onnxruntime"],
    "openvino": ["openvino"],
    "litert": ["ai_edge_litert"],
    "keras": ["keras", "h5py"],
    "tf-hub": ["tensorflow"],
    "safetensors": [],
}
FOLDED = ("onnx", "openvino", "litert")
SLOW = ("keras", "tf-hub")
KNOWN = {
    "source": {"module": "starter", "method": "frozen"},
    "license": "Apache-2.0",
    "trained_on": {"photos": "pets ü", "images": 9, "photos_sha1": "2jmj7l5r"},
    "metrics": {"test": {"accuracy": 0.5, "images": 2}},
    "extra": {"of another version": [1, {"a": None}]},
    "fit": "squash",
}
V1 = ModuleConfig(
    "mobilenet_v1",
    0.25,
    (32, 40),
    3,
    ("0 a  cat", "1 b,dog", "2 \u2028ü 'x' <&>"),
    variant=Variant(temperature=0.4871),
    **KNOWN,
)
V2 = ModuleConfig(
    "mobilenet_v2", 0.36, (32, 32), 2, ("x", "y"),
    variant=Variant(1e-5, "symmetric", 255 / 127, -0.75, 1.75, (10, 7)), **KNOWN,
)  # fmt: skip
FEATURES = ModuleConfig("mobilenet_v1", 0.25, (33, 32), handle="google/imagenet/mobilenet_v1_025_128/feature_vector/5")
UNLABELLED = replace(V1, labels=None, trained_on=None, extra={}, fit=None, variant=Variant())


def made(config):
    """Random weights, some channels of which batch norm turns around or switches off."""
    weights = random_weights(config.network)
    for unit in config.network.units:
        gamma = weights[unit.batch_norm[0].name] = weights[unit.batch_norm[0].name].copy()
        gamma[0], gamma[-1] = -gamma[0], 0
    return Module(config, weights)


def there_and_back(module, format, folder, **options):
    for package in NEEDS[format]:
        pytest.importorskip(package)
    export(module, format, folder / "there", **options)
    convert(folder / "there", folder / "back")
    return read_module(folder / "back")


def answers(module, precision, output):
    size = module.config.image_size
    images = np.random.default_rng(0).random((2, *size, 3), np.float32)
    return Engine(module, [output], precision=precision).run(images)[output]


@pytest.mark.parametrize(
    ("format", "config"),
    [
        pytest.param(format, config, marks=pytest.mark.slow if format in SLOW else (), id=f"{format}-{name}")
        for format in NEEDS
        for name, config in {"v1": V1, "v2": V2, "features": FEATURES, "unlabelled": UNLABELLED}.items()
        if format not in SLOW or config in (V1, V2)
    ],
)
def test_the_module_comes_back(format, config, tmp_path):
    module = made(config)
    found = there_and_back(module, format, tmp_path)
    expected = config if config.source else replace(config, source=found.config.source)
    assert found.config == expected
    output = "logits" if config.num_classes else "features"
    assert answers(found, "f32", output).tobytes() == answers(module, "f32", output).tobytes()
    assert answers(found, "auto", output).tobytes() == answers(module, "auto", output).tobytes()
    if format not in FOLDED:
        assert all(found.weights[name].tobytes() == array.tobytes() for name, array in module.weights.items())


@pytest.mark.parametrize("outputs", [["probabilities"], ["features", "probabilities"], ["features"]], ids="+".join)
@pytest.mark.parametrize("format", FOLDED)
def test_whatever_it_was_asked_to_give(format, outputs, tmp_path):
    module = made(V2)
    found = there_and_back(module, format, tmp_path, outputs=outputs, uint8_input=True)
    wanted = module if "probabilities" in outputs else module.without_classifier()
    assert found.config == wanted.config
    output = "logits" if found.config.num_classes else "features"
    assert answers(found, "f32", output).tobytes() == answers(wanted, "f32", output).tobytes()


def test_onnx_of_any_size_and_openvino_by_its_weights(tmp_path):
    module = made(V1)
    assert there_and_back(module, "onnx", tmp_path, image_size="free").config == module.config
    pytest.importorskip("openvino")
    export(module, "openvino", tmp_path / "net.xml")
    assert load_source(tmp_path / "net.bin").config == module.config


@pytest.mark.parametrize("precision", ["float16", "dynamic"])
def test_rounded_kernels_come_back_as_near_as_they_were_rounded(precision, tmp_path):
    if precision == "dynamic":
        pytest.importorskip("tensorflow")
    module = made(V1)
    found = there_and_back(module, "litert", tmp_path, precision=precision)
    assert found.config == module.config
    far = np.abs(answers(found, "f32", "logits") - answers(module, "f32", "logits")).max()
    assert 0 < far < 0.05 * np.abs(answers(module, "f32", "logits")).max()


@pytest.mark.parametrize("format", FOLDED)
def test_folded_modules_stay_folded(format, tmp_path):
    module = Module(replace(V1, batch_norm_folded=True), made(V1).weights)
    found = there_and_back(module, format, tmp_path)
    assert found.config == module.config
    assert answers(found, "f32", "logits").tobytes() == answers(module, "f32", "logits").tobytes()


@pytest.mark.parametrize("format", FOLDED)
def test_inner_layers_are_no_module(format, tmp_path):
    module = made(V1)
    with pytest.raises(InvalidModuleError, match="inner layers"):
        there_and_back(module, format, tmp_path, outputs=["Conv2d_3_pointwise"])
    assert not (tmp_path / "back").exists()


def with_another_clip(folder):
    import onnx
    from onnx import numpy_helper

    file = next(folder.rglob("*.onnx"))
    model = onnx.load(file)
    six = next(one for one in model.graph.initializer if "/" not in one.name and numpy_helper.to_array(one).item() == 6)
    six.CopyFrom(numpy_helper.from_array(np.float32(5), six.name))
    onnx.save(model, file)


def with_another_node(folder):
    import onnx

    file = next(folder.rglob("*.onnx"))
    model = onnx.load(file)
    end = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], [end]))
    onnx.save(model, file)


def with_another_clamp(folder):
    file = next(folder.rglob("*.xml"))
    text = file.read_text("utf-8")
    assert 'max="6"' in text
    file.write_text(text.replace('max="6"', 'max="5"', 1), "utf-8")


def with_another_scale(folder):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    file = next(folder.rglob("*.tflite"))
    model = schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0)
    scale = next(one for one in model.subgraphs[0].tensors if one.name == b"scale")
    model.buffers[scale.buffer].data = list(np.float32(1.7).tobytes())
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(builder.Output())


@pytest.mark.parametrize(
    ("format", "change"),
    [
        ("onnx", with_another_clip),
        ("onnx", with_another_node),
        ("openvino", with_another_clamp),
        ("litert", with_another_scale),
    ],
)
def test_a_graph_that_was_changed_since_is_refused(format, change, tmp_path):
    """What is carried says what was exported, not what the file computes now."""
    there_and_back(made(UNLABELLED), format, tmp_path)
    change(tmp_path / "there")
    with pytest.raises(InvalidModuleError, match="changed since"):
        load_source(tmp_path / "there")


def test_files_of_others_are_refused_with_what_to_do(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [onnx.helper.make_tensor_value_info("y", 1, [1])])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "theirs.onnx")
    (tmp_path / "theirs").write_bytes((tmp_path / "theirs.onnx").read_bytes())
    (tmp_path / "ir.xml").write_text('<?xml version="1.0"?>\n<net name="x" version="11"><layers/></net>')
    for name in ("theirs.onnx", "theirs", "ir.xml"):
        with pytest.raises(InvalidModuleError, match="convert what it was made from"):
            load_source(tmp_path / name)
    (tmp_path / "page.xml").write_text('<?xml version="1.0"?>\n<html/>')
    with pytest.raises(InvalidModuleError, match="web page"):
        load_source(tmp_path / "page.xml")


@pytest.mark.parametrize("format", ["onnx", "openvino", "litert"])
def test_damaged_exports_are_refused_or_sound(format, tmp_path):
    """Cut anywhere, or with a byte of the part that describes it changed: an error of ours, or a sound module."""
    for package in NEEDS[format]:
        pytest.importorskip(package)
    ending = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}[format]
    export(made(UNLABELLED), format, tmp_path / f"net{ending}")
    files = sorted(file for file in tmp_path.iterdir() if file.suffix in (ending, ".bin"))
    random = np.random.default_rng(0)
    for file in files:
        data = file.read_bytes()
        for at in random.integers(0, len(data), 6):
            file.write_bytes(data[:at])
            with pytest.raises(MobileNetHubError):
                load_source(tmp_path / f"net{ending}")
        for at in random.integers(0, len(data), 20):
            file.write_bytes(data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :])
            with suppress(MobileNetHubError):
                load_source(tmp_path / f"net{ending}")
        file.write_bytes(data)
    if format == "openvino":
        (tmp_path / "net.bin").unlink()
        with pytest.raises(CorruptFileError, match=r"net\.bin is missing"):
            load_source(tmp_path / "net.xml")


@pytest.mark.slow
def test_a_keras_file_that_was_saved_again_says_nothing_that_may_be_wrong_by_now(tmp_path):
    keras = pytest.importorskip("keras")
    module = made(V1)
    export(module, "keras", tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        assert json.loads(archive.read("module.json"))["trained_on"]["photos_sha1"]
    model = keras.saving.load_model(tmp_path / "net.keras")
    model.slim_variables["MobilenetV1/Logits/Conv2d_1c_1x1/biases"].assign([1, 2, 3])
    model.save(tmp_path / "tuned.keras")
    found = load_source(tmp_path / "tuned.keras", image_size=V1.image_size)
    assert found.config.trained_on is None
    assert found.config.variant == V1.variant
    assert found.weights["MobilenetV1/Logits/Conv2d_1c_1x1/biases"].tolist() == [1, 2, 3]


@pytest.mark.slow
def test_a_layer_trained_in_memory_says_no_more_which_photos_it_has_seen(tmp_path):
    pytest.importorskip("keras")
    from mobilenet_hub.hub.keras_layer import KerasLayer

    write_module(tmp_path / "m", made(V1))
    layer = KerasLayer(str(tmp_path / "m"), trainable=True)
    export(layer, "safetensors", tmp_path / "same")
    assert read_module(tmp_path / "same").config == V1
    layer.network.slim_variables["MobilenetV1/Logits/Conv2d_1c_1x1/biases"].assign([1, 2, 3])
    export(layer, "safetensors", tmp_path / "tuned")
    found = read_module(tmp_path / "tuned").config
    assert (found.labels, found.trained_on, found.metrics) == (V1.labels, None, None)
    assert is_trained_here(found)


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20),
    st.floats(2**-10, 2**10) | st.floats(-(2**10), -(2**-10)),
)
def test_what_was_multiplied_is_found_again(kernel, scale):
    original = np.array(kernel, np.float32).reshape(1, 1, -1, 1)
    unit = ConvUnit("s", False, 1, 1, original.size, 1, False, ())
    folded = _times(original, np.array([scale]))
    assert np.array_equal(_times(_divided(folded, np.array([scale]), unit), np.array([scale])), folded)


def test_what_a_module_states_stands_alone(tmp_path):
    assert read_stated(stated(V2), tmp_path) == V2
    write_module(tmp_path / "m", made(V2))
    assert read_module(tmp_path / "m").config == V2
    for wrong, words in (("{", "no JSON"), ("[]", "format"), (stated(V2).replace('"x"', "1"), "labels"),
                         (stated(V2).replace('"num_classes": 2', '"num_classes": 3'), "labels")):  # fmt: skip
        with pytest.raises(InvalidModuleError, match=words):
            read_stated(wrong, tmp_path)


def test_the_depth_multiplier_is_the_modules_own(tmp_path):
    """0.35 and 0.36 make one network; a file's name does not decide."""
    found = there_and_back(made(V2), "litert", tmp_path)
    assert found.config.depth_multiplier == 0.36
