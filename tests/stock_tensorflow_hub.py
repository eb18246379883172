"""Run by test_exporting_tf_hub.py in its own process: the unmodified tensorflow_hub, with tf_keras, on our exports.

Arguments: a folder of exported modules named `SHA-1 of the URL` as TF Hub's cache keeps them, a folder of inputs, and a
folder for results. It knows nothing of mobilenet_hub.
"""

import json
import os
import re
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np  # noqa: E402 (the line above must come first)
import tensorflow as tf  # noqa: E402, TID253
import tensorflow_hub as hub  # noqa: E402

V1 = "https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/classification/5"
V2 = "https://tfhub.dev/google/imagenet/mobilenet_v2_130_224/feature_vector/4"
MOMENTUM = 0.997


def values(layer):
    return {variable.name: variable.numpy() for variable in layer.weights}


def changed(layer, before):
    return sorted(name for name, value in values(layer).items() if (value != before[name]).any())


def fine_tune(url, images, trainable):
    """Fit one step as the module pages say, and report what it changed."""
    arguments = {"batch_norm_momentum": MOMENTUM} if trainable else None
    layer = hub.KerasLayer(url, trainable=trainable, arguments=arguments)
    model = tf.keras.Sequential([layer, tf.keras.layers.Dense(5, activation="softmax")])
    model.build([None, *images.shape[1:]])
    before = values(layer)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(len(images)) % 5, verbose=0)
    return {
        "changed": changed(layer, before),
        "trainable": sorted(variable.name for variable in layer.trainable_weights),
        "names": [variable.name for variable in layer.weights],
        "losses": len(layer.losses),
        "regularization": float(tf.add_n(layer.losses)) if layer.losses else 0.0,
    }


def moved(module, images):
    """Return what a training step leaves in the first moving averages, and the gradients twice on one tape."""
    named = {variable.name: variable for variable in module.variables}
    mean, variance = (named[f"MobilenetV1/Conv2d_0/BatchNorm/moving_{kind}:0"] for kind in ("mean", "variance"))
    kernel = named["MobilenetV1/Conv2d_0/weights:0"]
    found = {"kernel": kernel.numpy(), "mean before": mean.numpy(), "variance before": variance.numpy()}
    with tf.GradientTape(persistent=True) as tape:
        once = tf.reduce_sum(module(images, training=True, batch_norm_momentum=0.5) ** 2)
        twice = once * 2
    found |= {"mean": mean.numpy(), "variance": variance.numpy()}
    found |= {"gradient": tape.gradient(once, kernel).numpy(), "gradient twice": tape.gradient(twice, kernel).numpy()}
    return found


def run_block(code, images):
    """Run a code block of a module's page; return what the layer in it gives for the images."""
    scope = {"hub": hub, "tf": tf, "num_classes": 5}
    code = re.sub(r"^hub\.KerasLayer", "layer = hub.KerasLayer", code, flags=re.MULTILINE)
    exec(code, scope)
    layer = scope["m"].layers[0] if "m" in scope else scope["layer"]
    return layer(images).numpy()


def main(cache, inputs, results):
    os.environ["TFHUB_CACHE_DIR"] = str(cache)
    images = {file.stem: np.load(file) for file in inputs.glob("*.npy")}
    module, module_v2 = hub.load(V1), hub.load(V2)
    endpoints = module(images["128"], return_endpoints=True)
    arrays = {
        "V1": module(images["128"]).numpy(),
        "V1 odd": module(images["odd"]).numpy(),
        "V1 serving": module.signatures["serving_default"](inputs=tf.constant(images["128"]))["logits"].numpy(),
        "V1 default": endpoints["default"].numpy(),
        "V1 pool": endpoints["MobilenetV1/global_pool"].numpy(),
        "V2": module_v2(images["224"]).numpy(),
        **{f"moved {name}": value for name, value in moved(module, images["128"]).items()},  # last: it trains
    }
    for at, code in enumerate(json.loads((inputs / "blocks.json").read_text())):
        arrays[f"block {at}"] = run_block(code, images["224"])
    np.savez(results / "arrays.npz", **arrays)
    facts = {
        "endpoints": sorted(endpoints),
        "signature": {
            key: str(spec.shape) for key, spec in module_v2.signatures["serving_default"].structured_outputs.items()
        },
        "trained": fine_tune(V1, images["128"], trainable=True),
        "frozen": fine_tune(V1, images["128"], trainable=False),
        "trained V2": fine_tune(V2, images["224"], trainable=True),
    }
    (results / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
