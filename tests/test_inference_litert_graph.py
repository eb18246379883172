"""The LiteRT model against TF-Slim's own outputs over the whole catalogue, and against a float64 reference."""

from dataclasses import replace

import numpy as np
import pytest
from reference_network import forward, random_weights
from test_inference_graph import PUBLISHED, RELATIVE, difference

from mobilenet_hub.architecture import Variant, architecture, mobilenet_v1, mobilenet_v2
from mobilenet_hub.errors import InputError
from mobilenet_hub.inference.graph import output_names
from mobilenet_hub.inference.litert import LiteRTModel
from mobilenet_hub.inference.litert_graph import build_litert, signature_name


@pytest.fixture(scope="module", autouse=True)
def litert():
    return pytest.importorskip("ai_edge_litert")


def run(network, weights, images, outputs, **options):
    model = LiteRTModel(build_litert(network, weights, images.shape[1:3], outputs, **options))
    results = model.run(images)
    return {name: results[signature_name(name)] for name in outputs}


@pytest.mark.parametrize(("name", "multiplier", "size"), PUBLISHED)
def test_published_configurations_give_what_tf_slim_gives(name, multiplier, size, golden, published):
    key = f"{name}_{round(multiplier * 100):03d}_{size}"
    network = architecture(name, multiplier, 1001)
    weights = {n: golden.golden_array(n, variable.shape) for n, variable in network.variables.items()}
    prefix = f"{key}/endpoint/"
    endpoints = sorted({k.removeprefix(prefix).rsplit("/", 1)[0] for k in published if k.startswith(prefix)})
    results = run(network, weights, golden.golden_images(2, size, size), ["logits", "features", *endpoints])
    assert difference(results["logits"], published[f"{key}/logits"]) < RELATIVE
    assert difference(results["features"], published[f"{key}/features"]) < RELATIVE
    for endpoint in endpoints:
        value, scale = results[endpoint], np.abs(results[endpoint]).max()
        assert list(value.shape) == published[f"{prefix}{endpoint}/shape"].tolist()
        assert abs(value.mean(dtype=np.float64) - published[f"{prefix}{endpoint}/mean"]) < RELATIVE * scale, endpoint
        first = value.reshape(-1)[:8]
        assert np.abs(first - published[f"{prefix}{endpoint}/first8"]).max() < RELATIVE * scale, endpoint


@pytest.mark.parametrize("size", [(97, 97), (129, 65), (33, 160), (101, 75), (7, 1), (1, 1)])
@pytest.mark.parametrize("make", [mobilenet_v1, mobilenet_v2])
def test_odd_and_oblong_sizes_follow_the_reference(make, size):
    network = make(0.35, num_classes=7)
    weights = random_weights(network)
    images = np.random.default_rng(1).random((2, *size, 3), np.float32)
    expected = forward(network, weights, images)
    for name, value in run(network, weights, images, output_names(network)).items():
        assert difference(value, expected[name]) < RELATIVE, name


@pytest.mark.parametrize("multiplier", [0.07, 0.42, 1.17])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_unusual_multipliers_follow_the_reference(name, multiplier):
    network = architecture(name, multiplier, 5)
    weights = random_weights(network, seed=2)
    images = np.random.default_rng(3).random((1, 64, 64, 3), np.float32)
    expected = forward(network, weights, images)
    for output, value in run(network, weights, images, ["logits", "features"]).items():
        assert difference(value, expected[output]) < RELATIVE, output


@pytest.mark.parametrize("size", [(64, 64), (65, 47), (33, 34)])
@pytest.mark.parametrize("padding", ["symmetric", "bottom_right"])
@pytest.mark.parametrize("make", [mobilenet_v1, mobilenet_v2])
def test_paddings_of_peers_follow_the_reference(make, padding, size):
    network = replace(make(0.25, num_classes=3), variant=Variant(padding=padding))
    weights = random_weights(network)
    images = np.random.default_rng(4).random((1, *size, 3), np.float32)
    expected = forward(network, weights, images)
    for name, value in run(network, weights, images, output_names(network)).items():
        assert difference(value, expected[name]) < RELATIVE, name


@pytest.mark.parametrize("hidden_units", [(20,), (20, 9)])
def test_hidden_layers_scale_offset_and_epsilon_of_peers_follow_the_reference(hidden_units):
    variant = Variant(hidden_units=hidden_units, input_scale=1.7, input_offset=-0.6, batch_norm_epsilon=0.1)
    network = replace(mobilenet_v2(0.35, num_classes=2), variant=variant)
    weights = random_weights(network)
    images = np.random.default_rng(5).random((2, 48, 48, 3), np.float32)
    value = run(network, weights, images, ["logits"])["logits"]
    assert difference(value, forward(network, weights, images)["logits"]) < RELATIVE


def test_photos_as_uint8_are_the_same_as_their_fractions():
    network = mobilenet_v1(0.25, num_classes=0)
    weights = random_weights(network)
    photos = np.random.default_rng(6).integers(0, 256, (2, 63, 64, 3), np.uint8)
    value = run(network, weights, photos, ["features"], input_type="uint8")["features"]
    assert difference(value, forward(network, weights, photos / 255)["features"]) < RELATIVE


def test_a_free_batch_size_may_be_changed():
    from ai_edge_litert.interpreter import Interpreter

    network = mobilenet_v2(0.35, num_classes=4)
    weights = random_weights(network)
    images = np.random.default_rng(7).random((3, 40, 32, 3), np.float32)
    content = build_litert(network, weights, (40, 32), ["logits", "Predictions"], batch_size=None)
    runner = Interpreter(model_content=content).get_signature_runner("serving_default")
    results, expected = runner(images=images), forward(network, weights, images)
    for name in ("logits", "Predictions"):
        assert difference(results[name], expected[name]) < RELATIVE


def test_weights_lie_aligned_and_once():
    """Sixteen bytes, as the schema demands: some kernels read vectors."""
    from ai_edge_litert import schema_py_generated as schema

    network = mobilenet_v1(0.25, num_classes=3)
    content = build_litert(network, random_weights(network), (32, 32), ["logits", "Logits"])
    model = schema.Model.GetRootAsModel(content, 0)
    found = 0
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0
            found += buffer.DataLength()
    folded = sum(np.prod(u.kernel.shape) + u.out_channels for u in network.units) + 256 * 3 + 3
    assert 4 * folded <= found <= 4 * folded + 64  # and the scale, the offset, the axes


def test_what_a_network_does_not_have_is_refused():
    network = mobilenet_v1(0.25, num_classes=0)
    for outputs in (["logits"], ["layer_7"], []):
        with pytest.raises(InputError, match="features"):
            build_litert(network, random_weights(network), (32, 32), outputs)
    for size in ((0, 32), (32, 20_000), (32,)):
        with pytest.raises(InputError, match="image size"):
            build_litert(network, random_weights(network), size, ["features"])
