"""Saved models of tensorflow_hub's own layer, made by it and tf_keras, load as they are on the backend that is set.

The files are made in a process of its own (stock_old_models.py), from SavedModels whose variables stand in each order
that published modules had; the answers beside them are the original's.
"""

import warnings

import numpy as np
import pytest
from tensorflow_files import some_weights

from mobilenet_hub.errors import InvalidModuleError, ModuleUnavailableError

pytestmark = [pytest.mark.keras_backend, pytest.mark.slow]

NAMES = ("frozen", "frozen by name", "tuned", "classes", "several", "own folder", "nameless")
RTOL = 5e-3  # relative to the largest answer: 52 layers of random weights amplify rounding, on JAX to 0.002
SEEDS = {"frozen": 0, "frozen by name": 1, "classes": 2, "own folder": 6, "nameless": 7}  # of weights nobody trained


@pytest.fixture(scope="module")
def folder(old_hub_models):
    return old_hub_models


@pytest.fixture
def hub():
    import mobilenet_hub

    return mobilenet_hub


def answer(model, folder):
    _, height, width, _ = model.input_shape
    return model.predict(np.load(folder / "images.npy")[:, :height, :width], verbose=0)


def assert_right(model, folder, name):
    with np.load(folder / "answers.npz") as answers:
        want = answers[name]
    assert np.abs(answer(model, folder) - want).max() <= RTOL * np.abs(want).max()


def from_json(folder, name, hub):
    import keras

    text = (folder / f"{name}.json").read_text()
    return keras.models.model_from_json(text, custom_objects={"KerasLayer": hub.KerasLayer})


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_model_loads(hub, folder, name, suffix):
    import keras

    file = folder / f"{name}.{suffix}"
    if not file.exists():
        pytest.skip("tf_keras cannot write it: two variables of one name")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = keras.models.load_model(file, custom_objects={"KerasLayer": hub.KerasLayer})
    assert_right(model, folder, name)
    if name in SEEDS:
        layer = next(one for one in model.layers if isinstance(one, hub.KerasLayer))
        for variable, array in some_weights(layer.contract.config.network, SEEDS[name]).items():
            assert (keras.ops.convert_to_numpy(layer.variable_map[variable]) == array).all(), variable
    # Keras 3 cannot read the losses and optimizers of Keras 2; then the model is loaded all the same, and says so.
    said = [str(one.message) for one in caught if "model.compile" in str(one.message)]
    assert len(said) == (name in ("tuned", "several"))


@pytest.mark.parametrize("suffix", [".weights.h5", "_weights.h5"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "own folder"])
def test_weights_load_into_the_model_of_the_json(hub, folder, name, suffix):
    file = folder / f"{name}{suffix}"
    if not file.exists():
        pytest.skip("tf_keras cannot write it: two variables of one name")
    model = from_json(folder, name, hub)
    layer = next(one for one in model.layers if isinstance(one, hub.KerasLayer))
    with pytest.raises(ModuleUnavailableError, match="not on this machine"):
        layer(np.load(folder / "images.npy")[:, : model.input_shape[1], : model.input_shape[2]])
    model.load_weights(file)
    assert_right(model, folder, name)


def test_a_json_that_names_a_folder_of_another_machine_says_so(hub, folder):
    with pytest.raises(ModuleUnavailableError, match="does not exist"):
        from_json(folder, "own folder", hub)


def test_weights_load_into_a_model_that_holds_the_layer_in_another(hub, folder):
    """Keras 3 cannot read Keras 2's configuration of nested models; their weights it can."""
    import keras

    handle = "https://tfhub.dev/google/imagenet/mobilenet_v2_035_96/feature_vector/4"
    config = {"handle": handle, "trainable": False, "name": "keras_layer"}
    inputs = keras.Input((96, 96, 3))
    inner = keras.Model(inputs, keras.layers.Dense(4)(hub.KerasLayer.from_config(config)(inputs)))
    inputs = keras.Input((96, 96, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    for file in ("nested_weights.h5", "nested.h5"):
        for variable in model.weights:
            variable.assign(np.zeros(variable.shape))
        model.load_weights(folder / file)
        assert_right(model, folder, "nested")


def test_what_was_loaded_saves_and_loads_again_as_ours(hub, folder, tmp_path):
    import keras

    options = {"custom_objects": {"KerasLayer": hub.KerasLayer}, "compile": False}
    model = keras.models.load_model(folder / "several.keras", **options)
    for name in ("again.keras", "again.h5"):
        model.save(tmp_path / name)
        assert_right(keras.models.load_model(tmp_path / name), folder, "several")
    model.save_weights(tmp_path / "again.weights.h5")
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    model.load_weights(tmp_path / "again.weights.h5")
    assert_right(model, folder, "several")


def test_the_weights_of_another_network_are_refused(hub, folder):
    model = from_json(folder, "frozen", hub)
    with pytest.raises((InvalidModuleError, ValueError), match=r"MobilenetV[12]|variables|Layer count|mismatch"):
        model.load_weights(folder / "tuned_weights.h5")
    with pytest.raises(ValueError):
        model.load_weights(folder / "tuned.weights.h5")
