"""The export to LiteRT (.tflite): batch norm folded, in float32, float16, dynamic-range or full int8 arithmetic."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.errors import MissingExtraError
from mobilenet_hub.exporting.litert_metadata import add_metadata, attach_labels
from mobilenet_hub.exporting.proof import Run
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.inference.graph import INPUT, dense_layers, fold_batch_norm
from mobilenet_hub.inference.litert import without_chatter
from mobilenet_hub.inference.litert_graph import SIGNATURE, build_litert, signature_name

_DEPRECATED = r"\s*Warning: tf\.lite\.Interpreter is deprecated"


def write(request: Request, file: Path) -> None:
    """Write the file, with the labels attached where there are any; TensorFlow is needed for integers alone."""
    model = _written(request) if request.precision in ("float32", "float16") else _converted(request)
    file.write_bytes(add_metadata(model, request))
    if request.config.labels:
        attach_labels(file, request.config.labels)


def _written(request: Request) -> bytes:
    """Build the model; an endpoint that the caller calls otherwise is renamed in the signature."""
    return build_litert(
        request.config.network,
        request.weights,
        request.usual_size,
        request.endpoints,
        batch_size=request.batch_size,
        input_type="uint8" if request.uint8_input else "float32",
        half=request.precision == "float16",
        names=request.outputs,
    )


def _converted(request: Request) -> bytes:
    """Quantize with TensorFlow's converter.

    Raises:
        MissingExtraError: TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise MissingExtraError("tensorflow", "tensorflow", f"exporting to litert in {request.precision}") from error
    converter = tf.lite.TFLiteConverter.from_concrete_functions([_function(request)], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if request.precision == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _calibration(request)
        if request.uint8_input:  # [0, 1] in 256 steps is the decoded picture as it is
            converter.inference_input_type = tf.uint8
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _DEPRECATED)  # the converter's own, to calibrate
        return converter.convert()


def load(request: Request, file: Path) -> tuple[str, Run]:
    """Load it with LiteRT; return the runtime's name and a function that runs it."""
    runtime, interpreter = _interpreter(file)
    runner = interpreter.get_signature_runner(SIGNATURE)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = runner(**{INPUT: images})
        return {name: outputs[signature_name(name)] for name in request.outputs}

    return runtime, run


def _function(request: Request) -> Any:
    """Return the network with its weights as constants, traced."""
    import tensorflow as tf

    from mobilenet_hub.exporting.tensorflow_network import convolve, dense

    network = request.config.network
    # In int8, it is the converter that makes the input uint8.
    image_type = tf.uint8 if request.uint8_input and request.precision != "int8" else tf.float32
    spec = tf.TensorSpec([request.batch_size, *request.usual_size, 3], image_type, name=INPUT)

    def infer(images: Any) -> dict[str, Any]:
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
        return {signature_name(name): values[end] for name, end in zip(request.outputs, request.endpoints, strict=True)}

    return tf.function(infer, autograph=False, input_signature=[spec]).get_concrete_function()


def _calibration(request: Request) -> Iterator[dict[str, np.ndarray]]:
    """Yield the photos one by one, after a black and a white one: the input's range is [0, 1], whatever they hold."""
    photos = request.photos if request.photos is not None else np.zeros((0, 1, 1, 3), np.uint8)
    shape = (1, *photos.shape[1:])
    for image in (np.zeros(shape, np.float32), np.ones(shape, np.float32)):
        yield {INPUT: image}
    for photo in photos:
        yield {INPUT: photo[np.newaxis] / np.float32(255)}


def _interpreter(file: Path) -> tuple[str, Any]:
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    with without_chatter():
        return f"LiteRT {version('ai-edge-litert')}", Interpreter(str(file))
