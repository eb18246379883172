"""Running a module's network under its contract: checked images in, the outputs of a signature out."""

from collections.abc import Mapping
from typing import Any

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
import numpy as np
from keras import ops  # noqa: TID253

from mobilenet_hub.errors import InputError
from mobilenet_hub.hub.contract import CLASS_ENDPOINTS, SERVING, Contract, gives_classes
from mobilenet_hub.keras.kernels import Tensor
from mobilenet_hub.keras.mobilenet import MobileNet


def build_network(contract: Contract, weights: Mapping[str, np.ndarray] | None, **model_kwargs: Any) -> MobileNet:
    """Return the Keras network of a contract with its weights, or untrained where there are none."""
    network = MobileNet(contract.config.network, contract.batch_norm_momentum, **model_kwargs)
    if weights is None:
        _ = network.slim_variables  # makes them
        return network
    return network.load_slim_weights(weights)


def check_images(contract: Contract, images: Any) -> Tensor:
    """Return images as a tensor of the backend, after checking shape, dtype and, where it has values, their range.

    Raises:
        InputError: names what was received and what is allowed.
    """
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        images = np.asarray(images)
    try:
        shape = tuple(images.shape)
    except ValueError:  # TensorFlow knows not even how many axes there are
        raise InputError(
            f"{contract.name} was given images of unknown rank; state their shape, as tf.ensure_shape does"
        ) from None
    contract.check_shape(shape)
    contract.check_dtype(keras.backend.standardize_dtype(images.dtype) if images.dtype != object else "object")
    if isinstance(images, keras.KerasTensor):
        return images
    tensor = ops.convert_to_tensor(images)
    if has_values(tensor) and tensor.shape[0]:
        contract.check_range(float(ops.min(tensor)), float(ops.max(tensor)))
    return tensor


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
    network: MobileNet, contract: Contract, signature: str, images: Any, training: bool, momentum: Any = None
) -> dict[str, Tensor]:
    """Return every output of a signature by name; "default" is the one for callers who want just one.

    Args:
        network: the network.
        contract: what it promises.
        signature: one of the contract's.
        images: float32 [batch, height, width, 3] in [0, 1].
        training: whether batch norm uses the batch's own statistics, and dropout acts before the classifier.
        momentum: of the moving statistics; None: the network's own.
    """
    if isinstance(images, keras.KerasTensor):
        raise InputError(f"a signature of {contract.name} takes values; in a Keras model use hub.KerasLayer")
    outputs = network(
        check_images(contract, images), training=training, batch_norm_momentum=momentum, return_endpoints=True
    )
    if not gives_classes(signature, contract.config):
        scope = contract.config.network.scope
        hidden = {f"{scope}/{name}" for name in CLASS_ENDPOINTS}
        outputs = {name: value for name, value in outputs.items() if name not in hidden}
        outputs["default"] = ops.squeeze(outputs[f"{scope}/global_pool"], axis=(1, 2))
    if signature == SERVING:
        return {contract.output_name: outputs["default"]}
    return {"default": outputs["default"]} if signature == "default" else outputs


def has_values(tensor: Tensor) -> bool:
    """Tell whether a tensor's values can be looked at now, on this CPU: not while a graph is traced."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return hasattr(tensor, "numpy")
    if backend == "torch":
        import torch

        return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
    from jax.core import Tracer

    return not isinstance(tensor, Tracer)
