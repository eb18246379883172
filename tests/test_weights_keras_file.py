"""Keras's files of keras.applications: the same outputs as Keras, and nothing that computes otherwise."""

import json
import shutil
import sys
import zipfile
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_files import some_weights

from mobilenet_hub.architecture import BATCH_NORM_LEAVES, architecture
from mobilenet_hub.catalog.labels import imagenet_labels_1000
from mobilenet_hub.errors import CorruptFileError, InvalidModuleError, MissingExtraError, MobileNetHubError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.weights.convert import load_source

keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")

FORMS = (".keras", ".weights.h5", ".h5")
pytestmark = pytest.mark.filterwarnings("ignore")  # Keras warns of its own older format


def randomized(model, seed=0):
    """Give a model weights as training might leave them, moving statistics included."""
    random = np.random.default_rng(seed)
    values = []
    for array, weight in zip(model.get_weights(), model.weights, strict=True):
        fan_in = max(1, np.prod(array.shape[:-1])) if array.shape[-1] > 1 else 9
        scale = np.sqrt(2 / fan_in) if array.ndim > 1 else 0.1
        base = 1.0 if weight.path.endswith(("gamma", "moving_variance")) else 0.0
        values.append((base + random.normal(0, scale, array.shape)).astype(np.float32))
    model.set_weights(
        [np.abs(v) + 0.1 if "variance" in w.path else v for v, w in zip(values, model.weights, strict=True)]
    )
    return model


def saved(model, folder, form):
    file = folder / f"net{form}"
    (model.save_weights if form == ".weights.h5" else model.save)(file)
    return file


@cache  # one model is read back from several forms
def keras_outputs(model, height, width):
    images = np.random.default_rng(3).random((2, height, width, 3), np.float32)
    return images, np.asarray(model.predict(images * 2 - 1, verbose=0)).reshape(2, -1)


def same_outputs(model, module, output):
    images, theirs = keras_outputs(model, *module.config.image_size)
    ours = Engine(module, [output], precision="f32").run(images)[output].reshape(2, -1)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())  # two float32 sums in another order


@pytest.fixture(scope="module")
def models():
    make = {"mobilenet_v1": keras.applications.MobileNet, "mobilenet_v2": keras.applications.MobileNetV2}
    cases = [("mobilenet_v1", 0.25, 96, True), ("mobilenet_v1", 0.5, 64, False), ("mobilenet_v2", 0.35, 96, True)]
    cases.append(("mobilenet_v2", 0.5, 97, False))  # an odd size: correct_pad pads as SAME of it
    found = {}
    for name, alpha, size, top in cases:
        head = {"classifier_activation": None} if top else {"pooling": "avg"}
        model = make[name](weights=None, alpha=alpha, input_shape=(size, size, 3), include_top=top, **head)
        found[name, alpha, size, top] = randomized(model)
    return found


@pytest.fixture(scope="module")
def contents(models, tmp_path_factory):
    """The bytes of one model in every form."""
    folder = tmp_path_factory.mktemp("forms")
    return {form: saved(models["mobilenet_v1", 0.25, 96, True], folder, form).read_bytes() for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", range(4))
def test_the_same_outputs_as_keras(models, tmp_path, at, form):
    (name, alpha, size, top), model = list(models.items())[at]
    file = saved(model, tmp_path, form)
    module = load_source(file, image_size=size)
    config = module.config
    assert (config.architecture, config.depth_multiplier) == (name, alpha)
    assert config.num_classes == (1000 if top else 0)
    assert config.labels == (imagenet_labels_1000() if top else None)
    assert config.variant.padding == ("bottom_right" if name == "mobilenet_v1" else "same")
    same_outputs(model, module, "logits" if top else "features")


def test_the_size_is_asked_for_where_weights_are_alone(models, tmp_path):
    model = models["mobilenet_v1", 0.25, 96, True]
    with pytest.raises(MobileNetHubError, match="image_size="):
        load_source(saved(model, tmp_path, ".weights.h5"))
    assert load_source(saved(model, tmp_path, ".keras")).config.image_size == (96, 96)
    shutil.copy(tmp_path / "net.weights.h5", tmp_path / "mobilenet_2_5_128_tf_no_top.h5")
    assert load_source(tmp_path / "mobilenet_2_5_128_tf_no_top.h5").config.image_size == (128, 128)
    with pytest.raises(InvalidModuleError, match="odd sizes"):
        load_source(tmp_path / "net.weights.h5", image_size=97)


def test_an_unpacked_file_is_read_by_any_of_its_parts(models, tmp_path):
    """Its config.json is called as that of a Hugging Face model is."""
    with zipfile.ZipFile(saved(models["mobilenet_v1", 0.25, 96, True], tmp_path, ".keras")) as archive:
        archive.extractall(tmp_path / "net")
    for path in (tmp_path / "net", tmp_path / "net" / "config.json", tmp_path / "net" / "model.weights.h5"):
        assert load_source(path).config.image_size == (96, 96)


@pytest.mark.parametrize("form", [".keras", ".weights.h5"])
def test_a_model_with_another_head(models, tmp_path, form):
    backbone = models["mobilenet_v2", 0.35, 96, True]
    features = keras.Model(backbone.input, backbone.get_layer("out_relu").output)
    head = [keras.layers.Dropout(0.2), keras.layers.Dense(4, activation="softmax")]
    model = keras.Sequential([features, keras.layers.GlobalAveragePooling2D(), *head])
    module = load_source(saved(model, tmp_path, form), image_size=96)
    assert (module.config.num_classes, module.config.variant.hidden_units) == (4, ())
    model.layers[-1].activation = keras.activations.linear
    same_outputs(model, module, "logits")


def test_bfloat16_is_widened_and_quantized_layers_are_refused(models, tmp_path):
    backbone = models["mobilenet_v1", 0.5, 64, False]
    model = keras.Sequential([backbone, keras.layers.Dense(4, dtype="bfloat16")])
    module = load_source(saved(model, tmp_path, ".keras"))
    kernel, bias = (np.asarray(keras.ops.cast(one, "float32")) for one in model.layers[-1].weights)
    scope = "MobilenetV1/Logits/Conv2d_1c_1x1"
    np.testing.assert_array_equal(module.weights[f"{scope}/weights"][0, 0], kernel)
    np.testing.assert_array_equal(module.weights[f"{scope}/biases"], bias)
    with pytest.raises(InvalidModuleError, match="as bfloat16 is; save it as float32"):
        load_source(saved(model, tmp_path, ".h5"))
    model = keras.Sequential([backbone, keras.layers.Dense(4)])
    model.layers[-1].quantize("int8")
    for form, words in (
        (".keras", "is quantized"),
        (".weights.h5", "as of a quantized layer"),
        (".h5", "kernel_scale"),
    ):
        with pytest.raises(InvalidModuleError, match=words):
            load_source(saved(model, tmp_path, form), image_size=64)


def test_a_hidden_layer(models, tmp_path):
    backbone = models["mobilenet_v2", 0.5, 97, False]
    head = [keras.layers.Dense(7, activation="relu"), keras.layers.Dense(2, use_bias=False)]
    model = keras.Sequential([backbone, *head])
    module = load_source(saved(model, tmp_path, ".h5"))
    assert (module.config.num_classes, module.config.variant.hidden_units) == (2, (7,))
    same_outputs(model, module, "logits")


def changed(file, change):
    """Rewrite the configuration inside a .keras file."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {**parts, "config.json": json.dumps(config)}.items():
            archive.writestr(name, data)
    return file


def layer(config, name):
    return next(one["config"] for one in config["config"]["layers"] if one["config"]["name"] == name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: layer(c, "Conv1").update(strides=[1, 1]), r"Conv1 has the stride \[1, 1\]"),
        (lambda c: layer(c, "Conv1").update(activation="relu"), "Conv1/relu is relu"),
        (lambda c: layer(c, "Conv1_relu").update(max_value=None), "Conv1_relu is relu"),
        (lambda c: layer(c, "bn_Conv1").update(epsilon=1e-5), "different epsilons"),
        (lambda c: layer(c, "block_1_pad").update(padding=[[2, 2], [2, 2]]), "pads images of 96x96 in a way"),
        (lambda c: layer(c, "block_1_pad").update(padding="x"), "padding of block_1_pad"),
        (lambda c: layer(c, "predictions").update(activation="sigmoid"), "1000 classes are independent"),
        (lambda c: c["config"]["layers"].pop(-3), r"\w"),
        (lambda c: c["config"]["layers"].insert(1, {"class_name": "Rot90", "config": {}}), "Rot90"),
        (lambda c: c.update(config=None), "has no list of layers"),
        (lambda c: c["config"]["layers"].clear(), "none of its layers"),
    ],
)
def test_what_computes_otherwise_is_refused(models, tmp_path, change, words):
    file = changed(saved(models["mobilenet_v2", 0.35, 96, True], tmp_path, ".keras"), change)
    with pytest.raises(InvalidModuleError, match=words):
        load_source(file)


def test_another_epsilon_is_recorded(models, tmp_path):
    def change(config):
        for one in config["config"]["layers"]:
            if one["class_name"] == "BatchNormalization":
                one["config"]["epsilon"] = 1e-5

    file = changed(saved(models["mobilenet_v2", 0.35, 96, True], tmp_path, ".keras"), change)
    assert load_source(file).config.variant.batch_norm_epsilon == 1e-5


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_unharmed(contents, tmp_path_factory, data):
    """HDF5 has no checksums: a flipped byte may hit one number, or nothing that is used."""
    form = data.draw(st.sampled_from(FORMS))
    content = bytearray(contents[form])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, 20_000))] ^= data.draw(st.integers(1, 255))
    file = tmp_path_factory.mktemp("damaged") / f"damaged{form}"
    file.write_bytes(content)
    try:
        load_source(file, image_size=96)
    except MobileNetHubError as error:
        assert "damaged" in str(error)


def test_links_out_of_the_file_and_lies_are_refused(models, tmp_path):
    file = saved(models["mobilenet_v1", 0.25, 96, True], tmp_path, ".weights.h5")
    shutil.copy(file, tmp_path / "other.h5")
    with h5py.File(file, "r+") as root:
        del root["layers/conv2d/vars/0"]
        root["layers/conv2d/vars/0"] = h5py.ExternalLink("other.h5", "layers/conv2d/vars/0")
    with pytest.raises(CorruptFileError, match="link to elsewhere"):
        load_source(file, image_size=96)
    with h5py.File(file, "r+") as root:
        del root["layers/conv2d/vars/0"]
        root.create_dataset("layers/conv2d/vars/0", (3, 3, 3, 2**40), "f4", chunks=(3, 3, 3, 8))
    with pytest.raises(CorruptFileError, match="bytes that the file does not have"):
        load_source(file, image_size=96)


def test_garbage_is_refused(tmp_path):
    for name in ("x.keras", "x.h5", "x.weights.h5"):
        (tmp_path / name).write_bytes(b"PK\3\4 garbage")
        with pytest.raises(CorruptFileError, match=name):
            load_source(tmp_path / name)


def test_without_h5py_the_extra_is_named(contents, tmp_path, monkeypatch):
    (tmp_path / "x.h5").write_bytes(contents[".h5"])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mobilenet-hub\[keras-files\]'"):
        load_source(tmp_path / "x.h5")


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_the_files_that_keras_applications_downloads(tmp_path, name):
    """Weights alone, in the format and with the layers' names of 2018: only their order says what is what."""
    network = architecture(name, 0.5, 1000)
    weights = some_weights(network)
    v2_name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.5_160.h5"
    file = tmp_path / ("mobilenet_5_0_160_tf.h5" if name == "mobilenet_v1" else v2_name)
    layers = {}
    for at, unit in enumerate(network.units):
        kernel = "depthwise_kernel" if unit.depthwise else "kernel"
        layers[f"mobl{at}_conv_{at}"] = {kernel: weights[unit.kernel.name]}
        leaves = {leaf: weights[f"{unit.scope}/BatchNorm/{leaf}"] for leaf in BATCH_NORM_LEAVES}
        layers[f"bn{at}_conv_{at}"] = leaves
    kernel, bias = (weights[one.name] for one in network.classifier)
    layers["preds"] = {"kernel": kernel if name == "mobilenet_v1" else kernel[0, 0], "bias": bias}
    with h5py.File(file, "w") as root:
        root.attrs["layer_names"] = [layer.encode() for layer in ("input_1", *layers)]
        root.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for layer, arrays in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{leaf}:0".encode() for leaf in arrays]
            for leaf, array in arrays.items():
                group[f"{layer}/{leaf}:0"] = array
    module = load_source(file)
    assert (module.config.depth_multiplier, module.config.image_size) == (0.5, (160, 160))
    assert module.config.labels == imagenet_labels_1000()
    for key, array in weights.items():
        np.testing.assert_array_equal(module.weights[key], array, err_msg=key)
