"""Old code that runs as it stands: small things that public notebooks do with a layer, a module or a handle."""

import pickle
import warnings

import numpy as np
import pytest
from modules import published_archive
from test_hub_keras_layer import assert_close, numpy, photos

from mobilenet_hub.errors import InputError, UnknownModuleError

pytestmark = pytest.mark.keras_backend

V1 = "https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/feature_vector/5"
SIZE = 32


@pytest.fixture
def hub():
    import mobilenet_hub

    return mobilenet_hub


def backend():
    import keras

    return keras.backend.backend()


def classifier(layer):
    import keras

    model = keras.Sequential([layer, keras.layers.Dense(3, activation="softmax")])
    model.build([None, SIZE, SIZE, 3])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def said(call) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if "takes images in [0, 1]" in str(one.message)]


@pytest.mark.parametrize(("images", "fix"), [(photos() * 255, "divide them by 255"), (photos() * 2 - 1, "+ 1) / 2")])
def test_images_of_the_wrong_range_are_told_once_wherever_the_layer_runs(hub, golden_module, images, fix):
    handle = golden_module(V1)
    calls = {
        "direct": lambda layer: [layer(images), layer(images)],
        "fit": lambda layer: classifier(layer).fit(images, np.arange(8) % 3, batch_size=2, epochs=2, verbose=0),
        "predict": lambda layer: classifier(layer).predict(images, batch_size=2, verbose=0),
    }
    for way, call in calls.items():
        messages = said(lambda call=call: call(hub.KerasLayer(handle)))
        assert len(messages) == 1 and fix in messages[0], way
    assert said(lambda: classifier(hub.KerasLayer(handle)).fit(photos(), np.arange(8) % 3, verbose=0)) == []
    assert len(said(lambda: hub.load(handle)(images))) == 1


def test_images_of_the_wrong_range_are_an_error_where_that_is_asked_for(hub, golden_module):
    layer = hub.KerasLayer(golden_module(V1), check_range="error")
    assert hub.KerasLayer.from_config(layer.get_config()).get_config()["check_range"] == "error"
    with pytest.raises(InputError, match="divide them by 255"):
        layer(photos() * 255)
    # A compiled function raises its runtime's own error, with our text.
    with pytest.raises(Exception, match="divide them by 255"):
        classifier(layer).predict(photos() * 255, verbose=0)
    with pytest.raises(InputError, match="'warn' or 'error'"):
        hub.KerasLayer(V1, check_range="raise")


def test_a_layer_made_in_a_lambda_while_it_is_traced(hub, golden_module):
    """As TensorFlow's image retraining notebook has it."""
    import keras

    handle = golden_module(V1)
    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.Lambda(lambda x: hub.KerasLayer(handle)(x)), keras.layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    model.fit(photos(), np.zeros((8, 2)), verbose=0)
    features = keras.Model(model.inputs, model.layers[0].output)
    assert_close(features.predict(photos(), verbose=0), hub.load(handle)(photos()))


@pytest.mark.parametrize("make", ["Module", "KerasLayer", "load"])
def test_a_graph_of_tensorflow_1_is_refused(hub, golden_module, make):
    """Before, its session gave logits of 1e-16."""
    if backend() != "tensorflow":
        pytest.skip("TensorFlow's")
    import tensorflow as tf

    handle = golden_module("google/imagenet/mobilenet_v1_025_128/feature_vector/3")
    with tf.Graph().as_default(), pytest.raises(InputError, match="graph of TensorFlow 1"):
        getattr(hub, make)(handle)
    made = getattr(hub, make)(handle)
    call = made.signatures["default"] if make == "load" else made
    with tf.Graph().as_default(), pytest.raises(Exception, match="graph of TensorFlow 1"):
        call(tf.zeros((1, 128, 128, 3)))


def test_a_model_of_keras_2_says_what_to_change(hub, golden_module):
    if backend() != "tensorflow":
        pytest.skip("tf_keras is TensorFlow's")
    tf_keras = pytest.importorskip("tf_keras")
    layer = hub.KerasLayer(golden_module(V1))
    with pytest.raises(InputError, match=r"keras\.Sequential in place of tf_keras\.Sequential"):
        tf_keras.Sequential([layer])
    with pytest.raises(InputError, match=r"keras\.Sequential in place of tf_keras\.Sequential"):
        layer(tf_keras.Input((SIZE, SIZE, 3)))
    with pytest.raises(InputError, match=r"keras\.Sequential in place of tf_keras\.Sequential"):
        hub.load(golden_module(V1))(tf_keras.Input((SIZE, SIZE, 3)))
    classifier(layer)

    class Model(tf_keras.Model):
        def __init__(self, trainable):
            super().__init__()
            self.backbone, self.head = hub.KerasLayer(V1, trainable=trainable), tf_keras.layers.Dense(3)

        def call(self, images):
            return self.head(self.backbone(images))

    # Keras 2 tells its own layers alone that it trains: a trainable one of ours would not.
    assert Model(False)(photos(2)).shape == (2, 3)
    with pytest.raises(InputError, match=r"keras\.Sequential in place of tf_keras\.Sequential"):
        Model(True)(photos(2))


def test_keras_2_reading_a_model_of_its_own_into_our_layer_says_what_to_change(hub):
    if backend() != "tensorflow":
        pytest.skip("tf_keras is TensorFlow's")
    tf_keras = pytest.importorskip("tf_keras")
    layer = {"class_name": "KerasLayer", "config": {"name": "features", "handle": V1, "trainable": False}}
    with pytest.raises(InputError, match=r"keras\.Sequential in place of tf_keras\.Sequential"):
        tf_keras.Sequential.from_config({"name": "old", "layers": [layer]}, {"KerasLayer": hub.KerasLayer})


def test_outputs_shapes_and_tags_as_the_original_takes_them(hub, golden_module):
    handle, images = golden_module(V1), photos(1)
    serving = hub.KerasLayer(handle, signature="serving_default", signature_outputs_as_dict=True)
    assert list(serving(images)) == ["feature_vector"]
    assert hub.KerasLayer(handle, signature_outputs_as_dict=False)(images).shape == (1, 256)
    assert hub.KerasLayer(handle, output_shape=[None])(images).shape == (1, 256)
    assert hub.KerasLayer(handle, tags=["serve"])(images).shape == (1, 256)
    with pytest.raises(InputError, match=r"use \{'serve'\}"):
        hub.load(handle, tags=["train"])
    old = golden_module("google/imagenet/mobilenet_v1_025_128/feature_vector/3")
    with pytest.raises(InputError, match=r"use set\(\) or \{'train'\}"):
        hub.KerasLayer(old, tags=["serve"])


def test_losses_of_a_frozen_layer_can_be_added_up(hub, golden_module):
    losses = classifier(hub.KerasLayer(golden_module(V1))).losses
    assert [float(numpy(loss)) for loss in losses] == [0.0]


def test_a_resolved_handle_is_a_string_to_old_code(hub):
    assert hub.resolve("starter") + "/assets" == f"{hub.resolve('starter')}/assets"
    assert hub.resolve("starter").endswith("starter") and hub.resolve("starter").split("/")[-1] == "starter"
    assert not hasattr(hub.resolve("starter"), "nothing")


def test_a_module_spec_as_retrain_has_it(hub, golden_module):
    spec = hub.load_module_spec(golden_module("google/imagenet/mobilenet_v1_025_128/feature_vector/3"))
    assert hub.get_expected_image_size(spec) == [128, 128]
    assert spec.get_tags() == [set(), {"train"}]
    assert spec.get_output_info_dict()["default"].get_shape() == (None, 256)
    assert hub.Module(spec)(photos(1, 128)).shape == (1, 256)
    with pytest.raises(InputError, match=r"hub\.KerasLayer"):
        hub.load_module_spec(golden_module(V1))


def test_a_loaded_module_can_be_pickled(hub, golden_module):
    module = hub.load(golden_module(V1))
    again = pickle.loads(pickle.dumps(module))
    assert (numpy(again(photos(2))) == numpy(module(photos(2)))).all()


@pytest.mark.parametrize(
    "name",
    [
        "https://tfhub.dev/google/imagenet/mobilenet_v3_large_100_224/feature_vector/5",
        "google/imagenet/resnet_v2_50/classification/5",
        "mobilenet_v3_small_075_224/classification",
    ],
)
def test_other_networks_are_called_what_they_are(hub, name):
    with pytest.raises(UnknownModuleError, match="is not a MobileNet V1 or V2"):
        hub.load(name)


@pytest.mark.parametrize("form", ["folder", "file://", "archive"])
@pytest.mark.parametrize("version", [3, 4])
def test_a_module_in_its_own_format_is_read_where_a_handle_goes(hub, tmp_path, version, form):
    name = f"google/imagenet/mobilenet_v1_025_128/feature_vector/{version}"
    folder = tmp_path / f"input/mobilenet-v1/tensorflow{version - 2}/025-128-feature-vector/{5 - version}"
    folder.mkdir(parents=True)
    archive, weights = published_archive(folder, name)
    handle = {"folder": str(folder), "file://": folder.as_uri()}.get(form) or str(tmp_path / "module.tar.gz")
    if form == "archive":
        (tmp_path / "module.tar.gz").write_bytes(archive)
    before = sorted(tmp_path.rglob("*"))
    layer = hub.KerasLayer(handle)
    for name, array in weights.items():
        assert (numpy(layer.variable_map[name].value) == array).all(), name
    assert hub.Embedder(handle, image_size=128).embed(photos(1, 128)).shape == (1, 256)
    assert sorted(tmp_path.rglob("*")) == before
    assert str(hub.resolve(handle)) == (str(folder) if form != "archive" else handle)
    if form == "folder" and version == 4:  # Kaggle counts it as the first of TensorFlow 2
        assert layer.contract.config.handle == "google/imagenet/mobilenet_v1_025_128/feature_vector/4"


def test_every_public_name_of_tensorflow_hub_is_there_or_says_what_to_do(hub):
    """Those of 0.15 by hand; those of the version that is installed, as it lists them."""
    names = ["image_embedding_column", "create_module_spec", "add_signature", "ImageModuleInfo", "LatestModuleExporter"]
    if backend() == "tensorflow":
        names += [name for name in dir(pytest.importorskip("tensorflow_hub")) if not name.startswith("_")]
    for name in names:
        try:
            getattr(hub, name)
        except AttributeError as error:
            assert "of tensorflow_hub: " in str(error), name
    assert not hasattr(hub, "estimator")


def test_every_way_into_a_graph_of_tensorflow_1_is_refused(hub, golden_module, tmp_path):
    """A model made before, one made of a file or a configuration in the graph, one compiled by tf.function there."""
    if backend() != "tensorflow":
        pytest.skip("TensorFlow's")
    import keras
    import tensorflow as tf

    layer = hub.KerasLayer(golden_module(V1))
    model = classifier(layer)
    model.save(tmp_path / "model.keras")
    ways = {
        "model": lambda x: model(x),
        "function": lambda x: tf.function(layer)(x),
        "loaded": lambda x: hub.load(golden_module(V1))(x),
        "saved": lambda x: keras.saving.load_model(tmp_path / "model.keras")(x),
        "configured": lambda x: keras.Sequential.from_config(model.get_config())(x),
    }
    for way, call in ways.items():
        with tf.Graph().as_default(), pytest.raises(Exception, match="graph of TensorFlow 1"):
            call(tf.zeros((1, SIZE, SIZE, 3)))
            pytest.fail(way)
    # A function of TensorFlow 2, and one wrapped for TensorFlow 1, is no such graph.
    wrapped = tf.compat.v1.wrap_function(layer, [tf.TensorSpec((None, SIZE, SIZE, 3))])
    for function in (tf.function(layer), wrapped):
        assert_close(function(tf.constant(photos(2))), layer(photos(2)))
