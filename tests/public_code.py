"""What public notebooks, scripts and tests do with MobileNet modules of TF Hub, each reduced and in our own words.

A case is a function of the hub (tensorflow_hub or ours) and of Keras, as `tf.keras` is to old code, that returns
arrays by name. Run as a script (argument: an .npz file) it writes what the unmodified tensorflow_hub gives, with
TFHUB_CACHE_DIR naming a folder of modules as its cache keeps them.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = "https://tfhub.dev/google/imagenet/mobilenet_v2_035_96/feature_vector/5"
CLASSES = "https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/classification/5"
CLASSES_TF1 = "https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/classification/3"
FIXTURES = {
    FEATURES: "hub2_mobilenet_v2_035_96_feature_vector",
    CLASSES: "hub2_mobilenet_v1_025_128_classification",
    CLASSES_TF1: "hub1_mobilenet_v1_025_128_classification",
}
SMALL = np.random.default_rng(0).random((4, 96, 96, 3), np.float32)
LARGE = np.random.default_rng(1).random((2, 128, 128, 3), np.float32)
CASES, OF_TENSORFLOW = {}, {}


def case(function):
    CASES[function.__name__] = function
    return function


def tensorflow_case(function):
    OF_TENSORFLOW[function.__name__] = function
    return function


def fill_cache(folder: Path, fixtures: Path) -> None:
    """Put the modules where tensorflow_hub's cache keeps them."""
    for address, fixture in FIXTURES.items():
        shutil.copytree(fixtures / fixture, folder / hashlib.sha1(address.encode()).hexdigest())


def head(keras, units=3):
    return keras.layers.Dense(units, kernel_initializer="ones")


def numbers(model, images: Any = SMALL):
    return model.predict(images, verbose=0)


@case
def hidden_layers_and_build(hub, keras):
    model = keras.Sequential()
    model.add(hub.KerasLayer(FEATURES, trainable=False))
    model.add(keras.layers.Dense(8, activation="relu", kernel_initializer="ones", name="hidden_layer_1"))
    model.add(keras.layers.Dense(3, activation="sigmoid", kernel_initializer="ones", name="output"))
    model.build([None, 96, 96, 3])
    trained = sum(int(np.prod(one.shape)) for one in model.trainable_weights)
    return {"answers": numbers(model), "counts": [model.count_params(), trained]}


@case
def ways_to_state_the_input(hub, keras):
    ways = {
        "list": dict(input_shape=[96, 96, 3], dtype="float32", name="extractor"),
        "batch": dict(batch_input_shape=(None, 96, 96, 3)),
        "size": dict(input_shape=(96, 96) + (3,), batch_size=2, output_shape=[1280]),  # noqa: RUF005 (as it is written)
        "none": dict(output_shape=1280),
    }
    return {way: numbers(keras.Sequential([hub.KerasLayer(FEATURES, **how)])) for way, how in ways.items()}


@case
def one_picture_to_a_class(hub, keras):
    classifier = keras.Sequential([hub.KerasLayer(CLASSES, input_shape=(128, 128, 3))])
    picture = np.array(LARGE[0] * 255, dtype=np.uint8) / 255.0
    result = classifier.predict(picture[np.newaxis, ...], verbose=0)
    return {"result": result, "index": np.argmax(result[0], axis=-1)}


@case
def one_layer_in_two_models(hub, keras):
    layer = hub.KerasLayer(FEATURES, input_shape=(96, 96, 3), trainable=False)
    return {str(units): numbers(keras.Sequential([layer, head(keras, units)])) for units in (2, 4)}


@case
def every_frame_of_a_film(hub, keras):
    frames = keras.layers.TimeDistributed(hub.KerasLayer(FEATURES, trainable=False))
    film = keras.Input((2, 96, 96, 3))
    model = keras.Sequential([film, frames, keras.layers.GlobalAveragePooling1D(), head(keras)])
    return {"answers": numbers(model, SMALL.reshape(2, 2, 96, 96, 3))}


@case
def pixels_scaled_in_the_model(hub, keras):
    model = keras.models.Sequential()
    model.add(keras.layers.Rescaling(1.0 / 255))
    model.add(hub.KerasLayer(FEATURES, input_shape=(96, 96, 3)))
    model.add(keras.layers.Flatten())
    model.add(head(keras))
    model.build(input_shape=(None, 96, 96, 3))
    return {"answers": numbers(model, SMALL * 255)}


@case
def a_layer_before_the_last(hub, keras):
    layers = [hub.KerasLayer(FEATURES, input_shape=(96, 96, 3)), head(keras, 4), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    return {"embedding": numbers(keras.Model(inputs=model.inputs, outputs=model.layers[-2].output))}


@case
def photos_beside_a_table(hub, keras):
    photo, table = keras.Input((96, 96, 3), name="photo"), keras.Input((4,), name="table")
    joined = keras.layers.Concatenate()([hub.KerasLayer(FEATURES)(photo), table])
    model = keras.Model([photo, table], head(keras)(joined))
    return {"answers": numbers(model, {"photo": SMALL, "table": np.ones((4, 4), "float32")})}


@case
def a_subclass_of_the_layer(hub, keras):
    class Brighter(hub.KerasLayer):
        def call(self, inputs, training=None):
            return super().call(inputs * 0.5, training=training)

    return {"features": numbers(keras.Sequential([Brighter(FEATURES, input_shape=(96, 96, 3))]))}


@case
def a_layer_around_the_layer(hub, keras):
    class Wrapped(keras.layers.Layer):
        def __init__(self, handle=FEATURES, **options):
            super().__init__(**options)
            self.handle, self.inner = handle, hub.KerasLayer(handle, trainable=False)

        def call(self, inputs):
            return self.inner(inputs)

        def compute_output_shape(self, input_shape):
            return input_shape[0], 1280

        def get_config(self):
            return {**super().get_config(), "handle": self.handle}

    model = keras.Sequential([keras.Input((96, 96, 3)), Wrapped(), head(keras)])
    file = f"{tempfile.mkdtemp()}/model.keras"
    model.save(file)
    again = keras.models.load_model(file, custom_objects={"Wrapped": Wrapped})
    return {"answers": numbers(model), "again": numbers(again)}


@case
def a_lambda_around_a_layer(hub, keras):
    layer = hub.KerasLayer(FEATURES)
    wrapped = keras.layers.Lambda(lambda images: layer(images), output_shape=(1280,))
    return {"answers": numbers(keras.Sequential([keras.Input((96, 96, 3)), wrapped, head(keras)]))}


@case
def a_picture_as_lists(hub, keras):
    return {"features": np.asarray(keras.ops.convert_to_numpy(hub.KerasLayer(FEATURES)(SMALL[:1].tolist())))}


@case
def batches_of_a_generator(hub, keras):
    def batches():
        while True:
            yield SMALL[:2], np.ones((2, 3))
            yield SMALL[2:], np.ones((2, 3))

    layers = [hub.KerasLayer(FEATURES, input_shape=(96, 96, 3)), keras.layers.Dense(3, kernel_initializer="zeros")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(1e-5), "mse")
    return {"losses": model.fit(batches(), steps_per_epoch=2, epochs=2, verbose=0).history["loss"]}


@case
def an_inner_output_by_signature(hub, keras):
    layer = hub.KerasLayer(CLASSES_TF1, signature="image_feature_vector", output_key="MobilenetV1/Conv2d_13_pointwise")
    images = keras.Input((128, 128, 3))
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(layer(images)))
    return {"answers": numbers(model, LARGE)}


@case
def saved_as_h5_in_a_custom_object_scope(hub, keras):
    model = keras.Sequential([hub.KerasLayer(FEATURES, input_shape=(96, 96, 3), trainable=True), head(keras)])
    model.compile("adam", keras.losses.MeanSquaredError())
    folder = tempfile.mkdtemp()
    model.save(f"{folder}/model.h5")
    model.save_weights(f"{folder}/model.weights.h5")
    with keras.utils.custom_object_scope({"KerasLayer": hub.KerasLayer}):
        loaded = keras.models.load_model(f"{folder}/model.h5", compile=False)
    made = keras.models.model_from_json(model.to_json(), custom_objects={"KerasLayer": hub.KerasLayer})
    made.load_weights(f"{folder}/model.weights.h5")
    return {"answers": numbers(model), "loaded": numbers(loaded), "made": numbers(made)}


@case
def thawed_and_frozen_again(hub, keras):
    layer = hub.KerasLayer(FEATURES, input_shape=(96, 96, 3))
    model = keras.Sequential([layer, keras.layers.Dense(3)])
    counts = [len(model.trainable_variables)]
    for model.layers[0].trainable in (True, False):
        counts.append(len(model.trainable_variables))
    return {"counts": [*counts, len(layer.weights), len(layer.get_weights())]}


@tensorflow_case
def a_server_of_encoded_pictures(hub, keras):
    import tensorflow as tf

    class Server(tf.Module):
        def __init__(self):
            super().__init__()
            self.network = hub.load(CLASSES)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def predict(self, encoded):
            def decode(one):
                picture = tf.image.convert_image_dtype(tf.io.decode_png(one, channels=3), tf.float32)
                return tf.image.resize(picture, (128, 128))

            pictures = tf.map_fn(decode, encoded, fn_output_signature=tf.float32)
            scores, indices = tf.math.top_k(tf.nn.softmax(self.network(pictures)), 3)
            return {"scores": scores, "indices": indices}

    server, folder = Server(), tempfile.mkdtemp()
    tf.saved_model.save(server, folder, signatures={"serving_default": server.predict})
    encoded = tf.stack([tf.io.encode_png((one * 255).astype("uint8")) for one in LARGE])
    answers = tf.saved_model.load(folder).signatures["serving_default"](encoded)
    return {name: value.numpy() for name, value in answers.items()}


@tensorflow_case
def a_model_with_a_signature_of_its_own(hub, keras):
    import tensorflow as tf

    model = keras.Sequential([hub.KerasLayer(FEATURES, input_shape=(96, 96, 3)), head(keras)])

    @tf.function(input_signature=[tf.TensorSpec([None, 96, 96, 3], tf.uint8)])
    def serve(pixels):
        return {"answers": model(tf.image.convert_image_dtype(pixels, tf.float32))}

    folder = tempfile.mkdtemp()
    tf.saved_model.save(model, folder, signatures=serve)
    loaded = tf.saved_model.load(folder).signatures["serving_default"]
    return {"answers": loaded(tf.constant((SMALL * 255).astype("uint8")))["answers"].numpy()}


@tensorflow_case
def features_in_a_pipeline(hub, keras):
    import tensorflow as tf

    layer, module = hub.KerasLayer(FEATURES), hub.load(FEATURES)
    pairs = tf.data.Dataset.from_tensor_slices((SMALL, np.arange(4))).batch(2)
    of_layer = pairs.map(lambda images, labels: (layer(images), labels), num_parallel_calls=2)
    of_module = tf.data.Dataset.from_tensor_slices(SMALL).batch(2).map(module)
    first = np.concatenate([features for features, _ in of_layer.as_numpy_iterator()])
    return {"layer": first, "module": np.concatenate(list(of_module.as_numpy_iterator()))}


@tensorflow_case
def under_a_strategy(hub, keras):
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        layers = [hub.KerasLayer(FEATURES, input_shape=(96, 96, 3)), keras.layers.Dense(3, kernel_initializer="zeros")]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.SGD(1e-5), keras.losses.MeanSquaredError())
    pairs = tf.data.Dataset.from_tensor_slices((SMALL, np.ones((4, 3)))).batch(2)
    return {"losses": model.fit(pairs, epochs=2, verbose=0).history["loss"]}


@tensorflow_case
def converted_for_phones(hub, keras):
    import tensorflow as tf

    model = keras.Sequential([hub.KerasLayer(CLASSES, input_shape=(128, 128, 3)), head(keras)])
    interpreter = tf.lite.Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], LARGE[:1])
    interpreter.invoke()
    return {"answers": interpreter.get_tensor(interpreter.get_output_details()[0]["index"])}


@tensorflow_case
def gradients_of_the_picture(hub, keras):
    import tensorflow as tf

    module, images = hub.load(CLASSES), tf.constant(LARGE[:1])
    with tf.GradientTape() as tape:
        tape.watch(images)
        score = tf.nn.log_softmax(module(images))[0, 5]
    return {"gradients": np.asarray(tape.gradient(score, images))}


def main(file: str) -> None:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    import tensorflow_hub as hub

    class Keras:
        """`tf.keras`, and of Keras 3 the one function that a case needs to look at what a backend gives."""

        class ops:
            convert_to_numpy = staticmethod(lambda tensor: tensor.numpy())

        def __getattr__(self, name):
            return getattr(tf.keras, name)

    results = {}
    for name, function in (CASES | OF_TENSORFLOW).items():
        results |= {f"{name}/{key}": value for key, value in function(hub, Keras()).items()}
    np.savez(file, **results)


if __name__ == "__main__":
    main(sys.argv[1])
