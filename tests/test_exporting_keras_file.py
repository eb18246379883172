""".keras files load with plain Keras after `import mobilenet_hub`, on any backend, and can be trained further."""

import subprocess
import sys

import numpy as np
import pytest
from exported import HANDLES, MAX_DIFFERENCE, V1_CLASSES, V2_CLASSES, made_module
from reference_network import forward

from mobilenet_hub.exporting import export

pytestmark = pytest.mark.keras_backend


@pytest.mark.parametrize("handle", HANDLES)
def test_it_follows_the_definition_at_any_size(handle, tmp_path):
    import keras

    module = made_module(handle)
    proof = export(module, "keras", tmp_path / "net.keras")
    assert proof.difference <= proof.tolerance
    assert len(proof.sizes) == 2
    model = keras.saving.load_model(tmp_path / "net.keras")
    images = np.random.default_rng(0).random((1, 65, 96, 3), np.float32)
    name = "logits" if module.config.num_classes else "features"
    expected = forward(module.config.network, module.weights, images)[name]
    value = keras.ops.convert_to_numpy(model(images))
    assert np.abs(value - expected).max() <= MAX_DIFFERENCE * max(1, np.abs(expected).max())
    slim = model.slim_weights()
    assert all(slim[key].tobytes() == array.tobytes() for key, array in module.weights.items())


def test_features_of_a_classifier(tmp_path):
    import keras

    export(made_module(V2_CLASSES), "keras", tmp_path / "net", outputs="features")
    model = keras.saving.load_model(tmp_path / "net" / "model.keras")
    assert tuple(model(np.zeros((1, 96, 96, 3), np.float32)).shape) == (1, 1280)


@pytest.mark.slow
def test_plain_keras_loads_it_in_a_new_process(tmp_path):
    export(made_module(V1_CLASSES), "keras", tmp_path / "net.keras")
    code = (
        "import mobilenet_hub, keras, numpy\n"
        f"model = keras.saving.load_model({str(tmp_path / 'net.keras')!r})\n"
        "print(model.predict(numpy.zeros((2, 128, 128, 3), 'float32'), verbose=0).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "(2, 1001)"
