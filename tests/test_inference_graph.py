"""The inference graph against TF-Slim's own outputs over the whole catalogue, and against a float64 reference."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from reference_network import forward, random_weights

from mobilenet_hub.architecture import Variant, architecture, mobilenet_v1, mobilenet_v2
from mobilenet_hub.errors import InputError
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.inference.graph import build_graph, fold_batch_norm, import_openvino, output_names
from mobilenet_hub.weights.convert import load_source

V1_SIZES, V2_SIZES = (128, 160, 192, 224), (96, 128, 160, 192, 224)
PUBLISHED = [
    *(("mobilenet_v1", multiplier, size) for multiplier in (0.25, 0.5, 0.75, 1.0) for size in V1_SIZES),
    *(("mobilenet_v2", multiplier, size) for multiplier in (0.35, 0.5, 0.75, 1.0) for size in V2_SIZES),
    ("mobilenet_v2", 1.3, 224),
    ("mobilenet_v2", 1.4, 224),
]
RELATIVE = 1e-4  # of the largest value: what independent float32 implementations of these networks agree to


@pytest.fixture(scope="module", autouse=True)
def openvino():
    return pytest.importorskip("openvino", reason="needs the extra openvino")


def difference(value, expected):
    """The largest difference over the largest value expected."""
    assert value.shape == expected.shape
    return np.abs(value.astype(np.float64) - expected).max() / np.abs(expected).max()


def run(network, weights, images, outputs, **options):
    ov = import_openvino()
    graph = build_graph(network, weights, images.shape[1:3], outputs, **options)
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(images)
    return {name: results[i] for i, name in enumerate(outputs)}


def test_there_are_38_published_configurations():
    assert len(PUBLISHED) == 38


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


@pytest.mark.parametrize("size", [(97, 97), (129, 65), (33, 160), (101, 75), (7, 1)])
@pytest.mark.parametrize("make", [mobilenet_v1, mobilenet_v2])
def test_odd_and_oblong_sizes_follow_the_reference(make, size):
    network = make(0.35, num_classes=7)
    weights = random_weights(network)
    images = np.random.default_rng(1).random((2, *size, 3), np.float32)
    expected = forward(network, weights, images)
    results = run(network, weights, images, output_names(network))
    assert set(results) == set(expected)
    for name, value in results.items():
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


@pytest.mark.parametrize("size", [(64, 64), (65, 47)])
@pytest.mark.parametrize("padding", ["symmetric", "bottom_right"])
def test_paddings_of_peers_follow_the_reference(padding, size):
    network = replace(mobilenet_v1(0.25, num_classes=3), variant=Variant(padding=padding))
    weights = random_weights(network)
    images = np.random.default_rng(4).random((1, *size, 3), np.float32)
    value = run(network, weights, images, ["Conv2d_2_depthwise", "logits"])
    expected = forward(network, weights, images)
    assert all(difference(v, expected[k]) < RELATIVE for k, v in value.items())
    if padding == "symmetric" or size != (64, 64):  # of an even size, bottom_right is same
        other = forward(replace(network, variant=Variant()), weights, images)["Conv2d_2_depthwise"]
        assert (
            other.shape != expected["Conv2d_2_depthwise"].shape or difference(value["Conv2d_2_depthwise"], other) > 0.01
        )


def test_hidden_layer_scale_and_epsilon_of_peers_follow_the_reference():
    network = replace(
        mobilenet_v2(0.35, num_classes=2),
        variant=Variant(0.1, input_scale=1.7, input_offset=-0.7, hidden_units=(20, 9)),
    )
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


def test_folding_rounds_once():
    network = mobilenet_v1(0.25, num_classes=0)
    weights = random_weights(network)
    for unit in network.units[:2]:
        kernel, bias = fold_batch_norm(network, unit, weights)
        gamma, beta, mean, variance = (weights[v.name].astype(np.longdouble) for v in unit.batch_norm)
        scale = gamma / np.sqrt(variance + network.variant.batch_norm_epsilon)
        exact = weights[unit.kernel.name] * (scale[:, None] if unit.depthwise else scale)
        half_a_step = np.finfo(np.float32).eps / 2 * 1.000001
        assert (np.abs(kernel - exact) <= half_a_step * np.abs(exact)).all()
        assert np.abs(bias - (beta - mean * scale)).max() < 1e-7


def test_what_a_network_does_not_have_is_refused():
    network = mobilenet_v1(0.25, num_classes=0)
    for outputs in (["logits"], ["layer_7"], []):
        with pytest.raises(InputError, match="features"):
            build_graph(network, random_weights(network), (32, 32), outputs)
    for size in ((0, 32), (32, 20_000), (32,)):
        with pytest.raises(InputError, match="image size"):
            build_graph(network, random_weights(network), size, ["features"])


def test_importing_openvino_brings_no_telemetry_and_loses_nothing():
    import subprocess

    code = (
        "import sys; from mobilenet_hub.inference.graph import import_openvino; ov = import_openvino();"
        "assert not any('telemetry' in name or 'tools.ovc' in name for name in sys.modules);"
        "assert callable(ov.convert_model)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_graph_for_bfloat16_marks_the_first_layers_of_noisy_networks_to_stay_float32():
    network = mobilenet_v1(0.25)
    for noisy, marked in ((None, 0), (3, 4)):
        weights = random_weights(network)
        for index, unit in enumerate(network.units):
            variance = weights[unit.batch_norm[3].name]
            variance[:] = 1e-5 if index == noisy else 20
        graph = build_graph(network, weights, (33, 40), ["logits", "features"], precision="bf16")
        nodes = graph.get_ordered_ops()
        convolutions = [node for node in nodes if "Convolution" in node.get_type_name()]
        kept = [any("DisablePrecision" in key for key in node.get_rt_info()) for node in convolutions]
        assert kept == [True] * marked + [False] * (27 - marked) + [True]  # the classifier
        pooling = next(node for node in nodes if node.get_type_name() == "ReduceMean")
        assert any("DisablePrecision" in key for key in pooling.get_rt_info())
        scaling = next(node for node in nodes if node.get_type_name() == "Multiply")
        assert any("DisablePrecision" in key for key in scaling.get_rt_info()) == bool(marked)
        assert [output.get_any_name() for output in graph.outputs] == ["logits", "features"]


def test_a_graph_for_bfloat16_differs_by_rounded_kernels_only():
    """Computed in float32, so on every CPU."""
    network = mobilenet_v1(0.25)
    weights, images = random_weights(network), np.random.default_rng(0).random((4, 48, 48, 3), np.float32)
    exact = run(network, weights, images, ["features"])["features"]
    value = run(network, weights, images, ["features"], precision="bf16")["features"]
    assert 1e-5 < difference(value, exact) < 0.01


@pytest.mark.parametrize("size", [128, 224])
def test_biases_make_up_for_the_rounded_kernels_of_pretrained_networks(size, shared):
    """Rounded as they are, kernels and biases take the features' mean cosine to 0.997."""
    suffix = {128: "128_frozen.pb", 224: "224_frozen.tgz"}[size]
    module = load_source(shared(f"weights/slim_frozen/mobilenet_v1_0.25_{suffix}"))
    images = Preprocessing(size).load_batch(sorted(shared("photos/imagenet_samples").glob("*.JPEG"))[:24]) / np.float32(
        255
    )
    exact, value = (
        run(module.config.network, module.weights, images, ["features"], precision=precision)["features"]
        for precision in ("f32", "bf16")
    )
    cosine = (value * exact).sum(1) / np.linalg.norm(value, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0.9998 < cosine.mean() < 0.999999
