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
        (lambda m: m.update(format="graph-model"), "model.json is not a TensorFlow.js model"),
        (lambda m: m.pop("modelTopology"), "no modelTopology"),
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


def layers_of(model):
    """All layers of a configuration, those of models within models too: the list that each is in, and the layer."""
    inner = model["config"]
    listed = inner["layers"] if isinstance(inner, dict) else inner
    for layer in listed:
        yield listed, layer
        if layer["class_name"] in ("Sequential", "Model", "Functional"):
            yield from layers_of(layer)


def called(model, name):
    """The layer of that name, or the first whose name begins so."""
    topology = model["modelTopology"]
    named = {
        layer.get("name") or layer["config"]["name"]: (listed, layer)
        for listed, layer in layers_of(topology.get("model_config", topology))
        if isinstance(layer["config"], dict)
    }
    return named.get(name) or next(found for key, found in named.items() if key.startswith(name))


def behind(name, kind, **config):
    """Put a layer behind another one."""

    def change(model):
        listed, layer = called(model, name)
        foreign = {"class_name": kind, "name": "foreign", "config": {"name": "foreign", **config}}
        for other in listed:
            for node in other.get("inbound_nodes") or []:
                for call in node:
                    call[0] = "foreign" if call[0] == layer.get("name") else call[0]
        foreign["inbound_nodes"] = [[[layer.get("name"), 0, 0, {}]]]
        listed.insert(listed.index(layer) + 1, foreign)

    return change


def other(name, **config):
    """Change what a layer is configured as."""
    return lambda model: called(model, name)[1]["config"].update(config)


def of_class(name, kind):
    return lambda model: called(model, name)[1].update(class_name=kind)


def in_training(name):
    def change(model):
        called(model, name)[1]["inbound_nodes"][0][0][3:] = [{"training": True}]

    return change


def without_residual(model):
    _, layer = called(model, "block_2_add")
    layer.update(class_name="Activation", config={"name": layer["name"], "activation": "linear"})
    layer["inbound_nodes"] = [layer["inbound_nodes"][0][1:]]


LEAKY, SWISH = {"alpha": 0.2}, {"activation": "swish"}
PERMUTED, POOLED = {"dims": [2, 1, 3]}, {"pool_size": [3, 3], "strides": [1, 1], "padding": "same"}
REFUSED = {  # in each place: before, within, between, beside, in the head
    "before_summand": (behind("input", "Rescaling", scale=1.0, offset=0.2), "nothing says from which numbers"),
    "before_activation": (behind("input", "ReLU"), "stands before the network"),
    "before_permuted": (behind("input", "Permute", **PERMUTED), "stands before the network"),
    "leaky": (behind("bn_Conv1", "LeakyReLU", **LEAKY), "a LeakyReLU layer"),
    "swish": (behind("bn_Conv1", "Activation", **SWISH), "is swish, where"),
    "relu": (other("Conv1_relu", max_value=None), "is relu, where"),
    "slope": (other("Conv1_relu", negative_slope=0.1), "is leaky ReLU"),
    "epsilon": (other("block_2_expand_BN", epsilon=0.1), "different epsilons"),
    "strides": (other("Conv1", strides=[1, 1]), r"has the stride \[1, 1\]"),
    "dilation": (other("block_2_depthwise", dilation_rate=[2, 2]), "dilation_rate"),
    "padding": (other("block_1_pad", padding=[[1, 0], [1, 0]]), "a way that a module cannot record"),
    "activation_of_convolution": (other("block_2_expand", activation="tanh"), "is tanh, where"),
    "renamed_activation": (
        other("block_2_expand", activation={"class_name": "LeakyReLU", "config": {"name": "linear"}}),
        "leakyrelu",
    ),
    "between_factor": (behind("block_1_expand_relu", "Rescaling", scale=0.7, offset=0.0), "follows an activation"),
    "between_pooling": (behind("block_2_add", "MaxPooling2D", **POOLED), "a MaxPooling2D layer"),
    "between_norm": (behind("block_2_add", "UnitNormalization"), "a UnitNormalization layer"),
    "called_in_training": (in_training("block_2_expand_BN"), "called with training=True"),
    "without_residual": (without_residual, "has no residual sum"),
    "product": (of_class("block_2_add", "Multiply"), "joins two branches"),
    "max_pooling": (of_class("global_average", "GlobalMaxPooling2D"), "global max pooling"),
    "hidden_tanh": (other("dense_Dense3", activation="tanh"), "tanh, where a module has ReLU"),
    "softmax_of_another_axis": (behind("dense_Dense3", "Softmax", axis=1), "Softmax of an axis"),
    "reshaped": (behind("dense_Dense3", "Reshape", target_shape=[4, 25]), "over several dimensions"),
    "sigmoids": (other("dense_Dense4", activation="sigmoid"), "independent of each other"),
    "behind_the_classes": (behind("dense_Dense4", "Rescaling", scale=2.0, offset=0.0), "follows its softmax"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_foreign_layers_are_refused_with_the_reason(project, name):
    change, words = REFUSED[name]
    edited(project, change)
    with pytest.raises(InvalidModuleError, match=words):
        load_source(project)


@pytest.mark.parametrize("place", ["input", "Conv1", "bn_Conv1", "block_2_add", "out_relu", "dense_Dense3"])
def test_layers_that_do_nothing_in_inference_are_left_out(project, place):
    wanted = load_source(project)
    edited(project, behind(place, "GaussianNoise", stddev=0.5))
    found = load_source(project)
    assert found.config.variant == wanted.config.variant
    for name, array in wanted.weights.items():
        np.testing.assert_array_equal(found.weights[name], array)


def test_layers_that_can_be_folded_are(project):
    plain = load_source(project)
    edited(project, behind("global_average", "Rescaling", scale=0.5, offset=0.25))
    folded = load_source(project).weights
    kernel, bias = (f"MobilenetV2/Logits/Hidden/{leaf}" for leaf in ("weights", "biases"))
    np.testing.assert_array_equal(folded[kernel], plain.weights[kernel] / 2)
    moved = plain.weights[bias] + 0.25 * plain.weights[kernel].sum((0, 1, 2), np.float64)
    np.testing.assert_allclose(folded[bias], moved, rtol=1e-6)


def test_a_project_that_scales_its_images_itself_is_not_scaled_twice(project):
    edited(project, behind("input", "Rescaling", scale=1 / 127.5, offset=-1.0))
    assert load_source(project).config.variant.input_scale == 2
