"""Every head that people build on keras.applications' networks, by Keras 3 and tf_keras, in every format they write.

Equal within 1e-4 of the probabilities (float32 sums in another order), or refused with the true reason.
"""

import json
import warnings

import numpy as np
import pytest
from keras_heads import BEHIND, PIXELS, SIZE, body, given, nested, preprocess, shaken
from keras_matrix import CASES, FORMATS, IMAGES, answers, compare, part
from reference_network import forward

from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.module_folder import write_module
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.identify import ASSUMED

pytestmark = pytest.mark.filterwarnings("ignore")
PART = list(part())
LIBRARIES = ("keras", "tf_keras")
SAVED = {"keras": (".keras", ".h5"), "tf_keras": (".keras", ".h5")}


def writer(name):
    """Return a library that writes every format: Keras 3 on TensorFlow, or tf_keras. What is read has no backend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("tensorflow")
        library = pytest.importorskip(name)
    if library.backend.backend() != "tensorflow":
        pytest.skip("only on TensorFlow Keras writes all that is read here")
    return library


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request):
    return writer(request.param)


def saved(library, model, folder):
    for ending in SAVED[library.__name__]:
        path = folder / f"model{ending}"
        model.save(path)
        yield path


def says(model, images):
    return np.asarray(model.predict(images, verbose=0))


def check(model, path, images):
    wanted = says(model, images)
    np.testing.assert_allclose(answers(load_source(path), wanted.shape[1]), wanted, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "version", "head", "forms"), PART, ids=[" ".join(map(str, one[:3])) for one in PART])
def test_heads_in_every_format(name, version, head, forms, tmp_path):
    model = CASES[head].make(writer(name), version)
    for form in forms:
        compare(model, FORMATS[name][form](model, tmp_path), head)


def test_the_part_of_the_matrix_has_every_kind():
    assert {head for _, _, head, _ in PART} == set(CASES)
    assert {(name, form) for name, _, _, forms in PART for form in forms} == {
        (name, form) for name, forms in FORMATS.items() for form in forms
    }
    assert {(name, version) for name, version, _, _ in PART} == {(name, at) for name in LIBRARIES for at in (1, 2)}


def test_weights_of_partly_frozen_models_belong_to_the_layers_of_their_names(library, tmp_path):
    network = body(library, 2)
    network.trainable = True
    for layer in network.layers[:40:3]:
        layer.trainable = False
    model = shaken(nested(library, network, [], BEHIND["softmax"](library)))
    for path in saved(library, model, tmp_path):
        check(model, path, given(IMAGES, "[-1, 1]"))


def edited(file, change):
    """Change a model's configuration in its .h5."""
    import h5py

    with h5py.File(file, "r+") as root:
        config = json.loads(root.attrs["model_config"])
        change(config)
        root.attrs["model_config"] = json.dumps(config)
    return file


def as_of_tensorflow_2_0(config):
    """Write arithmetic on tensors as TensorFlow 2.0 to 2.3 did, and batch norm as TensorFlow 1.13."""
    operations = {"math.truediv": "RealDiv", "math.subtract": "Sub"}
    for entry in layers_of(config):
        if entry["class_name"] == "BatchNormalization":
            entry["class_name"] = "BatchNormalizationV1"
        if entry["class_name"] == "TFOpLambda":
            ((source, node, tensor, given),) = entry["inbound_nodes"]
            name = entry["name"].rpartition(".")[2]
            definition = {"name": name, "op": operations[entry["config"]["function"]], "input": ["x", "y"]}
            definition["attr"] = {"T": {"type": "DT_FLOAT"}}
            entry["class_name"] = "TensorFlowOpLayer"
            entry["config"] = {"name": name, "node_def": definition, "constants": {"1": given["y"]}}
            entry["inbound_nodes"] = [[[source, node, tensor, {}]]]


def layers_of(config):
    for entry in config["config"]["layers"]:
        yield entry
        if entry["class_name"] in ("Functional", "Sequential", "Model"):
            yield from layers_of(entry)


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_tensorflow_2_0(tmp_path):
    keras = writer("tf_keras")
    from tf_keras.src.engine.base_layer import TensorFlowOpLayer

    model = shaken(nested(keras, body(keras, 2), [preprocess(keras, 2)], BEHIND["softmax"](keras)))
    model.save(tmp_path / "model.h5")
    edited(tmp_path / "model.h5", as_of_tensorflow_2_0)
    loaded = keras.models.load_model(  # Keras 2 still reads it
        tmp_path / "model.h5",
        custom_objects={
            "TensorFlowOpLayer": TensorFlowOpLayer,
            "BatchNormalizationV1": keras.layers.BatchNormalization,
        },
    )
    check(loaded, tmp_path / "model.h5", given(IMAGES, PIXELS))


NORMALIZED = {"mean": 127.5, "variance": 127.5**2}


@pytest.mark.parametrize("adapted", [False, True])
def test_a_normalization_of_all_colours_alike(library, tmp_path, adapted):
    layer = library.layers.Normalization(**({"axis": None} if adapted else NORMALIZED))
    if adapted:
        layer.adapt(given(IMAGES, PIXELS))
    model = library.Sequential([library.Input((SIZE, SIZE, 3)), layer, body(library, 2), *BEHIND["softmax"](library)])
    for path in saved(library, shaken(model), tmp_path):
        check(model, path, given(IMAGES, PIXELS))


def test_a_normalization_of_each_colour_is_refused(library, tmp_path):
    layer = library.layers.Normalization(mean=[123.7, 116.3, 103.5], variance=[3410.0, 3260.0, 3294.0])
    model = library.Sequential([library.Input((SIZE, SIZE, 3)), layer, body(library, 2), *BEHIND["softmax"](library)])
    for path in saved(library, model, tmp_path):
        with pytest.raises(InvalidModuleError, match="scales the colours of its images differently"):
            load_source(path)


def test_numbers_cast_and_softmax_by_tensorflows_name(library, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    images = library.Input((SIZE, SIZE, 3), dtype="uint8")
    cast = library.ops.cast if library.__name__ == "keras" else tensorflow.cast
    x = preprocess(library, 2)(cast(images, "float32"))
    x = library.layers.GlobalAveragePooling2D()(body(library, 2)(x))
    model = shaken(library.Model(images, library.layers.Dense(4, activation=tensorflow.nn.softmax)(x)))
    pixels = np.round(IMAGES * 255)
    for path in saved(library, model, tmp_path):
        module = load_source(path)
        found = forward(module.config.network, module.weights, pixels / np.float32(255))["Predictions"]
        np.testing.assert_allclose(found, says(model, pixels.astype(np.uint8)), atol=1e-4)


@pytest.mark.parametrize("name", ["LayerNormalization", "PReLU"])
def test_weights_of_a_layer_that_no_network_has_are_not_left_out(tmp_path, name):
    keras = writer("keras")
    extra = getattr(keras.layers, name)()
    model = keras.Sequential([body(keras, 2), keras.layers.GlobalAveragePooling2D(), extra, keras.layers.Dense(4)])
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(InvalidModuleError, match="which no network of keras"):
        load_source(tmp_path / "model.weights.h5", image_size=SIZE)


def test_what_weights_alone_leave_open_is_in_the_module(tmp_path):
    keras = writer("keras")
    network = keras.Sequential([body(keras, 2), keras.layers.GlobalAveragePooling2D()])
    network.save_weights(tmp_path / "model.weights.h5")
    network.save(tmp_path / "model.keras")
    alone, whole = load_source(tmp_path / "model.weights.h5", image_size=SIZE), load_source(tmp_path / "model.keras")
    assert ["weights only" in text for text in alone.config.extra[ASSUMED]] == [True, False]
    assert ["pixels / 127.5 - 1" in text for text in whole.config.extra[ASSUMED]] == [True]
    write_module(tmp_path / "module", alone)
    assert load_source(tmp_path / "module").config.extra == alone.config.extra


def test_a_checkpoint_of_keras_2_is_refused_with_what_to_do(tmp_path):
    keras = writer("tf_keras")
    body(keras, 2).save_weights(str(tmp_path / "cp.ckpt"))
    with pytest.raises(InvalidModuleError, match="save the whole model"):
        load_source(tmp_path)


def test_a_saved_model_of_keras_2(tmp_path):
    keras = pytest.importorskip("tf_keras")
    model = shaken(nested(keras, body(keras, 1), [preprocess(keras, 1)], BEHIND["norm_between"](keras)))
    model.save(tmp_path / "model", save_format="tf")
    check(model, tmp_path / "model", given(IMAGES, PIXELS))
