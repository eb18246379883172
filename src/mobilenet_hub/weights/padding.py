"""Which of a module's padding rules a file's convolutions follow."""

from collections.abc import Sequence

from mobilenet_hub.architecture import Architecture, ConvUnit, Padding, output_size, pad_amounts
from mobilenet_hub.weights.reading import Unusable

Pads = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))
SAME = "same"
_FIXED: dict[Padding, Pads | str] = {  # what each rule is called in files of no image size, at stride 2
    "same": SAME, "bottom_right": ((0, 1), (0, 1)), "symmetric": ((1, 1), (1, 1)),
}  # fmt: skip
_PREFERRED: dict[str, tuple[Padding, ...]] = {  # of those that fit at one size, which to honour at others
    "mobilenet_v1": ("bottom_right", "same", "symmetric"),
    "mobilenet_v2": ("same", "bottom_right", "symmetric"),
}


def preferred_padding(network: Architecture) -> Padding:
    """Return the rule of keras.applications, for files that say nothing of padding.

    V1 pads ((0, 1), (0, 1)) always, V2 as SAME of the size that it was built for.
    """
    return _PREFERRED[network.name][0]


def padding_rule(network: Architecture, pads: Sequence[Pads | str], size: tuple[int, int] | None) -> Padding:
    """Return the rule that pads every unit as a file does at its size.

    Args:
        network: the architecture.
        pads: of each unit's convolution: "same", or ((top, bottom), (left, right)).
        size: (height, width) of the images, where it is known.

    Raises:
        Unusable: no rule pads so.
    """
    if all(one == SAME for one in pads):
        return "same"
    if size is None:
        return _rule_at_any_size(network, pads)
    for padding in _PREFERRED[network.name]:
        height, width = size
        for unit, one in zip(network.units, pads, strict=True):
            if _pads_of(unit, height, width, padding) != _resolved(unit, height, width, one):
                break
            height = output_size(height, unit.kernel_size, unit.stride, padding)
            width = output_size(width, unit.kernel_size, unit.stride, padding)
        else:
            return padding
    raise Unusable(f"it pads images of {size[0]}x{size[1]} in a way that a module cannot record")


def _rule_at_any_size(network: Architecture, pads: Sequence[Pads | str]) -> Padding:
    """Return the rule of all strided convolutions; of others none may change the size of its map."""
    strided: set[Pads | str] = set()
    for unit, one in zip(network.units, pads, strict=True):
        around = ((unit.kernel_size // 2,) * 2,) * 2
        if unit.stride > 1:
            strided.add(one)
        elif one not in (SAME, around):
            raise Unusable(f"{unit.scope} is padded by {one}, where a MobileNet keeps the size of its map")
    rules: list[Padding] = [rule for rule, fixed in _FIXED.items() if strided == {fixed}]
    if not rules:
        raise Unusable(
            "its strided convolutions pad in several ways, which are no rule of a module for every image size; give "
            "the image size, e.g. image_size=224"
        )
    return rules[0]


def _pads_of(unit: ConvUnit, height: int, width: int, padding: Padding) -> Pads:
    return (
        pad_amounts(height, unit.kernel_size, unit.stride, padding),
        pad_amounts(width, unit.kernel_size, unit.stride, padding),
    )


def _resolved(unit: ConvUnit, height: int, width: int, pads: Pads | str) -> Pads:
    return pads if not isinstance(pads, str) else _pads_of(unit, height, width, "same")
