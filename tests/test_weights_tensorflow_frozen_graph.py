"""Frozen graphs: read whole, and refused where anything was cut off, doubled or renamed."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_files import (
    blob,
    constant,
    frozen_graph,
    frozen_graph_nodes,
    graph,
    node,
    placeholder,
    some_weights,
)

from mobilenet_hub.architecture import mobilenet_v1
from mobilenet_hub.errors import CorruptFileError, InvalidModuleError, MobileNetHubError
from mobilenet_hub.weights.archive import unpack
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.identify import ASSUMED
from mobilenet_hub.weights.tensorflow.frozen_graph import read_frozen_graph

WEIGHTS = some_weights(mobilenet_v1(0.25, 3))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "net.pb"


@pytest.mark.parametrize("scope", ["", "import/", "module_apply_default/"])
def test_weights_and_size_are_read(file, scope):
    file.write_bytes(frozen_graph(WEIGHTS, (96, 160), scope))
    source = read_frozen_graph(file)
    assert source.image_size == (96, 160)
    assert source.weights.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(source.weights[name], array)


def test_a_first_layer_for_pixels_is_known_by_its_size(file):
    """A converter that makes `x / 255` a part of the first kernel leaves no trace of it but this."""
    kernel = mobilenet_v1(0.25, 3).units[0].kernel.name
    for divisor, entering in ((1, (2, -1)), (127.5, (255, 0)), (255, (255, 0))):
        file.write_bytes(frozen_graph({**WEIGHTS, kernel: WEIGHTS[kernel] / np.float32(divisor)}, (96, 96)))
        config = load_source(file).config
        assert (config.variant.input_scale, config.variant.input_offset) == entering
        assert any("as small as for these alone" in one for one in config.extra.get(ASSUMED, ())) == (divisor > 1)


def test_no_truncation_gives_a_module(file):
    data = frozen_graph(WEIGHTS)
    for size in [*range(0, len(data), len(data) // 300), *range(len(data) - 60, len(data))]:
        file.write_bytes(data[:size])
        with pytest.raises(MobileNetHubError, match=r"net\.pb"):
            load_source(file)


def test_no_cut_between_two_nodes_is_taken_for_a_smaller_network(file):
    """There every node of what is left has its inputs: only the end says that there was more."""
    nodes = frozen_graph_nodes(WEIGHTS)
    for count in range(1, len(nodes) + 1):
        file.write_bytes(b"".join(blob(1, one) for one in nodes[:count]))
        with pytest.raises(MobileNetHubError, match=r"net\.pb"):
            load_source(file, image_size=128)


def test_many_nodes_take_no_longer_than_their_number(file):
    file.write_bytes(graph([node(f"n{at}", "NoOp", [f"n{at - 1}"] if at else []) for at in range(60_000)]))
    start = time.process_time()
    with pytest.raises(MobileNetHubError):
        load_source(file)
    assert time.process_time() - start < 30  # 2 s; a comparison of each with each took minutes


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**9), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_changes_one_number(tmp_path_factory, at, flip):
    """The format has no checksum: what can be known is that names, shapes and everything else are still there."""
    file = tmp_path_factory.mktemp("flip") / "net.pb"
    data = bytearray(frozen_graph(WEIGHTS))
    data[at % len(data)] ^= flip
    file.write_bytes(data)
    try:
        module = load_source(file)
    except MobileNetHubError as error:
        assert "net.pb" in str(error)
    else:
        changed = sum(int((module.weights[name] != array).sum()) for name, array in WEIGHTS.items())
        assert changed <= 1


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=400))
def test_garbage_is_refused(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("garbage") / "net.pb"
    file.write_bytes(data)
    with pytest.raises((CorruptFileError, InvalidModuleError), match=r"net\.pb"):
        load_source(file)


def weight(name):
    return [constant(name, np.ones((3, 3, 3, 8), np.float32)), node(f"{name}/read", "Identity", [name])]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([placeholder((1, 8, 8, 3))] * 2, "node input occurs twice"),
        ([node("a", "Mul", ["gone:0"])], "node a takes gone, which is not there"),
        (weight("MobilenetV1/Conv2d_0/weights"), "Conv2d_0/weights/read is used by no other"),
        (
            [
                *weight("MobilenetV1/Conv2d_0/weights"),
                *weight("b/MobilenetV1/Conv2d_0/weights"),
                node("m", "Mul", ["MobilenetV1/Conv2d_0/weights/read", "b/MobilenetV1/Conv2d_0/weights/read"]),
            ],
            "no placeholder",
        ),
        ([placeholder((1, 8, 8, 3))], "it has 0 outputs"),
        ([node("a", "Dequantize")], "quantized"),
    ],
)
def test_what_is_no_whole_float_network_is_refused(file, nodes, words):
    file.write_bytes(graph(nodes))
    with pytest.raises((CorruptFileError, InvalidModuleError), match=words):
        read_frozen_graph(file)


def test_googles_quantized_graph_is_refused(shared, tmp_path):
    folder = unpack(shared("weights/slim_frozen/mobilenet_v1_0.25_224_frozen.tgz"), tmp_path / "unpacked")
    with pytest.raises(InvalidModuleError, match="quantized"):
        read_frozen_graph(next(folder.rglob("quantized_graph.pb")))
