"""Every head that people build on keras.applications' networks, by Keras 3 and tf_keras, in every format they write.

Equal within 1e-4 of the probabilities (float32 sums in another order), or refused with the true reason.
"""

import warnings

import numpy as np
import pytest
from keras_heads import BEHIND, PIXELS, SIZE, body, given, nested, preprocess, shaken
from keras_matrix import CASES, FORMATS, compare, part
from reference_network import forward

from mobilenet_hub.weights.convert import load_source

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
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


def check(model, path, images, logits=False):
    module = load_source(path)
    found, wanted = forward(module.config.network, module.weights, IMAGES), says(model, images)
    if not module.config.num_classes:
        return np.testing.assert_allclose(found["features"], wanted, atol=1e-4)
    ours = found["logits"] if logits else found["Predictions"]
    if wanted.shape[1] == 1:
        ours = ours[:, 1:] - (ours[:, :1] if logits else 0)
    return np.testing.assert_allclose(ours, wanted, atol=1e-4)


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


def test_a_saved_model_of_keras_2(tmp_path):
    keras = pytest.importorskip("tf_keras")
    model = shaken(nested(keras, body(keras, 1), [preprocess(keras, 1)], BEHIND["norm_between"](keras)))
    model.save(tmp_path / "model", save_format="tf")
    check(model, tmp_path / "model", given(IMAGES, PIXELS))
