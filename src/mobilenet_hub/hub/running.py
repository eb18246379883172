"""Running a module's network under its contract: checked images in, the outputs of a signature out."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
import numpy as np
from keras import ops  # noqa: TID253

from mobilenet_hub.errors import InputError
from mobilenet_hub.hub.contract import CLASS_ENDPOINTS, SERVING, Contract, gives_classes
from mobilenet_hub.hub.image_check import ImageCheck, has_values
from mobilenet_hub.keras.kernels import Tensor
from mobilenet_hub.keras.mobilenet import MobileNet
from mobilenet_hub.keras.tracing import apart, refuse_tensorflow1_graphs


def build_network(
    contract: Contract, weights: Mapping[str, np.ndarray] | None, scope: str = "", **model_kwargs: Any
) -> MobileNet:
    """Return the Keras network of a contract with its weights, or untrained where there are none.

    Args:
        contract: the module's.
        weights: by TF-Slim name.
        scope: what the variables' paths begin with, so that those of two layers differ.
        model_kwargs: of the Keras model.

    Raises:
        InputError: in a graph of TensorFlow 1.
    """
    refuse_tensorflow1_graphs("a module")

    def make() -> MobileNet:
        with keras.name_scope(scope) if scope else nullcontext():
            network = MobileNet(contract.config.network, contract.batch_norm_momentum, **model_kwargs)
            if weights is None:
                _ = network.slim_variables  # makes them
                return network
            return network.load_slim_weights(weights)

    return apart(make)


def check_momentum(momentum: Any) -> Any:
    """Return a momentum in [0, 1], or a tensor of one; raise InputError for anything else."""
    if isinstance(momentum, bool | str | list | tuple) or len(getattr(momentum, "shape", ())):
        raise InputError(f"batch_norm_momentum must be a number in [0, 1], not {momentum!r}")
    known = isinstance(momentum, int | float | np.generic | np.ndarray) or (
        keras.ops.is_tensor(momentum) and has_values(momentum)
    )
    if known and not 0 <= float(momentum) <= 1:
        raise InputError(f"batch_norm_momentum must be in [0, 1], not {float(momentum)!r}")
    return momentum


def run_signature(
    network: MobileNet, check: ImageCheck, signature: str, images: Any, training: bool, momentum: Any = None
) -> dict[str, Tensor]:
    """Return every output of a signature by name; "default" is the one for callers who want just one.

    Args:
        network: the network.
        check: of the images; it knows the contract.
        signature: one of the contract's.
        images: float32 [batch, height, width, 3] in [0, 1].
        training: whether batch norm uses the batch's own statistics, and dropout acts before the classifier.
        momentum: of the moving statistics; None: the network's own.
    """
    contract = check.contract
    if isinstance(images, keras.KerasTensor):
        raise InputError(f"a signature of {contract.name} takes values; in a Keras model use hub.KerasLayer")
    outputs = network(check(images), training=training, batch_norm_momentum=momentum, return_endpoints=True)
    if not gives_classes(signature, contract.config):
        scope = contract.config.network.scope
        hidden = {f"{scope}/{name}" for name in CLASS_ENDPOINTS}
        outputs = {name: value for name, value in outputs.items() if name not in hidden}
        outputs["default"] = ops.squeeze(outputs[f"{scope}/global_pool"], axis=(1, 2))
    if signature == SERVING:
        return {contract.output_name: outputs["default"]}
    return {"default": outputs["default"]} if signature == "default" else outputs
