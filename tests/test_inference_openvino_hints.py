"""Hints to OpenVINO about single nodes arrive where they are meant, and change nothing else."""

import subprocess
import sys

import numpy as np
import pytest
from reference_network import random_weights

from mobilenet_hub.architecture import mobilenet_v1, mobilenet_v2
from mobilenet_hub.inference.graph import build_graph, import_openvino
from mobilenet_hub.inference.openvino_hints import keep_float32, names_up_to, prefer_avx2_kernels, wants_avx2_kernels


@pytest.fixture(scope="module", autouse=True)
def openvino():
    return pytest.importorskip("openvino", reason="needs the extra openvino")


def hinted(model, attribute):
    """The nodes that have a hint, by name."""
    return {
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if any(attribute in key for key in node.get_rt_info())
    }


def test_avx2_kernels_are_asked_for_in_all_convolutions_but_the_first():
    network = mobilenet_v2(0.35)
    model = build_graph(network, random_weights(network), (33, 40), ["logits", "layer_3"], batch_size=2)
    preferred = prefer_avx2_kernels(model)
    convolutions = [node for node in preferred.get_ordered_ops() if "Convolution" in node.get_type_name()]
    assert hinted(preferred, "primitives_priority") == {node.get_friendly_name() for node in convolutions[1:]}
    assert not hinted(model, "primitives_priority")

    images = np.random.default_rng(0).random((2, 33, 40, 3), np.float32)
    core, settings = import_openvino().Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    plain, other = (core.compile_model(each, "CPU", settings)(images) for each in (model, preferred))
    for index in (0, 1):
        np.testing.assert_allclose(other[index], plain[index], atol=1e-5 * np.abs(plain[index]).max())


def test_what_stays_float32_is_what_is_named():
    network = mobilenet_v1(0.25, num_classes=0)
    model = build_graph(network, random_weights(network), (32, 32), ["features"], input_type="uint8")
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() not in ("Constant", "Parameter")]
    clamps = [index for index, node in enumerate(nodes) if node.get_type_name() == "Clamp"]
    kept = keep_float32(model, names_up_to([nodes[clamps[2]]]))
    assert hinted(kept, "DisablePrecision") == {node.get_friendly_name() for node in nodes[: clamps[2] + 1]}


def test_avx2_kernels_are_for_cpus_with_avx2_and_nothing_wider():
    assert wants_avx2_kernels(frozenset({"avx", "avx2", "fma"}))
    for instructions in ({"avx"}, {"avx2", "avx512f"}, {"asimd", "bf16"}, ()):
        assert not wants_avx2_kernels(frozenset(instructions))


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_without_room_for_a_temporary_file_kernels_are_left_as_they_are_and_float32_is_refused():
    """In a process of its own, which may write no file beyond 64 kB."""
    code = """
import resource
import numpy as np
from mobilenet_hub.architecture import mobilenet_v1
from mobilenet_hub.errors import InputError
from mobilenet_hub.inference.graph import build_graph
from mobilenet_hub.inference.openvino_hints import keep_float32, prefer_avx2_kernels
network = mobilenet_v1(0.25, num_classes=0)
weights = {name: np.ones(variable.shape, np.float32) for name, variable in network.variables.items()}
model = build_graph(network, weights, (32, 32), ["features"])
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
assert prefer_avx2_kernels(model) is None
try:
    keep_float32(model, [node.get_friendly_name() for node in model.get_ordered_ops()])
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "TMPDIR" in done.stdout
    assert "precision f32" in done.stdout
