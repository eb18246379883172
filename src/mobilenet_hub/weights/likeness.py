"""Which network a path of operations is: a MobileNet, or else what it looks like."""

from collections.abc import Sequence

from mobilenet_hub.architecture import BUILDERS, Architecture, architecture
from mobilenet_hub.weights.operation import Operation
from mobilenet_hub.weights.reading import Unusable

_STABLE_HLO = "XlaCallModule"  # the operation that jax2tf, and so Keras on JAX, puts a whole program into
_FD_CONVOLUTIONS = 13  # of FD-MobileNet: the stem, one behind each depthwise, and a classifier


def network_of(path: Sequence[Operation]) -> Architecture:
    """Return the architecture that a path looks like, of depth multiplier 1.

    Raises:
        Unusable: it has other convolutions; says which network it looks like.
    """
    if any(one.kind == "network" for one in path):
        network = next(one.values["network"] for one in path if one.kind == "network")
        return architecture(network, 1.0, 0)
    depthwise = sum(one.kind == "depthwise" for one in path)
    convolutions = sum(one.kind == "conv" for one in path)
    for name in BUILDERS:
        network = architecture(name, 1.0, 0)
        narrow = sum(unit.depthwise for unit in network.units)
        if depthwise == narrow and convolutions >= len(network.units) - narrow:
            return network
    if any(one.kind == _STABLE_HLO for one in path):
        raise Unusable(
            f"its network is one operation that holds a compiled program ({_STABLE_HLO}, StableHLO), as Keras on JAX "
            "exports: save the model as .keras, and convert that"
        )
    raise Unusable(
        f"it has {convolutions} convolutions and {depthwise} depthwise ones, which no MobileNet V1 or V2 has; "
        f"{_looks_like(path, convolutions, depthwise)}"
    )


def _looks_like(path: Sequence[Operation], convolutions: int, depthwise: int) -> str:
    kinds = {one.kind for one in path}
    functions = {one.values.get("function") for one in path if one.kind == "activation"}
    if not convolutions and not depthwise:
        return "it is only the layers behind a network" if "dense" in kinds else "it holds no image network"
    if not depthwise:
        return "it is another network, such as Inception, ResNet or a small convolutional one"
    if functions & {"hard_swish", "hard_sigmoid", "hard_silu"} or "HardSwish" in kinds:
        return "it looks like a MobileNetV3"
    if functions & {"swish", "silu"}:
        return "it looks like an EfficientNet"
    if depthwise == 11 and convolutions <= _FD_CONVOLUTIONS:
        return "it looks like an FD-MobileNet"
    return "it is another network of its kind"
