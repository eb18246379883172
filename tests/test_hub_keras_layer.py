"""hub.KerasLayer on the backend that is set: every way to use it, the bugs that its forerunner had, bad input."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mobilenet_hub.errors import InputError, ModuleUnavailableError

pytestmark = pytest.mark.keras_backend

V1 = "https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/feature_vector/5"
V1_CLASSES = "https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/classification/5"
V2 = "https://tfhub.dev/google/imagenet/mobilenet_v2_035_96/feature_vector/4"
RTOL = 1e-4  # between independent float32 implementations, relative to the largest value


def numpy(tensor) -> np.ndarray:
    return np.asarray(tensor.detach() if hasattr(tensor, "detach") else tensor)


def assert_close(got, want, rtol=RTOL):
    got, want = numpy(got), numpy(want)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= rtol * np.abs(want).max()


def values(layer) -> dict[str, np.ndarray]:
    return {name: numpy(variable.value).copy() for name, variable in layer.variable_map.items()}


def photos(n=8, size=32, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, size, size, 3), np.float32)


def classifier(layer, classes=3, **compile_options):
    import keras

    model = keras.Sequential([layer, keras.layers.Dense(classes, activation="softmax")])
    model.build([None, 32, 32, 3])
    model.compile("sgd", "sparse_categorical_crossentropy", **compile_options)
    return model


@pytest.fixture
def hub():
    import mobilenet_hub

    return mobilenet_hub


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "mixed_bfloat16"])
def test_any_dtype_policy(hub, golden_module, published, dtype, golden):
    if dtype == "float64" and keras_backend() == "jax":
        pytest.skip("JAX has no float64 unless it is told to")
    layer = hub.KerasLayer(golden_module(V1), trainable=True, dtype=dtype)
    moving = [variable for name, variable in layer.variable_map.items() if "moving" in name]
    assert {variable.dtype for variable in moving} == {"float32"}
    features = layer(golden.golden_images(2, 128, 128), training=False)
    want = published["mobilenet_v1_025_128/features"]
    assert_close(keras_float32(features), want, {"float64": RTOL, "float16": 0.02}.get(dtype, 0.1))
    layer(golden.golden_images(2, 128, 128), training=True)


def keras_backend():
    from keras import backend

    return backend.backend()


def keras_float32(tensor):
    from keras import ops

    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def test_the_configuration_of_the_original_layer(hub, golden_module, golden, published):
    handle = golden_module("https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/feature_vector/3")
    config = {"handle": handle, "trainable": False, "tags": "train", "name": "old"}
    layer = hub.KerasLayer.from_config(config)
    again = hub.KerasLayer.from_config(layer.get_config())
    assert again.tags == ["train"]
    assert_close(again(golden.golden_images(2, 128, 128)), published["mobilenet_v1_025_128/features"])


def test_declared_shapes(hub, golden_module):
    endpoint, arguments = "MobilenetV1/Conv2d_13_pointwise", {"return_endpoints": True}
    handle = golden_module(V1)
    hub.KerasLayer(handle, arguments=arguments, output_key=endpoint, output_shape=[4, 4, 256])
    layer = hub.KerasLayer(handle, arguments=arguments, output_shape={"default": [256], endpoint: [4, 4, 256]})
    assert layer.get_config()["output_shape"] == {"default": [256], endpoint: [4, 4, 256]}
    for wrong in ({"default": [1001]}, {"no_such": [256]}):
        with pytest.raises(InputError, match="output_shape"):
            hub.KerasLayer(handle, arguments=arguments, output_shape=wrong)
    with pytest.raises(InputError, match="output_shape"):
        hub.KerasLayer(handle, output_shape=[256, 1])


def test_a_plain_number_among_a_signatures_inputs(hub, golden_module):
    handle = golden_module("https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/feature_vector/3")
    layer = hub.KerasLayer(handle, signature="image_feature_vector_with_bn_hparams", output_key="default")
    assert layer({"images": photos(2, 128), "batch_norm_momentum": 0.5}).shape == (2, 256)


def test_a_checkpoint_of_tensorflow_holds_every_variable(hub, golden_module, tmp_path):
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.train.Checkpoint is TensorFlow's")
    import tensorflow as tf

    layer = hub.KerasLayer(golden_module(V1), trainable=True)
    model = keras.Sequential([keras.Input((128, 128, 3)), layer])
    before, checkpoint = values(layer), tf.train.Checkpoint(model=model)
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    model(photos(2, 128), training=True)
    assert any((before[name] != value).any() for name, value in values(layer).items())
    checkpoint.restore(path)
    assert all((before[name] == value).all() for name, value in values(layer).items())


def test_images_of_unknown_rank_are_refused(hub, golden_module):
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow has them")
    import tensorflow as tf

    loaded = hub.load(golden_module(V1))
    with pytest.raises(Exception, match="unknown rank"):  # AutoGraph wraps it
        tf.function(loaded, input_signature=[tf.TensorSpec(None)])(photos(2, 128))


def test_sequential_functional_and_subclassed_use_agree(hub, golden_module, golden, published):
    import keras

    layer = hub.KerasLayer(golden_module(V1))
    images = golden.golden_images(2, 128, 128)
    want = published["mobilenet_v1_025_128/features"]
    sequential = keras.Sequential([layer])
    inputs = keras.Input((None, None, 3))
    functional = keras.Model(inputs, layer(inputs))

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.backbone = layer

        def call(self, x):
            return self.backbone(x)

    for model in (sequential, functional, Subclassed()):
        assert_close(model(images), want)
        assert_close(model.predict(images, verbose=0), want)
    assert functional.output_shape == (None, 256)


def test_old_code_with_input_shape_and_output_shape_builds_at_once(hub, golden_module):
    import keras

    model = keras.Sequential([hub.KerasLayer(golden_module(V2), input_shape=(96, 96, 3), output_shape=[1280])])
    assert model.output_shape == (None, 1280)


@pytest.mark.parametrize("size", [(32, 32), (33, 57), (128, 128)])
def test_v1_takes_any_size_and_v2_its_own(hub, golden_module, size):
    images = np.zeros((1, *size, 3), np.float32)
    assert tuple(hub.KerasLayer(golden_module(V1))(images).shape) == (1, 256)
    with pytest.raises(InputError, match=rf"96x96 pixels only, not {size[0]}x{size[1]}"):
        hub.KerasLayer(golden_module(V2))(images)


def test_endpoints(hub, golden_module, golden, published):
    classes = "mobilenet_v2_035_96/classification"
    layer = hub.KerasLayer(golden_module(classes), arguments=dict(return_endpoints=True))
    outputs = layer(golden.golden_images(2, 96, 96))
    assert_close(outputs["default"], published["mobilenet_v2_035_96/logits"])
    stem = "mobilenet_v2_035_96/endpoint/"
    names = {key.removeprefix(stem).rsplit("/", 1)[0] for key in published if key.startswith(stem)}
    assert names
    for name in names:
        got = numpy(outputs[f"MobilenetV2/{name}"])
        assert list(got.shape) == list(published[f"{stem}{name}/shape"])
        np.testing.assert_allclose(got.mean(), published[f"{stem}{name}/mean"], rtol=RTOL, atol=RTOL)
    one = hub.KerasLayer(classes, arguments=dict(return_endpoints=True), output_key="MobilenetV2/layer_7/output")
    assert_close(one(golden.golden_images(2, 96, 96)), outputs["MobilenetV2/layer_7/output"])


def test_symbolic_shapes_equal_real_ones(hub, golden_module):
    import keras

    layer = hub.KerasLayer(golden_module(V1_CLASSES), arguments=dict(return_endpoints=True))
    symbolic = layer(keras.Input((48, 33, 3)))
    real = layer(np.zeros((2, 48, 33, 3), np.float32))
    assert {k: (None, *v.shape[1:]) for k, v in real.items()} == {k: tuple(v.shape) for k, v in symbolic.items()}


# The bugs of the original, semantics section 6, each by the number of its issue.


def test_issue_86_training_updates_every_moving_statistic(hub, golden_module):
    layer = hub.KerasLayer(golden_module(V1), trainable=True)
    before = values(layer)
    images = photos()
    layer(images, training=True)
    once = values(layer)
    layer(images, training=True)
    twice = values(layer)
    statistics = [name for name in before if "moving" in name]
    assert len(statistics) == 54
    for name in statistics:
        first, second = once[name] - before[name], twice[name] - once[name]
        assert np.abs(first).max() > 0, name
        # The same batch again: the distance to its statistic shrinks by the momentum.
        np.testing.assert_allclose(second, 0.99 * first, rtol=1e-2, atol=1e-6 * np.abs(before[name]).max())
    assert all((before[name] == twice[name]).all() for name in before if "moving" not in name)
    layer(images, training=False)
    assert all((twice[name] == value).all() for name, value in values(layer).items())


def test_issue_287_names_are_unique_and_every_format_round_trips(hub, golden_module, tmp_path):
    import keras

    inputs = keras.Input((96, 96, 3))
    layers = [
        hub.KerasLayer(golden_module(V1), trainable=True),
        hub.KerasLayer(V1, trainable=True),
        hub.KerasLayer(golden_module(V2)),
    ]
    model = keras.Model(inputs, keras.layers.Concatenate()([layer(inputs) for layer in layers]))
    paths = [variable.path for variable in model.variables]
    assert len(paths) == len(set(paths))
    assert sum(len(layer.weights) for layer in layers) == 2 * 135 + 260
    layers[1](photos(), training=True)  # so that the two instances differ
    images = photos(2, 96, 1)
    want = numpy(model(images))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    model.save(tmp_path / "model.h5")
    for name in ("model.keras", "model.h5"):
        again = keras.saving.load_model(tmp_path / name, compile=False)
        assert [v.path for v in again.weights] == [v.path for v in model.weights]
        assert (numpy(again(images)) == want).all(), name
    layers[1](photos(seed=3), training=True)
    assert not (numpy(model(images)) == want).all()
    model.load_weights(tmp_path / "model.weights.h5")
    assert (numpy(model(images)) == want).all()


def test_issue_304_a_frozen_layer_is_frozen_inside_fit(hub, golden_module):
    layer = hub.KerasLayer(golden_module(V1), trainable=False)
    model = classifier(layer)
    before = values(layer)
    model.fit(photos(), np.arange(8) % 3, batch_size=4, epochs=2, verbose=0)
    assert all((before[name] == value).all() for name, value in values(layer).items())
    images = photos(4, seed=1)
    assert (numpy(layer(images, training=True)) == numpy(layer(images, training=False))).all()
    assert not any(map(float, map(numpy, model.losses)))
    assert not layer.trainable_weights


def test_issue_304_a_trainable_layer_updates_in_fit_and_not_in_evaluate(hub, golden_module):
    layer = hub.KerasLayer(golden_module(V1), trainable=True)
    model = classifier(layer)
    before = values(layer)
    model.fit(photos(), np.arange(8) % 3, batch_size=8, verbose=0)
    trained = values(layer)
    assert all((before[name] != trained[name]).any() for name in before)
    model.evaluate(photos(), np.arange(8) % 3, verbose=0)
    assert all((trained[name] == value).all() for name, value in values(layer).items())


def test_issue_304_trainable_may_be_toggled_after_construction(hub, golden_module):
    layer = hub.KerasLayer(golden_module(V1))
    model = classifier(layer)
    assert (sum(map(float, map(numpy, model.losses))), len(layer.trainable_weights)) == (0, 0)
    layer.trainable = True
    assert (len(model.losses), len(layer.trainable_weights)) == (14, 81)
    before = values(layer)
    layer(photos(), training=True)
    assert any((before[name] != value).any() for name, value in values(layer).items())
    layer.trainable = False
    frozen = values(layer)
    layer(photos(seed=2), training=True)
    assert all((frozen[name] == value).all() for name, value in values(layer).items())
    assert not any(map(float, map(numpy, model.losses)))


def test_version_5_bug_two_gradients_under_one_persistent_tape(hub, golden_module):
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradient tapes are TensorFlow's")
    import tensorflow as tf

    layer = hub.KerasLayer(golden_module(V1), trainable=True)
    with tf.GradientTape(persistent=True) as tape:
        features = layer(photos(2), training=True)
        first, second = tf.reduce_sum(features), tf.reduce_sum(features**2)
    for loss in (first, second):
        gradients = tape.gradient(loss, layer.trainable_weights)
        assert all(np.isfinite(gradient.numpy()).all() for gradient in gradients)


def test_issue_379_a_tf1_module_needs_no_choice_of_graph(hub, golden_module, golden, published):
    name = golden_module("google/imagenet/mobilenet_v1_025_128/feature_vector/3")
    layer = hub.KerasLayer(name)
    assert_close(layer(golden.golden_images(2, 128, 128)), published["mobilenet_v1_025_128/features"])
    trainable = hub.KerasLayer(name, trainable=True)  # the original refused this
    assert len(trainable.trainable_weights) == 81


def test_signatures(hub, golden_module, golden, published):
    images = golden.golden_images(2, 128, 128)
    features, logits = (published[f"mobilenet_v1_025_128/{kind}"] for kind in ("features", "logits"))
    v3 = golden_module("google/imagenet/mobilenet_v1_025_128/classification/3")
    assert_close(hub.KerasLayer(v3)(images), logits)
    assert_close(hub.KerasLayer(v3, signature="image_feature_vector", output_key="default")(images), features)
    outputs = hub.KerasLayer(v3, signature="image_feature_vector", signature_outputs_as_dict=True)({"images": images})
    assert_close(outputs["default"], features)
    assert "MobilenetV1/Conv2d_13_pointwise" in outputs
    serving = hub.KerasLayer(golden_module(V1_CLASSES), signature="serving_default", output_key="logits")
    assert_close(serving(images), logits)


def test_momentum_by_arguments(hub, golden_module):
    usual, slow = (
        hub.KerasLayer(golden_module(V1), trainable=True, arguments=arguments)
        for arguments in (None, dict(batch_norm_momentum=0.997))
    )
    name = "MobilenetV1/Conv2d_0/BatchNorm/moving_mean"
    before = values(usual)[name]
    for layer in (usual, slow):
        layer(photos(), training=True)
    np.testing.assert_allclose(
        (values(slow)[name] - before) / 0.003, (values(usual)[name] - before) / 0.01, rtol=1e-3, atol=1e-4
    )


def test_config_round_trip_and_a_layer_without_weights(hub, golden_module, monkeypatch, tmp_path):
    import keras

    arguments = dict(batch_norm_momentum=0.997)
    layer = hub.KerasLayer(golden_module(V1), trainable=True, arguments=arguments, name="backbone")
    config = json.loads(json.dumps(layer.get_config()))
    again = hub.KerasLayer.from_config(config)
    assert again.get_config() == layer.get_config()
    images = photos(2)
    assert (numpy(again(images)) == numpy(layer(images))).all()
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path / "empty"))
    orphan = hub.KerasLayer.from_config(config)
    with pytest.raises(ModuleUnavailableError, match="weights"):
        orphan(images)
    orphan.set_weights(layer.get_weights())
    assert (numpy(orphan(images)) == numpy(layer(images))).all()
    assert keras.saving.get_registered_name(hub.KerasLayer) == "mobilenet_hub>KerasLayer"


def test_a_saved_model_needs_neither_cache_nor_network_and_runs_on_another_backend(hub, golden_module, tmp_path):
    import keras

    from mobilenet_hub.keras.backends import installed_backends

    model = classifier(hub.KerasLayer(golden_module(V1), trainable=True))
    model.fit(photos(), np.arange(8) % 3, batch_size=4, verbose=0)
    images = photos(4, seed=5)
    np.save(tmp_path / "images.npy", images)
    model.save(tmp_path / "model.keras")
    want = model.predict(images, verbose=0)
    code = (
        "import sys, numpy as np, keras, mobilenet_hub\n"
        "folder = sys.argv[1]\n"
        "model = keras.saving.load_model(f'{folder}/model.keras')\n"
        "np.save(f'{folder}/{keras.backend.backend()}.npy', model.predict(np.load(f'{folder}/images.npy'), verbose=0))"
    )
    others = [name for name in installed_backends() if name != keras.backend.backend()]
    for backend in others[:1] or [keras.backend.backend()]:
        environment = os.environ | {"KERAS_BACKEND": backend, "MOBILENET_HUB_CACHE": str(tmp_path / "none")}
        subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True, env=environment)
        assert_close(np.load(tmp_path / f"{backend}.npy"), want)


def test_mixed_precision_keeps_images_whole_until_they_are_scaled(hub, golden_module, golden, published):
    layer = hub.KerasLayer(golden_module(V1), dtype="mixed_bfloat16")
    outputs = layer(golden.golden_images(2, 128, 128))
    got = numpy(outputs.float() if hasattr(outputs, "float") else outputs).astype(np.float32)
    want = published["mobilenet_v1_025_128/features"]
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()  # eight bits of mantissa through 27 layers


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((32, 32, 3), np.float32), r"add the batch axis"),
        (np.zeros((1, 32, 32, 4), np.float32), r"\[batch, height, width, 3\], not \[1, 32, 32, 4\]"),
        (np.zeros((1, 32, 32, 3), np.uint8), r"not uint8; divide them by 255"),
        (np.zeros((1, 0, 32, 3), np.float32), r"no pixels"),
    ],
)
def test_bad_images_are_refused_at_the_call(hub, golden_module, images, text):
    with pytest.raises(InputError, match=text):
        hub.KerasLayer(golden_module(V1))(images)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.full((1, 32, 32, 3), 200.0, np.float32), r"up to 200; divide them by 255"),
        (np.full((1, 32, 32, 3), -1.0, np.float32), r"\(images \+ 1\) / 2"),
        (np.full((1, 32, 32, 3), np.nan, np.float32), r"not finite"),
    ],
)
def test_images_of_another_range_are_told_or_refused(hub, golden_module, images, text):
    with pytest.warns(UserWarning, match=text):
        hub.KerasLayer(golden_module(V1))(images)
    with pytest.raises(InputError, match=text):
        hub.KerasLayer(golden_module(V1), check_range="error")(images)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(arguments=dict(momentum=0.9)), "batch_norm_momentum, return_endpoints"),
        (dict(arguments=dict(batch_norm_momentum=1.5)), r"\[0, 1\]"),
        (dict(signature="nonsense", output_key="default"), "it has serving_default"),
        (dict(signature="serving_default"), "exactly one"),
        (dict(signature="serving_default", output_key="default"), "feature_vector"),
        (dict(output_key="nonsense"), "no output 'nonsense'"),
        (dict(output_shape=[1001]), r"gives \[256\]"),
        (dict(tags={"train"}), "serve"),
        (dict(signature_outputs_as_dict=True), "needs a signature"),
    ],
)
def test_bad_options_are_refused_at_construction(hub, golden_module, options, text):
    with pytest.raises(InputError, match=text):
        hub.KerasLayer(golden_module(V1), **options)


def test_bad_handles(hub):
    with pytest.raises(ValueError, match="1, 3, 4, 5"):
        hub.KerasLayer("https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/feature_vector/2")
    with pytest.raises(InputError, match="string or path"):
        hub.KerasLayer(lambda x: x)


def test_the_layer_is_a_module_of_pytorch(hub, golden_module):
    """In torch.nn.Sequential, with PyTorch's own optimizer and loss: the loss falls, what may be trained moves."""
    if keras_backend() != "torch":
        pytest.skip("about PyTorch as the backend")
    import torch

    torch.manual_seed(0)
    layer = hub.KerasLayer(golden_module(V1), trainable=True)
    images, labels = torch.as_tensor(photos()), torch.arange(8) % 3
    width = layer(images).shape[1]
    model = torch.nn.Sequential(layer, torch.nn.Linear(width, 3))
    assert len(list(model.parameters())) == len(layer.trainable_variables) + len(layer.non_trainable_variables) + 2
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    before, losses = values(layer), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = values(layer)
    moved = {name for name in before if np.abs(before[name] - after[name]).max() > 0}
    assert {name for name in before if "moving" not in name} <= moved
