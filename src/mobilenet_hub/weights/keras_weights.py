"""Weights of Keras without a configuration: what the order of the layers says of a network of keras.applications."""

from collections.abc import Mapping, Sequence

import numpy as np

from mobilenet_hub.architecture import BATCH_NORM_LEAVES, BUILDERS, Architecture, Variant, architecture
from mobilenet_hub.catalog.labels import imagenet_labels_1000
from mobilenet_hub.weights.head import Dense, head_weights
from mobilenet_hub.weights.identify import Found
from mobilenet_hub.weights.padding import preferred_padding
from mobilenet_hub.weights.reading import Unusable, as_float32

Arrays = Mapping[str, np.ndarray]  # one layer's: "kernel", "bias", "gamma", ...


def imagenet_labels_of(weights: Mapping[str, np.ndarray]) -> tuple[str, ...] | None:
    """Return ImageNet's labels without background where there are as many classes."""
    classes = next((len(array) for name, array in weights.items() if name.endswith("Conv2d_1c_1x1/biases")), 0)
    return imagenet_labels_1000() if classes == len(imagenet_labels_1000()) else None


def read_by_order(layers: Sequence[Arrays], size: tuple[int, int] | None) -> Found:
    """Read weights without a configuration: keras.applications' network with its classifier, another one, or none."""
    convolutions, depthwise, norms, dense = _sorted_by_kind(layers)
    network = _network_of(len(convolutions), len(depthwise), len(norms))
    if network.name == "mobilenet_v1" and size and any(side % 2 for side in size):
        raise Unusable("weights of V1 alone do not say how its stem pads odd sizes; use the whole model's file")
    body = len(network.units) - len(depthwise)
    weights = _unit_weights(network, convolutions[:body], depthwise, norms)
    heads = [*convolutions[body:], *dense]
    if len(heads) > 1:
        raise Unusable(
            f"{len(heads)} layers follow its features, and weights alone do not say how; use the model's file"
        )
    steps = [Dense(one["kernel"].reshape(one["kernel"].shape[-2:]), one.get("bias")) for one in heads]
    if steps and steps[0].kernel.shape[1] == 1:
        raise Unusable(
            "its classifier has one unit, and weights alone do not say of what kind; use the whole model's file"
        )
    head, _ = head_weights(steps, network.scope, 0)
    return Found(
        {**weights, **head},
        size,
        imagenet_labels_of(head),
        Variant(padding=preferred_padding(network)),
        False,
        None,
        (),
    )


def _sorted_by_kind(layers: Sequence[Arrays]) -> tuple[list[Arrays], list[Arrays], list[Arrays], list[Arrays]]:
    convolutions, depthwise, norms, dense = [], [], [], []
    for arrays in layers:
        if "moving_mean" in arrays:
            norms.append(arrays)
        elif "depthwise_kernel" in arrays:
            depthwise.append({"kernel": arrays["depthwise_kernel"]})
        elif "kernel" not in arrays or arrays["kernel"].ndim not in (2, 4):
            raise Unusable(f"it has a layer with {', '.join(arrays)}, which no MobileNet has")
        elif arrays["kernel"].ndim == 2:
            dense.append(arrays)
        elif arrays["kernel"].shape[3] == 1 and "bias" not in arrays:
            depthwise.append(arrays)
        else:
            convolutions.append(arrays)
    return convolutions, depthwise, norms, dense


def _network_of(convolutions: int, depthwise: int, norms: int) -> Architecture:
    for name in BUILDERS:
        network = architecture(name, 1.0, 0)
        narrow = sum(unit.depthwise for unit in network.units)
        wide = len(network.units) - narrow
        if depthwise == narrow and norms == len(network.units) and convolutions in (wide, wide + 1):
            return network
    raise Unusable(
        f"it has {convolutions} convolutions, {depthwise} depthwise ones and {norms} batch norms; no MobileNet has"
    )


def _unit_weights(
    network: Architecture, convolutions: Sequence[Arrays], depthwise: Sequence[Arrays], norms: Sequence[Arrays]
) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    kernels = {True: iter(depthwise), False: iter(convolutions)}
    for unit, norm in zip(network.units, norms, strict=True):
        arrays = next(kernels[unit.depthwise])
        if "bias" in arrays:
            raise Unusable(f"the convolution of {unit.scope} has a bias")
        weights[unit.kernel.name] = as_float32(arrays["kernel"], unit.kernel.name)
        for leaf in BATCH_NORM_LEAVES:
            name = f"{unit.scope}/BatchNorm/{leaf}"
            if leaf not in norm:
                raise Unusable(f"{name} is missing")
            weights[name] = as_float32(norm[leaf], name)
    return weights
