"""Public code on our hub beside the same code on tensorflow_hub: tests/public_code.py has the cases."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from public_code import CASES, CLASSES, FEATURES, FIXTURES, LARGE, OF_TENSORFLOW, SMALL, fill_cache
from test_hub_keras_layer import assert_close, numpy

pytestmark = pytest.mark.keras_backend


@pytest.fixture(scope="module")
def originals(tmp_path_factory, shared):
    """The cache with the modules, and what the unmodified tensorflow_hub gives for every case.

    That takes a minute and never changes: it is kept beside pytest's own folders, for the other backends' runs.
    """
    packages = ("tensorflow", "tensorflow_hub", "tf_keras")
    versions = [pytest.importorskip(package).__version__ for package in packages]
    cache = tmp_path_factory.mktemp("public") / "cache"
    fill_cache(cache, shared(f"fixtures/{FIXTURES[CLASSES]}").parent)
    script = Path(__file__).with_name("public_code.py")
    key = hashlib.sha256(script.read_bytes() + repr(versions).encode()).hexdigest()[:16]
    base = tmp_path_factory.getbasetemp()
    kept = next((one for one in base.parents if one.name.startswith("pytest-of-")), base) / f"public-code-{key}.npz"
    if not kept.exists():
        made = base / f"{os.getpid()}.npz"
        environment = {**os.environ, "TFHUB_CACHE_DIR": str(cache)}
        subprocess.run([sys.executable, script, made], check=True, env=environment, timeout=600, capture_output=True)
        made.replace(kept)
    with np.load(kept) as arrays:
        return cache, dict(arrays)


@pytest.fixture
def hub(originals, monkeypatch):
    import mobilenet_hub

    monkeypatch.setenv("TFHUB_CACHE_DIR", str(originals[0]))
    return mobilenet_hub


@pytest.mark.filterwarnings("ignore")  # Keras's and TensorFlow's, of old spellings
@pytest.mark.parametrize("name", [*CASES, *OF_TENSORFLOW])
def test_public_code_gives_what_it_gave(hub, originals, name):
    """Features of golden weights are up to 6, and heads of ones add 1280 of them up: relative to the greatest."""
    import keras

    if name in OF_TENSORFLOW and keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's")
    got = (CASES | OF_TENSORFLOW)[name](hub, keras)
    want = {key.split("/", 1)[1]: array for key, array in originals[1].items() if key.startswith(f"{name}/")}
    assert got.keys() == want.keys()
    for key, array in want.items():
        assert_close(np.asarray(got[key], np.float32), array, 1e-3)


def test_a_loaded_module_is_fine_tuned_and_saved_again(hub, tmp_path):
    """As TensorFlow's guide of SavedModels from TF Hub has it; tensorflow_hub itself loads what was saved."""
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's")
    import tensorflow as tf
    import tensorflow_hub

    module = hub.load(CLASSES)
    model = keras.Sequential([hub.KerasLayer(module, trainable=True), keras.layers.Dense(2)])
    model.build([None, 128, 128, 3])
    model.compile("sgd", keras.losses.MeanSquaredError())
    before = numpy(module(LARGE))
    model.fit(LARGE, np.ones((2, 2)), verbose=0)
    model.layers[0].trainable = False  # what is saved can be trained all the same
    tf.saved_model.save(module, str(tmp_path / "saved"))
    assert not module.network.trainable
    after = numpy(module(LARGE))
    assert np.abs(after - before).max() > 1e-3
    original, ours = tensorflow_hub.load(str(tmp_path / "saved")), hub.load(tmp_path / "saved")
    assert_close(original(LARGE).numpy(), after)
    assert_close(numpy(ours(LARGE)), after)
    assert_close(original.signatures["serving_default"](tf.constant(LARGE))["logits"].numpy(), after)
    assert len(original.variables) == len(module.variables)
    assert len(original.trainable_variables) == len(module.trainable_variables)
    assert_close(sum(loss().numpy() for loss in original.regularization_losses), sum(map(float, losses(module))))
    mean = next(one for one in original.variables if "moving_mean" in one.name)
    old = mean.numpy()
    original(LARGE, training=True, batch_norm_momentum=0.5)
    assert np.abs(mean.numpy() - old).max() > 0
    again = numpy(module(LARGE))
    assert_close(again, after)  # its own variables are others


def losses(module):
    return [numpy(loss()) for loss in module.regularization_losses]


def test_images_of_another_size_are_refused_where_the_graph_does_not_know_it(hub):
    """A network of fixed size would take them, and give something else than the original, which refused them."""
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's")
    import tensorflow as tf

    layer = hub.KerasLayer(FEATURES)
    function = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 3])])
    assert_close(function(tf.constant(SMALL)), layer(SMALL))
    with pytest.raises(tf.errors.InvalidArgumentError, match="96,96"):
        function(tf.zeros((1, 128, 128, 3)))
