"""What graphs say beyond their weights, and which are refused."""

import struct

import numpy as np
import pytest
from tensorflow_files import blob, constant, fixed32, graph, node, number, placeholder, shape, variable

from mobilenet_hub.weights.tensorflow.graph_def import Node, facts_of, image_size_of, nodes_of, variant_of
from mobilenet_hub.weights.tensorflow.protobuf import Message


def facts(*nodes):
    return facts_of(nodes_of(Message(graph(nodes))))


def variant(*nodes):
    return variant_of(nodes_of(Message(graph(nodes))))


def conv(op="Conv2D", padding="SAME", stride=2):
    return node("conv", op, padding=blob(2, padding), strides=blob(1, blob(3, bytes([1, stride, stride, 1]))))


def epsilon(value):
    return fixed32(4, struct.unpack("<I", struct.pack("<f", value))[0])


def test_image_size_epsilon_and_variables():
    nodes = (
        placeholder((-1, 96, 128, 3)),
        placeholder((), "is_training"),
        node("norm", "FusedBatchNormV3", epsilon=epsilon(0.002)),
        variable("MobilenetV2/Conv/weights", (3, 3, 3, 16)),
        conv(),
    )
    found = facts(*nodes)
    assert found.image_size == (96, 128)
    assert variant(*nodes).batch_norm_epsilon == pytest.approx(0.002)
    assert found.variables == {"MobilenetV2/Conv/weights": (3, 3, 3, 16)}


def test_what_a_graph_does_not_say_is_slims():
    assert facts(placeholder((-1, -1, -1, 3))).image_size is None
    assert variant(node("norm", "FusedBatchNorm", epsilon=epsilon(0.001))).batch_norm_epsilon == 0.001
    assert variant(constant("a/batchnorm/add/y", np.array(0.001, np.float32))).batch_norm_epsilon == 0.001


def test_two_sizes_are_none():
    assert facts(placeholder((1, 96, 96, 3)), placeholder((1, 128, 128, 3), "other")).image_size is None


def test_nodes_of_functions_are_seen():
    library = blob(2, blob(1, blob(3, placeholder((1, 64, 64, 3)))))
    assert facts_of(nodes_of(Message(library))).image_size == (64, 64)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("q", "FakeQuantWithMinMaxVars")], "node q is FakeQuantWithMinMaxVars: the network is quantized"),
        ([node("q", "Dequantize")], "quantized"),
        ([conv(padding="VALID")], "pads VALID"),
        ([conv("DepthwiseConv2dNative", "VALID", 1)], "pads VALID"),
        ([conv("DepthwiseConv2dNative", "EXPLICIT")], "pads EXPLICIT"),
        (
            [node("a", "FusedBatchNorm", epsilon=epsilon(0.1)), node("b", "FusedBatchNorm", epsilon=epsilon(0.2))],
            "different epsilons",
        ),
    ],
)
def test_other_computations_are_refused(nodes, words):
    with pytest.raises(ValueError, match=words):
        facts(*nodes)
        variant(*nodes)


def test_a_1x1_convolution_may_be_valid():
    variant(conv(padding="VALID", stride=1))


@pytest.mark.parametrize(
    ("sizes", "found"), [((1, 9, 7, 3), (9, 7)), ((1, 9, 7, 4), None), ((9, 7, 3), None), (None, None)]
)
def test_shapes_of_images(sizes, found):
    assert image_size_of(sizes) == found


def constant_of(proto):
    return Node(Message(node("w", "Const", value=blob(8, proto)))).constant()


def test_constants_in_every_encoding():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    head = number(1, 1) + blob(2, shape((2, 3)))
    np.testing.assert_array_equal(constant_of(head + blob(4, array.tobytes())), array)
    np.testing.assert_array_equal(constant_of(head + blob(5, array.tobytes())), array)
    ones = constant_of(number(1, 1) + blob(2, shape((4,))) + fixed32(5, 0x3F800000))
    np.testing.assert_array_equal(ones, np.ones(4))
    colours = constant_of(number(1, 1) + blob(2, shape((1, 1, 1, 3))) + fixed32(5, 0x3F800000))
    np.testing.assert_array_equal(colours, np.ones((1, 1, 1, 3)))
    repeated = constant_of(number(1, 1) + blob(2, shape((4,))) + fixed32(5, 0) + fixed32(5, 0x3F800000))
    np.testing.assert_array_equal(repeated, [0, 1, 1, 1])
    np.testing.assert_array_equal(constant_of(number(1, 19) + blob(2, shape((1,))) + blob(4, b"\0\x3c")), [1])


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (number(1, 1) + blob(2, shape((2**40,))) + blob(4, bytes(8)), "w has 8 bytes for shape"),
        (number(1, 1) + blob(2, shape((2**40,))) + fixed32(5, 0), "w has 4 bytes for shape"),
        (number(1, 1) + blob(2, shape((3, 3, 2**20, 1))) + fixed32(5, 0), "w has 4 bytes for shape"),
        (number(1, 1) + blob(2, shape((-1,))) + blob(4, b""), "w has the shape"),
        (number(1, 7) + blob(2, shape((1,))), "TensorFlow's type 7"),
        (number(1, 1) + blob(2, number(3, 1)), "w has no shape"),
    ],
)
def test_constants_that_lie_are_refused(proto, words):
    with pytest.raises(ValueError, match=words):
        constant_of(proto)
