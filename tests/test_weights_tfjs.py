"""TensorFlow.js layers models: Teachable Machine's projects classify as there, and damaged ones are refused."""

import json
import shutil

import numpy as np
import pytest

from mobilenet_hub.errors import CorruptFileError, InvalidModuleError, MobileNetHubError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module_folder import read_module, write_module
from mobilenet_hub.weights.convert import load_source

PROJECT = "weights/teachable_machine_v2_035_224"


@pytest.fixture
def project(shared, tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for file in shared(PROJECT).iterdir():
        shutil.copyfile(file, folder / file.name)
    return folder


def stored(folder):
    """The project's weights, read here once more."""
    manifest = json.loads((folder / "model.json").read_text())["weightsManifest"][0]["weights"]
    data, at, arrays = np.fromfile(folder / "weights.bin", "<f4"), 0, {}
    for entry in manifest:
        count = int(np.prod(entry["shape"]))
        arrays[entry["name"]] = data[at : at + count].reshape(entry["shape"])
        at += count
    return arrays


def test_a_project_becomes_a_module_that_classifies(project, tmp_path):
    module = read_module(write_module(tmp_path / "module", load_source(project)))
    config = module.config
    assert (config.architecture, config.depth_multiplier, config.image_size) == ("mobilenet_v2", 0.35, (224, 224))
    assert (config.num_classes, config.labels, config.variant.hidden_units) == (2, ("twin1", "twin2"), (100,))
    assert config.variant.input_scale == pytest.approx(255 / 127)
    arrays = stored(project)
    np.testing.assert_array_equal(module.weights["MobilenetV2/Conv/weights"], arrays["Conv1/kernel"])
    np.testing.assert_array_equal(
        module.weights["MobilenetV2/expanded_conv_16/project/BatchNorm/moving_variance"],
        arrays["block_16_project_BN/moving_variance"],
    )
    assert not module.weights["MobilenetV2/Logits/Conv2d_1c_1x1/biases"].any()  # the project's last layer has none


@pytest.mark.slow
def test_the_same_outputs_as_the_model_in_keras(project):
    """The project's own configuration, built by Keras from keras.applications' network, on pixels / 127 - 1."""
    keras = pytest.importorskip("keras")
    arrays = stored(project)
    network = keras.applications.MobileNetV2(
        weights=None, alpha=0.35, input_shape=(224, 224, 3), include_top=False, pooling="avg"
    )
    for layer in network.layers:
        if layer.weights:
            leaves = [weight.path.rpartition("/")[2] for weight in layer.weights]
            leaves = ["depthwise_kernel" if "depthwise" in layer.name and one == "kernel" else one for one in leaves]
            layer.set_weights([arrays[f"{layer.name}/{leaf}"] for leaf in leaves])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3))
    features = np.asarray(network.predict(pixels.astype(np.float32) / 127 - 1, verbose=0))
    dense = {name.rpartition("/")[0]: name for name in arrays if name.endswith("kernel") and arrays[name].ndim == 2}
    first, last = sorted(dense, key=lambda name: arrays[dense[name]].shape[0], reverse=True)
    hidden = np.maximum(features @ arrays[dense[first]] + arrays[f"{first}/bias"], 0)
    wanted = hidden @ arrays[dense[last]]
    found = Engine(load_source(project), ["logits", "features"], precision="f32").run(
        (pixels / np.float32(255)).astype(np.float32)
    )
    np.testing.assert_allclose(found["features"], features, atol=1e-4 * np.abs(features).max())
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-4 * np.abs(wanted).max())


def edited(folder, change):
    model = json.loads((folder / "model.json").read_text())
    change(model)
    (folder / "model.json").write_text(json.dumps(model))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format="graph-model"), "graph model"),
        (lambda m: m.pop("modelTopology"), "graph model"),
        (lambda m: m.pop("weightsManifest"), "no list of weights"),
        (lambda m: m["weightsManifest"][0].update(paths=["../weights.bin"]), "not beside it"),
        (lambda m: m["weightsManifest"][0].update(paths=["other.bin"]), "other.bin is missing"),
        (lambda m: m["weightsManifest"][0]["weights"].pop(), "bytes; .* are announced"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(shape=[3, 3, 3, 2**40]), "Conv1/kernel of shape"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(dtype="string"), "Conv1/kernel is stored as string"),
        (lambda m: m["weightsManifest"][0]["weights"][2].update(name="bn_Conv1/gamma"), "gamma occurs twice"),
        (lambda m: m["weightsManifest"][0]["weights"][0].pop("name"), "model.json"),
    ],
)
def test_what_is_no_whole_layers_model_is_refused(project, change, words):
    edited(project, change)
    with pytest.raises((CorruptFileError, InvalidModuleError), match=words):
        load_source(project)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"packageName": "@teachablemachine/pose"}, "not of images"),
        ({"packageName": "@teachablemachine/image", "labels": [1]}, "no list of labels"),
        ({"packageName": "@teachablemachine/image", "labels": ["a"], "grayscale": True}, "gray"),
        ([], "no JSON object"),
    ],
)
def test_metadata_of_another_kind_is_refused(project, metadata, words):
    (project / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(CorruptFileError, match=words):
        load_source(project)


@pytest.mark.parametrize("name", ["model.json", "weights.bin", "metadata.json"])
def test_every_truncation_is_refused(project, name):
    data = (project / name).read_bytes()
    for size in (0, 1, len(data) // 3, len(data) - 1):
        (project / name).write_bytes(data[:size])
        with pytest.raises(MobileNetHubError, match=r"model\.json|metadata\.json"):
            load_source(project)


@pytest.mark.parametrize(("dtype", "levels"), [("uint8", 255), ("uint16", 65535), ("float16", None)])
def test_quantized_storage_is_widened_as_tensorflowjs_does(project, dtype, levels):
    arrays = stored(project)
    model = json.loads((project / "model.json").read_text())
    data, wanted = b"", {}
    for entry in model["weightsManifest"][0]["weights"]:
        array = arrays[entry["name"]]
        entry["quantization"] = {"dtype": dtype}
        if levels is None:
            small = array.astype(np.float16)
            wanted[entry["name"]] = small.astype(np.float32)
        else:
            low = min(float(array.min()), 0.0)
            scale = max(float(array.max()) - low, 1e-6) / levels
            small = np.round((array - low) / scale).astype(dtype)
            entry["quantization"] |= {"scale": scale, "min": low}
            wanted[entry["name"]] = small.astype(np.float32) * np.float32(scale) + np.float32(low)
        data += small.tobytes()
    (project / "model.json").write_text(json.dumps(model))
    (project / "weights.bin").write_bytes(data)
    np.testing.assert_array_equal(load_source(project).weights["MobilenetV2/Conv_1/weights"], wanted["Conv_1/kernel"])
