"""Which rule pads as a file does: at its image size, or at every size where the file leaves that open."""

import pytest

from mobilenet_hub.architecture import architecture
from mobilenet_hub.weights.padding import SAME, padding_rule
from mobilenet_hub.weights.reading import Unusable

V1 = architecture("mobilenet_v1", 0.25, 3)
BOTTOM_RIGHT, AROUND, NONE = ((0, 1), (0, 1)), ((1, 1), (1, 1)), ((0, 0), (0, 0))


def pads(strided, others=SAME, stem=None):
    found = [strided if unit.stride > 1 else others for unit in V1.units]
    return [stem or found[0], *found[1:]]


@pytest.mark.parametrize("others", [SAME, "explicit"])
@pytest.mark.parametrize(("strided", "rule"), [(SAME, "same"), (BOTTOM_RIGHT, "bottom_right"), (AROUND, "symmetric")])
def test_one_rule_for_every_size(strided, rule, others):
    found = pads(strided)
    if others == "explicit":
        found = [
            one if unit.stride > 1 else ((unit.kernel_size // 2,) * 2,) * 2
            for unit, one in zip(V1.units, found, strict=True)
        ]
    assert padding_rule(V1, found, None) == rule
    if (strided, others) != (SAME, "explicit"):  # of 96 pixels these two are the same
        assert padding_rule(V1, found, (96, 96)) == rule


def test_what_is_equal_at_even_sizes_alone_needs_the_size():
    """Keras's V1 of any size: its first convolution pads as SAME, the others at the bottom and on the right."""
    found = pads(BOTTOM_RIGHT, stem=SAME)
    assert padding_rule(V1, found, (96, 96)) == "bottom_right"
    with pytest.raises(Unusable, match="pads images of 97x97 in a way"):
        padding_rule(V1, found, (97, 97))
    with pytest.raises(Unusable, match="give the image size"):
        padding_rule(V1, found, None)


@pytest.mark.parametrize("found", [pads(((2, 0), (2, 0))), pads(BOTTOM_RIGHT, others=NONE), pads(NONE)])
def test_no_rule_is_refused_without_a_size(found):
    with pytest.raises(Unusable, match=r"the size of its map|give the image size"):
        padding_rule(V1, found, None)
