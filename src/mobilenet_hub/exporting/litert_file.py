"""The export to LiteRT (.tflite): batch norm folded, in float32, float16, dynamic-range or full int8 arithmetic."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf  # noqa: TID253 (this file is itself imported only where TensorFlow is wanted)

from mobilenet_hub.exporting.litert_metadata import add_metadata, attach_labels
from mobilenet_hub.exporting.proof import Run
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.exporting.tensorflow_network import convolve, dense
from mobilenet_hub.inference.graph import INPUT, dense_layers, fold_batch_norm

_SIGNATURE = "serving_default"
_DEPRECATED = r"\s*Warning: tf\.lite\.Interpreter is deprecated"


def write(request: Request, file: Path) -> None:
    """Convert and write the file, with the labels attached where there are any."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([_function(request)], tf.Module())
    if request.precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if request.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if request.precision == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _calibration(request)
        if request.uint8_input:  # [0, 1] in 256 steps is the decoded picture as it is
            converter.inference_input_type = tf.uint8
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _DEPRECATED)  # the converter's own, to calibrate
        model = converter.convert()
    file.write_bytes(add_metadata(model, request))
    if request.config.labels:
        attach_labels(file, request.config.labels)


def load(request: Request, file: Path) -> tuple[str, Run]:
    """Load it with LiteRT; return the runtime's name and a function that runs it."""
    runtime, interpreter = _interpreter(file)
    runner = interpreter.get_signature_runner(_SIGNATURE)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = runner(**{INPUT: images})
        return {name: outputs[_key(name)] for name in request.outputs}

    return runtime, run


def _function(request: Request) -> Any:
    """Return the network with its weights as constants, traced."""
    network = request.config.network
    # In int8, it is the converter that makes the input uint8.
    image_type = tf.uint8 if request.uint8_input and request.precision != "int8" else tf.float32
    spec = tf.TensorSpec([request.batch_size, *request.usual_size, 3], image_type, name=INPUT)

    def infer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        scale = network.variant.input_scale
        if image_type == tf.uint8:
            images, scale = tf.cast(images, tf.float32), scale / 255
        x, made, values = images * scale + network.variant.input_offset, [], {}
        for unit in network.units:
            kernel, bias = map(tf.constant, fold_batch_norm(network, unit, request.weights))
            x = convolve(x, kernel, unit, network.variant.padding) + bias
            x = tf.nn.relu6(x) if unit.relu6 else x
            x = x if unit.adds is None else x + made[unit.adds]
            made.append(x)
            values.update(dict.fromkeys(unit.endpoints, x))
        values["global_pool"] = tf.reduce_mean(x, (1, 2), keepdims=True)
        values["features"] = x = tf.reduce_mean(x, (1, 2))
        if network.num_classes:
            *hidden, logits = dense_layers(network, request.weights)
            for weights, biases in hidden:
                x = tf.nn.relu(dense(x, tf.constant(weights), tf.constant(biases)))
            x = dense(x, *map(tf.constant, logits))
            temperature = network.variant.temperature
            scores = tf.nn.softmax(x if temperature == 1 else x / temperature)
            values |= {"logits": x, "Logits": x, "Predictions": scores}
        return {_key(name): values[end] for name, end in zip(request.outputs, request.endpoints, strict=True)}

    return tf.function(infer, autograph=False, input_signature=[spec]).get_concrete_function()


def _key(name: str) -> str:
    """Return an output's name in the signature, which may hold no slash."""
    return name.replace("/", "_")


def _calibration(request: Request) -> Iterator[dict[str, np.ndarray]]:
    """Yield the photos one by one, after a black and a white one: the input's range is [0, 1], whatever they hold."""
    photos = request.photos if request.photos is not None else np.zeros((0, 1, 1, 3), np.uint8)
    shape = (1, *photos.shape[1:])
    for image in (np.zeros(shape, np.float32), np.ones(shape, np.float32)):
        yield {INPUT: image}
    for photo in photos:
        yield {INPUT: photo[np.newaxis] / np.float32(255)}


def _interpreter(file: Path) -> tuple[str, Any]:
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _DEPRECATED)
            return f"TensorFlow Lite {tf.__version__}", tf.lite.Interpreter(str(file))
    return f"LiteRT {getattr(ai_edge_litert, '__version__', '')}".rstrip(), Interpreter(str(file))
