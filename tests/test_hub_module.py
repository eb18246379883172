"""hub.Module (the TF1 surface) and hub.load on the backend that is set."""

import numpy as np
import pytest
from reference_network import random_weights
from test_hub_keras_layer import assert_close, numpy, photos, values

from mobilenet_hub.errors import InputError
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module

pytestmark = pytest.mark.keras_backend

V1 = "https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/classification/3"
V2 = "https://tfhub.dev/google/imagenet/mobilenet_v2_035_96/feature_vector/3"


@pytest.fixture
def hub():
    import mobilenet_hub

    return mobilenet_hub


def test_default_and_named_signatures(hub, golden_module, golden, published):
    module = hub.Module(golden_module(V1))
    images = golden.golden_images(2, 128, 128)
    features, logits = (published[f"mobilenet_v1_025_128/{kind}"] for kind in ("features", "logits"))
    assert hub.get_expected_image_size(module) == [128, 128]
    assert hub.get_num_image_channels(module) == 3
    assert_close(module(images), logits)
    assert_close(module(dict(images=images), signature="image_classification"), logits)
    assert_close(module(images, signature="image_feature_vector"), features)
    outputs = module(images, signature="image_feature_vector", as_dict=True)
    assert_close(outputs["default"], features)
    assert set(module.get_output_info_dict("image_feature_vector")) == set(outputs)
    assert not {"MobilenetV1/Logits", "MobilenetV1/Predictions"} & set(outputs)
    assert set(module(images, as_dict=True)) == {"default"}
    assert module.get_signature_names() == [
        "default",
        "image_classification",
        "image_feature_vector",
        "image_classification_with_bn_hparams",
        "image_feature_vector_with_bn_hparams",
    ]


def test_information_on_inputs_and_outputs(hub, golden_module):
    module = hub.Module(golden_module(V1))
    assert module.get_input_info_dict()["images"].get_shape() == (None, None, None, 3)
    assert set(module.get_input_info_dict("image_classification_with_bn_hparams")) == {"images", "batch_norm_momentum"}
    assert module.get_output_info_dict()["default"].get_shape() == (None, 1001)
    fixed = hub.Module(golden_module(V2))
    assert fixed.get_input_info_dict()["images"].shape == (None, 96, 96, 3)
    info = fixed.get_output_info_dict("image_feature_vector")
    real = fixed(np.zeros((2, 96, 96, 3), np.float32), signature="image_feature_vector", as_dict=True)
    assert {name: i.shape[1:] for name, i in info.items()} == {name: tuple(x.shape)[1:] for name, x in real.items()}
    assert next(iter(module.variable_map)) == "MobilenetV1/Conv2d_0/weights"
    assert [v.path for v in module.variables] == [v.path for _, v in sorted(module.variable_map.items())]


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("tags", [None, set(), {"train"}])
def test_tags_and_trainable_decide(hub, golden_module, tags, trainable):
    """The matrix of tf1_hub_module.md: batch statistics, updates, variables and losses."""
    module = hub.Module(golden_module(V2), tags=tags, trainable=trainable)
    images = photos(4, 96)
    before = values(module)
    features = numpy(module(images))
    inference = numpy(hub.Module(V2)(images))
    assert np.allclose(features, inference, rtol=1e-3, atol=1e-3) == (tags != {"train"})
    changed = {name for name, value in values(module).items() if (value != before[name]).any()}
    updates = trainable and tags == {"train"}
    assert len(changed) == (104 if updates else 0)
    assert all("moving" in name for name in changed)
    assert (len(module.trainable_variables), len(module.regularization_losses)) == ((156, 35) if trainable else (0, 0))


def test_momentum_by_signature_and_by_version(hub, golden_module):
    name = "MobilenetV1/Conv2d_0/BatchNorm/moving_mean"
    moved = {}
    for version, signature, momentum in (
        (3, "image_feature_vector", None),
        (3, "image_feature_vector_with_bn_hparams", 0.997),
        (1, "image_feature_vector", None),
    ):
        handle = golden_module(f"google/imagenet/mobilenet_v1_025_128/feature_vector/{version}")
        module = hub.Module(handle, trainable=True, tags={"train"})
        before = values(module)[name]
        inputs = dict(images=photos(4, 128)) | ({"batch_norm_momentum": momentum} if momentum else {})
        module(inputs, signature=signature)
        moved[version, momentum] = values(module)[name] - before
    np.testing.assert_allclose(moved[3, 0.997] / 0.003, moved[3, None] / 0.01, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moved[1, None] / 0.0003, moved[3, None] / 0.01, rtol=2e-2, atol=1e-3)


def test_refusals(hub, golden_module):
    for version in (4, 5):
        with pytest.raises(InputError, match=r"hub\.Module cannot load; use hub\.KerasLayer"):
            hub.Module(golden_module(f"google/imagenet/mobilenet_v2_035_96/feature_vector/{version}"))
    with pytest.raises(InputError, match="no graph variant"):
        hub.Module(golden_module(V2), tags={"serve"})
    module = hub.Module(V2)
    with pytest.raises(InputError, match="it has default, image_feature_vector"):
        module(photos(1, 96), signature="image_classification")
    with pytest.raises(InputError, match="no input 'batch_norm_momentum'"):
        module(dict(images=photos(1, 96), batch_norm_momentum=0.9))
    with pytest.raises(InputError, match="lacks its input 'images'"):
        module({})
    with pytest.raises(InputError, match="96x96"):
        module(photos(1, 128))
    old = hub.Module(golden_module("google/imagenet/mobilenet_v2_035_96/feature_vector/2"))
    with pytest.raises(InputError, match="no signature"):
        old(photos(1, 96), signature="image_feature_vector_with_bn_hparams")
    with pytest.raises(InputError, match="expected what"):
        hub.get_expected_image_size(object())


def test_load_is_callable_with_variables_losses_and_signatures(hub, golden_module, golden, published):
    loaded = hub.load(golden_module("google/imagenet/mobilenet_v1_025_128/classification/5"))
    images = golden.golden_images(2, 128, 128)
    logits = published["mobilenet_v1_025_128/logits"]
    assert_close(loaded(images), logits)
    assert_close(loaded.signatures["serving_default"](inputs=images)["logits"], logits)
    outputs = loaded(images, return_endpoints=True)
    assert_close(outputs["default"], logits)
    assert_close(numpy(outputs["MobilenetV1/global_pool"])[:, 0, 0], published["mobilenet_v1_025_128/features"])
    assert (len(loaded.variables), len(loaded.trainable_variables)) == (137, 83)
    terms = [float(numpy(loss())) for loss in loaded.regularization_losses]
    weights = [numpy(v.value) for name, v in loaded.variable_map.items() if name.endswith("/weights")]
    np.testing.assert_allclose(terms, [2e-5 * np.sum(w.astype(np.float64) ** 2) for w in weights], rtol=1e-5)
    before = values(loaded)
    loaded(images, training=True, batch_norm_momentum=0.5)
    assert sum((values(loaded)[name] != value).any() for name, value in before.items()) == 54
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        loaded(images, training=True, batch_norm_momentum=-1)


def test_load_of_a_tf1_module_and_of_version_4(hub, golden_module, golden, published):
    images = golden.golden_images(2, 96, 96)
    features = published["mobilenet_v2_035_96/features"]
    old = hub.load(golden_module(V2), tags=set())
    assert_close(old.signatures["image_feature_vector"](images=images)["default"], features)
    before = values(old)
    hub.load(V2, tags={"train"}).signatures["default"](photos(2, 96))
    assert all((before[name] == value).all() for name, value in values(old).items())
    assert not hub.load(golden_module("google/imagenet/mobilenet_v2_035_96/feature_vector/4")).signatures


def test_a_loaded_module_can_be_a_layer(hub, golden_module):
    loaded = hub.load(golden_module("google/imagenet/mobilenet_v2_035_96/feature_vector/5"))
    layer = hub.KerasLayer(loaded, trainable=True)
    layer(photos(2, 96), training=True)
    assert all((a == b).all() for a, b in zip(values(layer).values(), values(loaded).values(), strict=True))
    assert layer.resolved_object.network is loaded.network


def test_a_frozen_layer_of_a_loaded_module_hides_nothing(hub, golden_module):
    loaded = hub.load(golden_module("google/imagenet/mobilenet_v2_035_96/feature_vector/5"))
    count = len(loaded.trainable_variables)
    layer = hub.KerasLayer(loaded)
    assert layer.trainable_weights == []
    assert len(loaded.trainable_variables) == count > 0
    with pytest.raises(InputError, match=r"frozen .* shares"):
        loaded(photos(2, 96), training=True)
    for shared in (loaded, layer.resolved_object):
        with pytest.raises(InputError, match="load the module once more"):
            hub.KerasLayer(shared, trainable=True)
    layer.trainable = True
    before = values(loaded)
    loaded(photos(2, 96), training=True)
    assert any((before[name] != value).any() for name, value in values(loaded).items())


def test_what_hub_module_cannot_load_is_refused_before_it_is_fetched(hub, monkeypatch):
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"hub\.KerasLayer"):
        hub.Module("https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5")
    with pytest.raises(InputError, match="no graph variant with tags"):
        hub.Module("https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/3", tags={"serve"})


def test_tags_may_be_the_third_argument(hub, golden_module):
    module = hub.Module(golden_module("google/imagenet/mobilenet_v1_025_128/feature_vector/3"), True, {"train"})
    assert (module.train_graph, module.name) == (True, "module")


def test_symbolic_images_are_refused(hub, golden_module):
    import keras

    module = hub.Module(golden_module("google/imagenet/mobilenet_v1_025_128/feature_vector/3"))
    with pytest.raises(InputError, match=r"hub\.KerasLayer"):
        module(keras.Input((128, 128, 3)))


def test_a_folder_keeps_its_classifier_whatever_it_was_made_from(hub, tmp_path):
    config = ModuleConfig(
        "mobilenet_v1", 0.25, (32, 32), 5, handle="google/imagenet/mobilenet_v1_025_128/feature_vector/5"
    )
    folder = write_module(tmp_path / "own", Module(config, random_weights(config.network)))
    for made in (hub.load(folder), hub.KerasLayer(folder), hub.Module(folder)):
        assert tuple(made(photos(2, 32)).shape) == (2, 5)


@pytest.mark.parametrize("momentum", [np.float32(1.5), np.array(-0.1), [0.5, 0.9], np.array([0.5, 0.9]), True])
def test_a_momentum_that_is_none_is_refused(hub, golden_module, momentum):
    loaded = hub.load(golden_module("google/imagenet/mobilenet_v1_025_128/feature_vector/5"))
    with pytest.raises(InputError, match="batch_norm_momentum"):
        loaded(photos(2, 128), training=True, batch_norm_momentum=momentum)


def test_a_module_in_tensorflows_loops_with_gradients(hub, golden_module):
    """As tensorflow_hub's native_module_test demands of `tf.map_fn` and `tf.while_loop`."""
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's")
    import tensorflow as tf

    module = hub.Module(golden_module("google/imagenet/mobilenet_v1_025_128/feature_vector/3"))
    images = photos(2, 64)
    want = numpy(module(images))

    @tf.function
    def each(images):
        return tf.map_fn(lambda image: module(image[None])[0], images)

    assert_close(each(tf.constant(images)), want)

    @tf.function
    def thrice(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            _, total = tf.while_loop(
                lambda count, _: count < 3,
                lambda count, total: (count + 1, total + tf.reduce_sum(module(images))),
                [0, 0.0],
            )
        return total, tape.gradient(total, images)

    total, gradients = thrice(tf.constant(images))
    assert_close(total, 3 * want.sum())
    assert np.isfinite(gradients.numpy()).all() and np.abs(gradients.numpy()).max() > 0


def test_what_a_signature_says_of_itself(hub, golden_module):
    """As old code prints it: by name, and as lists."""
    signature = hub.load(golden_module(V1.replace("/3", "/5"))).signatures["serving_default"]
    positional, named = signature.structured_input_signature
    assert positional == () and named["inputs"].shape == (None, None, None, 3)
    assert [one.shape[-1] for one in signature.inputs] == [3]
    assert [one.shape for one in signature.outputs] == [(None, 1001)]
