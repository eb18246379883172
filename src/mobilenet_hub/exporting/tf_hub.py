"""The export for TF Hub users: a TF2 SavedModel with the whole reusable interface, and "serving_default".

Source: tensorflow/hub docs/reusable_saved_models.md and docs/common_saved_model_apis/images.md.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf  # noqa: TID253 (this file is itself imported only where TensorFlow is wanted)

from mobilenet_hub.errors import ProofError
from mobilenet_hub.exporting.proof import Run
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.exporting.tensorflow_network import TensorFlowNetwork
from mobilenet_hub.module_folder import CONFIG_FILE, LABELS_FILE
from mobilenet_hub.weights.exported import STATED
from mobilenet_hub.weights.tensorflow.saved_model import EXTRA_FOLDER, read_saved_model


def write(request: Request, folder: Path) -> None:
    """Write the SavedModel into an empty folder."""
    module = _reusable(request)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serving})
    extra = folder / EXTRA_FOLDER
    extra.mkdir()
    (extra / CONFIG_FILE).write_text(f"{request.carried[STATED]}\n", "utf-8")
    if request.config.labels:
        (extra / LABELS_FILE).write_text("".join(f"{label}\n" for label in request.config.labels), "utf-8")


def _reusable(request: Request) -> tf.train.Checkpoint:
    """Return the object whose attributes are the interface."""
    network = TensorFlowNetwork(request.config, request.weights)
    images = tf.TensorSpec([request.batch_size, *(request.image_size or (None, None)), 3], tf.float32, name="inputs")
    momentum = tf.TensorSpec([], tf.float32, name="batch_norm_momentum")
    default_momentum = request.contract.batch_norm_momentum

    # The network is traced once for inference and once for training; whatever is callable below shares the two.
    @tf.function(autograph=False, input_signature=[images])
    def infer(inputs):
        return network(inputs, False, default_momentum)

    @tf.function(autograph=False, input_signature=[images, momentum])
    def train(inputs, batch_norm_momentum):
        return network(inputs, True, batch_norm_momentum)

    def call(inputs, training=False, batch_norm_momentum=default_momentum, return_endpoints=False):
        outputs = train(inputs, batch_norm_momentum) if training else infer(inputs)
        return outputs if return_endpoints else outputs["default"]

    @tf.function(autograph=False, input_signature=[images])
    def serve(inputs):
        return {request.contract.output_name: infer(inputs)["default"]}

    traced = tf.function(call, autograph=False)
    for training in (False, True):
        for endpoints in (False, True):
            traced.get_concrete_function(images, training, momentum, endpoints)
    module = tf.train.Checkpoint()
    module.__call__ = traced
    module.serving = serve
    module.variables = list(network.variables.values())
    module.trainable_variables = [variable for variable in module.variables if variable.trainable]
    module.regularization_losses = network.regularization_losses
    return module


def load(request: Request, folder: Path) -> tuple[str, Run]:
    """Load it with TensorFlow; return the runtime's name and a function that runs the module itself.

    Raises:
        ProofError: the weights read back are not bit for bit those that were written, or "serving_default" differs.
    """
    check_weights(request, folder)
    module = tf.saved_model.load(str(folder))
    serving = module.signatures["serving_default"]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        tensor = tf.constant(images)
        outputs = module(tensor).numpy()
        served = serving(inputs=tensor)[request.contract.output_name].numpy()
        if not np.allclose(served, outputs, rtol=0, atol=1e-6 * np.abs(outputs).max()):
            raise ProofError("the export is not right: serving_default differs from the module; nothing was kept")
        return {request.outputs[0]: outputs}

    return f"TensorFlow {tf.__version__}", run


def check_weights(request: Request, folder: Path) -> None:
    """Read the SavedModel back with our own reader and demand the same bits.

    Raises:
        ProofError: names the first variable that differs.
    """
    found = read_saved_model(folder).weights
    different = [name for name, array in request.weights.items() if found[name].tobytes() != array.tobytes()]
    if different or found.keys() != request.weights.keys():
        raise ProofError(f"the export is not right: {different[:1]} was read back with other bits; nothing was kept")
