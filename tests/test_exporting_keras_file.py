""".keras files load with plain Keras after `import mobilenet_hub`, on any backend, and can be trained further."""

import subprocess
import sys

import numpy as np
import pytest
from exported import HANDLES, MAX_DIFFERENCE, V1_CLASSES, V1_FEATURES, V2_CLASSES, made_module
from reference_network import forward

from mobilenet_hub.errors import InputError
from mobilenet_hub.exporting.export import export
from mobilenet_hub.module_folder import read_module, write_module

backend = pytest.mark.keras_backend
ONCE = (V1_FEATURES, V2_CLASSES)  # with the default backend only


@pytest.mark.parametrize("handle", [pytest.param(h, marks=() if h in ONCE else backend) for h in HANDLES])
def test_it_follows_the_definition_at_any_size(handle, tmp_path):
    keras = pytest.importorskip("keras")

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
    keras = pytest.importorskip("keras")

    export(made_module(V2_CLASSES), "keras", tmp_path / "net", outputs="features")
    model = keras.saving.load_model(tmp_path / "net" / "model.keras")
    assert tuple(model(np.zeros((1, 96, 96, 3), np.float32)).shape) == (1, 1280)


@backend
def test_a_fine_tuned_layer_is_exported_as_it_is_now(tmp_path):
    import keras

    import mobilenet_hub as hub

    made = made_module(V1_FEATURES)
    layer = hub.KerasLayer(write_module(tmp_path / "module", made), trainable=True)
    model = keras.Sequential([layer, keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((2, 64, 64, 3), np.float32), np.ones((2, 2), np.float32), verbose=0)
    hub.export(layer, "safetensors", tmp_path / "tuned")
    tuned = read_module(tmp_path / "tuned").weights
    for name, variable in layer.variable_map.items():
        assert (tuned[name] == keras.ops.convert_to_numpy(variable)).all()
    mean = "MobilenetV1/Conv2d_0/BatchNorm/moving_mean"
    assert (tuned[mean] != made.weights[mean]).any()


def test_what_is_no_module_is_refused(tmp_path):
    with pytest.raises(InputError, match="not int"):
        export(5, "safetensors", tmp_path / "net")


@pytest.mark.slow
def test_plain_keras_loads_it_in_a_new_process(tmp_path):
    pytest.importorskip("keras")
    export(made_module(V1_CLASSES), "keras", tmp_path / "net.keras")
    code = (
        "import mobilenet_hub, keras, numpy\n"
        f"model = keras.saving.load_model({str(tmp_path / 'net.keras')!r})\n"
        "print(model.predict(numpy.zeros((2, 128, 128, 3), 'float32'), verbose=0).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "(2, 1001)"
