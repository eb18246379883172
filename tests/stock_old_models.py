"""Run in its own process: the unmodified tensorflow_hub and tf_keras save models as tutorials do, in every format.

Argument: a folder for what is made. In it, `modules/` (SavedModels whose variables stand in each order that published
ones had, as TF Hub's cache keeps them), `NAME.h5`, `NAME.keras`, ... for each model, `images.npy` and `answers.npz`
with what the models give for it.
"""

import hashlib
import os
import shutil
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np  # noqa: E402 (the line above must come first)
import tensorflow as tf  # noqa: E402, TID253
import tensorflow_hub as hub  # noqa: E402
from tensorflow_files import some_weights  # noqa: E402

from mobilenet_hub.catalog.find import find_module  # noqa: E402
from mobilenet_hub.exporting.tensorflow_network import TensorFlowNetwork  # noqa: E402
from mobilenet_hub.module import ModuleConfig  # noqa: E402

ORDERS = {
    "as made": lambda names: names,
    "by name": sorted,
    "beta first": lambda names: sorted(
        names,
        key=lambda name: (
            (names.index(name.rpartition("/")[0] + "/gamma"), "gamma" in name)
            if name.endswith(("gamma", "beta"))
            else (names.index(name), 0)
        ),
    ),
}
V1 = "google/imagenet/mobilenet_v1_025_128/feature_vector/5"
V1_OLD = "google/imagenet/mobilenet_v1_025_128/feature_vector/4"
V1_CLASSES = "google/imagenet/mobilenet_v1_025_128/classification/5"
V2 = "google/imagenet/mobilenet_v2_035_96/feature_vector/5"
V2_OLD = "google/imagenet/mobilenet_v2_035_96/feature_vector/4"
V2_CLASSES = "google/imagenet/mobilenet_v2_035_96/classification/4"
NAMELESS = "google/tf2-preview/mobilenet_v2/feature_vector/2"  # tensorflow/hub issue 287: no .h5 can be made of it
FOLDERS = ("frozen", "tuned")  # of these SavedModels, too
MODULES = {V1: ("as made", 0), V1_OLD: ("by name", 1), V1_CLASSES: ("beta first", 2)} | {
    V2: ("by name", 3),
    V2_OLD: ("beta first", 4),
    V2_CLASSES: ("as made", 5),
}  # the order of the variables, and a seed


def write_module(folder, handle, order, seed, named=True):
    """Write a SavedModel as TF Hub's were, its variables in an order, with names or all of one name."""
    found = find_module(handle)
    config = ModuleConfig(found.architecture, found.depth_multiplier, found.image_size, found.num_classes)
    network = TensorFlowNetwork(config, some_weights(config.network, seed))
    if not named:
        network.variables = {
            name: tf.Variable(variable, trainable=variable.trainable) for name, variable in network.variables.items()
        }
    images = tf.TensorSpec([None, None, None, 3], tf.float32)
    module = tf.train.Checkpoint()

    @tf.function(autograph=False)
    def call(inputs, training=False, batch_norm_momentum=0.99):
        return network(inputs, training, batch_norm_momentum)["default"]

    for training in (False, True):
        call.get_concrete_function(images, training, tf.TensorSpec([], tf.float32))
        call.get_concrete_function(images, training)
    module.__call__ = call
    module.variables = [network.variables[name] for name in ORDERS[order](list(network.variables))]
    module.trainable_variables = [variable for variable in module.variables if variable.trainable]
    module.regularization_losses = network.regularization_losses
    tf.saved_model.save(module, str(folder))


def sha1(handle):
    return hashlib.sha1(f"https://tfhub.dev/{handle}".encode()).hexdigest()


def layer(handle, **options):
    return hub.KerasLayer(f"https://tfhub.dev/{handle}", **options)


def models(folder):
    """Yield models as tutorials make them, by name."""
    keras = tf.keras
    yield "frozen", keras.Sequential([layer(V1, input_shape=(128, 128, 3)), keras.layers.Dense(3, "softmax")])
    yield (
        "frozen by name",
        keras.Sequential(
            [keras.layers.InputLayer((128, 128, 3)), layer(V1_OLD, trainable=False), keras.layers.Dense(3)]
        ),
    )
    tuned = layer(V2_OLD, trainable=True, arguments=dict(batch_norm_momentum=0.997), name="backbone")
    model = keras.Sequential([tuned, keras.layers.Dropout(0.2), keras.layers.Dense(3)])
    model.build([None, 96, 96, 3])
    yield "tuned", model
    yield "classes", keras.Sequential([layer(V1_CLASSES, input_shape=(128, 128, 3), output_shape=[1001])])
    inputs = keras.Input((96, 96, 3))
    several = [layer(V2), layer(V2_CLASSES, trainable=True), layer(V2_CLASSES)]
    outputs = keras.layers.Concatenate()([one(inputs) for one in several])
    yield "several", keras.Model(inputs, outputs)
    own = hub.KerasLayer(str(folder / "my_module"), input_shape=(128, 128, 3))
    yield "own folder", keras.Sequential([own, keras.layers.Dense(3)])
    yield "nameless", keras.Sequential([layer(NAMELESS, input_shape=(224, 224, 3)), keras.layers.Dense(3)])
    inputs = keras.Input((96, 96, 3))
    inner = keras.Model(inputs, keras.layers.Dense(4)(layer(V2_OLD, trainable=False)(inputs)))
    inputs = keras.Input((96, 96, 3))
    yield "nested", keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))


def main(folder):
    tf.keras.utils.set_random_seed(0)  # the heads: of some, the features' rounding shows twice as much
    cache = folder / "modules"
    os.environ["TFHUB_CACHE_DIR"] = str(cache)
    write_module(folder / "my_module", V1, "beta first", 6)
    write_module(cache / sha1(NAMELESS), NAMELESS, "by name", 7, named=False)
    for handle, (order, seed) in MODULES.items():
        write_module(cache / sha1(handle), handle, order, seed)
    images = np.random.default_rng(0).random((2, 224, 224, 3), np.float32)
    np.save(folder / "images.npy", images)
    answers = {}
    for name, model in models(folder):
        batch = images[:, : model.input_shape[1], : model.input_shape[2]]
        if any(one.trainable and isinstance(one, hub.KerasLayer) for one in model.layers):
            # as TensorFlow's tutorial of retraining compiles it
            loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
            model.compile(tf.keras.optimizers.SGD(learning_rate=0.005, momentum=0.9), loss, metrics=["accuracy"])
            model.fit(batch, np.eye(model.output_shape[1], dtype=np.float32)[:2], verbose=0)
        answers[name] = model.predict(batch, verbose=0)
        if name != "nameless":
            model.save(folder / f"{name}.h5")
            model.save_weights(folder / f"{name}_weights.h5")
        model.save(folder / f"{name}.keras")
        model.save_weights(folder / f"{name}.weights.h5")
        (folder / f"{name}.json").write_text(model.to_json())
        if name in FOLDERS:
            model.save(folder / f"{name}.saved", save_format="tf")
            model.export(str(folder / f"{name}.exported"))
    np.savez(folder / "answers.npz", **answers)
    shutil.rmtree(folder / "my_module")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
