"""Every head that people build on keras.applications' networks, by Keras 3 and tf_keras, in every format they write.

Equal within 1e-4 of the probabilities (float32 sums in another order), or refused with the true reason.
"""

import warnings

import numpy as np
import pytest
from keras_heads import BEFORE, BEHIND, FORMS, PIXELS, REFUSED, SIZE, body, given, nested, preprocess, shaken
from reference_network import forward

from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.convert import load_source

pytestmark = [pytest.mark.keras_backend, pytest.mark.filterwarnings("ignore")]
IMAGES = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
LIBRARIES = ("keras", "tf_keras")
SAVED = {"keras": (".keras", ".h5"), "tf_keras": (".keras", ".h5")}


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(request.param)


@pytest.fixture(scope="module")
def bodies(library):
    return {version: body(library, version) for version in (1, 2)}


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
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", BEHIND)
def test_heads(library, bodies, version, name, tmp_path):
    before = [preprocess(library, version)]
    model = shaken(nested(library, bodies[version], before, BEHIND[name](library)))
    for path in saved(library, model, tmp_path):
        check(model, path, given(IMAGES, PIXELS), logits="logit" in name)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BEFORE)
def test_what_comes_before(library, bodies, name, form, tmp_path):
    before, how = BEFORE[name]
    if (form == "flat" and name != "nothing") or (form == "sequential" and name == "preprocess"):
        pytest.skip("cannot be built so")
    made = FORMS[form](library, bodies[1], before(library, 1), BEHIND["hidden"](library))
    made.build((None, SIZE, SIZE, 3))
    model = shaken(made)
    for path in saved(library, model, tmp_path):
        check(model, path, given(IMAGES, how))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REFUSED if name != "convolution"])  # its map is too small
def test_other_heads_are_refused_with_the_reason(library, bodies, name, tmp_path):
    behind, words = REFUSED[name]
    model = nested(library, bodies[1], [], behind(library))
    for path in saved(library, model, tmp_path):
        with pytest.raises(InvalidModuleError, match=words):
            load_source(path)


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
