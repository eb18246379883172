"""The two networks as data, against the tables and counts that TF-Slim and the module pages publish."""

from itertools import pairwise
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenet_hub.architecture import (
    BATCH_NORM_LEAVES,
    BUILDERS,
    Architecture,
    architecture,
    make_divisible,
    mobilenet_v1,
    mobilenet_v2,
    output_size,
    pad_amounts,
)
from mobilenet_hub.catalog import published as catalog
from mobilenet_hub.catalog.costs import cost, misprinted_macs
from mobilenet_hub.errors import InputError

CONFIGURATIONS = pytest.mark.parametrize("configuration", catalog.configurations(), ids=lambda c: c.name)

# mobilenet_v1.py with its four published multipliers: depth of Conv2d_0 and of the 13 pointwise convolutions.
V1_DEPTHS = {
    0.25: (8, 16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256),
    0.5: (16, 32, 64, 64, 128, 128, 256, 256, 256, 256, 256, 256, 512, 512),
    0.75: (24, 48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384, 768, 768),
    1.0: (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024),
}
# mobilenet_v2.py: Conv; the blocks' outputs; their depthwise widths; Conv_1.
V2_DEPTHS = {
    0.35: (16, (8, 8, 8, 16, 16, 16, 24, 24, 24, 24, 32, 32, 32, 56, 56, 56, 112),
           (16, 48, 48, 48, 96, 96, 96, 144, 144, 144, 144, 192, 192, 192, 336, 336, 336), 1280),
    0.5: (16, (8, 16, 16, 16, 16, 16, 32, 32, 32, 32, 48, 48, 48, 80, 80, 80, 160),
          (16, 48, 96, 96, 96, 96, 96, 192, 192, 192, 192, 288, 288, 288, 480, 480, 480), 1280),
    0.75: (24, (16, 24, 24, 24, 24, 24, 48, 48, 48, 48, 72, 72, 72, 120, 120, 120, 240),
           (24, 96, 144, 144, 144, 144, 144, 288, 288, 288, 288, 432, 432, 432, 720, 720, 720), 1280),
    1.0: (32, (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320),
          (32, 96, 144, 144, 192, 192, 192, 384, 384, 384, 384, 576, 576, 576, 960, 960, 960), 1280),
    1.3: (40, (24, 32, 32, 40, 40, 40, 80, 80, 80, 80, 128, 128, 128, 208, 208, 208, 416),
          (40, 144, 192, 192, 240, 240, 240, 480, 480, 480, 480, 768, 768, 768, 1248, 1248, 1248), 1664),
    1.4: (48, (24, 32, 32, 48, 48, 48, 88, 88, 88, 88, 136, 136, 136, 224, 224, 224, 448),
          (48, 144, 192, 192, 288, 288, 288, 528, 528, 528, 528, 816, 816, 816, 1344, 1344, 1344), 1792),
}  # fmt: skip
# (architecture, multiplier) -> trainable parameters of feature vector and classifier, and moving statistics
PARAMETERS = {
    ("mobilenet_v1", 0.25): (213_072, 470_329, 5_472),
    ("mobilenet_v1", 0.5): (818_592, 1_332_105, 10_944),
    ("mobilenet_v1", 0.75): (1_816_560, 2_586_329, 16_416),
    ("mobilenet_v1", 1.0): (3_206_976, 4_233_001, 21_888),
    ("mobilenet_v2", 0.35): (396_128, 1_678_409, 14_080),
    ("mobilenet_v2", 0.5): (687_680, 1_969_961, 18_544),
    ("mobilenet_v2", 0.75): (1_355_424, 2_637_705, 26_640),
    ("mobilenet_v2", 1.0): (2_223_872, 3_506_153, 34_112),
    ("mobilenet_v2", 1.3): (3_721_792, 5_388_457, 44_256),
    ("mobilenet_v2", 1.4): (4_315_776, 6_110_569, 47_936),
}


def out_channels(network: Architecture, ending: str) -> tuple[int, ...]:
    return tuple(unit.out_channels for unit in network.units if unit.scope.endswith(ending))


@pytest.mark.parametrize("multiplier", V1_DEPTHS)
def test_v1_depths(multiplier):
    network = mobilenet_v1(multiplier)
    stem, *_ = V1_DEPTHS[multiplier]
    assert network.units[0].out_channels == stem
    assert (stem, *out_channels(network, "_pointwise")) == V1_DEPTHS[multiplier]
    assert out_channels(network, "_depthwise") == V1_DEPTHS[multiplier][:-1]
    assert [unit.stride for unit in network.units if unit.kernel_size == 3] == [
        2,
        1,
        2,
        1,
        2,
        1,
        2,
        1,
        1,
        1,
        1,
        1,
        2,
        1,
    ]


@pytest.mark.parametrize("multiplier", V2_DEPTHS)
def test_v2_depths(multiplier):
    network = mobilenet_v2(multiplier)
    stem, outputs, widths, last = V2_DEPTHS[multiplier]
    assert network.units[0].out_channels == stem
    assert out_channels(network, "/project") == outputs
    assert out_channels(network, "/depthwise") == widths
    assert out_channels(network, "/expand") == widths[1:]  # the first block does not expand
    assert network.num_features == last


@CONFIGURATIONS
def test_parameter_counts(configuration):
    key = (configuration.architecture, configuration.depth_multiplier)
    features, classifier, statistics = PARAMETERS[key]
    assert architecture(*key, 0).parameters(trainable=True) == features
    assert architecture(*key, 1001).parameters(trainable=True) == classifier
    assert architecture(*key, 1001).parameters(trainable=False) == statistics
    assert architecture(*key, 1001).parameters() == classifier + statistics


@CONFIGURATIONS
def test_the_published_parameter_column_is_reproduced(configuration):
    network = architecture(configuration.architecture, configuration.depth_multiplier, 1001)
    # The Mparams columns count kernels and classifiers; V1's beta and moving statistics besides, but not gamma, as its
    # figures come from a scope with scale=False.
    skipped = {"mobilenet_v1": ("gamma",), "mobilenet_v2": BATCH_NORM_LEAVES}[network.name]
    counted = sum(prod(v.shape) for v in network.variables.values() if not v.name.endswith(skipped))
    assert round(counted / 1e6, 2) == configuration.published.mparams


@CONFIGURATIONS
def test_the_published_macs_are_reproduced(configuration):
    """V2's column cuts to whole millions, V1's rounds; five rows of V1 print something else."""
    millions = cost(configuration, 1001).macs / 1e6
    if configuration.architecture == "mobilenet_v2":
        assert int(millions) == configuration.published.mmacs
    elif configuration not in misprinted_macs():
        assert abs(millions - configuration.published.mmacs) <= 0.51


def test_the_rows_whose_published_macs_are_wrong():
    found = {c.name: round(cost(c, 1001).macs / 1e6, 1) for c in misprinted_macs()}
    assert found == {
        "mobilenet_v1_025_192": 30.2,
        "mobilenet_v1_075_128": 106.8,
        "mobilenet_v1_075_160": 166.4,
        "mobilenet_v1_075_192": 239.3,
        "mobilenet_v1_075_224": 325.4,
    }


def test_the_constants_of_slims_own_tests():
    assert mobilenet_v1(0.75, 0).macs(128, 128) == 106_002_432  # mobilenet_v1.py's docstring
    without_gamma = mobilenet_v1(1.0, 0).parameters() - sum(unit.out_channels for unit in mobilenet_v1(1.0).units)
    assert without_gamma == 3_217_920  # mobilenet_v1_test.py, testModelHasExpectedNumberOfParameters
    tiny = mobilenet_v2(0.01)  # mobilenet_v2_test.py, testFineGrained: every depth but the last is 8 (48 expanded)
    assert {unit.out_channels for unit in tiny.units} == {8, 48, 1280}


@pytest.mark.parametrize("multiplier", [m / 100 for m in range(10, 201)])
def test_v2_depths_are_rounded_from_the_exact_product(multiplier):
    """conv_blocks._make_divisible takes the float: never below 90 % of it, a multiple of 8, the nearest that is."""
    for unit, nominal in zip(
        (u for u in mobilenet_v2(multiplier).units if u.scope.endswith("/project")),
        V2_DEPTHS[1.0][1],
        strict=True,
    ):
        exact = nominal * multiplier
        allowed = [d for d in range(8, 800, 8) if d >= 0.9 * exact]
        assert unit.out_channels == min(allowed, key=lambda d: (abs(d - exact), -d))


def test_multipliers_where_peers_differ():
    """keras.applications cuts the product to a whole number before it rounds; Transformers rounds it first."""
    differ = []
    for multiplier in (m / 100 for m in range(10, 201)):
        exact, cut, rounded = [], [], []
        for nominal in (32, 16, 24, 32, 64, 96, 160, 320):
            exact.append(make_divisible(nominal * multiplier))
            cut.append(make_divisible(int(nominal * multiplier)))
            rounded.append(make_divisible(round(nominal * multiplier)))
        if exact != cut or exact != rounded:
            differ.append(multiplier)
    assert {0.28, 0.42, 0.54, 0.56, 0.68} <= set(differ)
    assert not set(V2_DEPTHS) & set(differ)


@CONFIGURATIONS
def test_the_feature_vector_is_as_long_as_the_module_pages_say(configuration):
    network = architecture(configuration.architecture, configuration.depth_multiplier, 0)
    assert network.num_features == configuration.num_features
    assert network.classifier == ()


def test_v2_endpoint_shapes_at_224():
    shapes = mobilenet_v2(1.0).endpoint_shapes(224, 224)
    sides = dict(zip(range(2, 19), (112, 56, 56, 28, 28, 28, *[14] * 7, *[7] * 4), strict=True))
    depths = dict(zip(range(2, 19), V2_DEPTHS[1.0][1], strict=True))
    widths = dict(zip(range(2, 19), V2_DEPTHS[1.0][2], strict=True))
    assert shapes["layer_1"] == (112, 112, 32)
    for k in range(2, 19):
        side, before = sides[k], sides.get(k - 1, 112)
        assert shapes[f"layer_{k}"] == shapes[f"layer_{k}/output"] == (side, side, depths[k])
        assert shapes[f"layer_{k}/depthwise_output"] == (side, side, widths[k])
        assert shapes.get(f"layer_{k}/expansion_output") == (None if k == 2 else (before, before, widths[k]))
    assert shapes["layer_19"] == (7, 7, 1280)
    assert shapes["global_pool"] == (1, 1, 1280)
    assert shapes["Logits"] == shapes["Predictions"] == (1001,)
    assert len(shapes) == 2 + 3 + 16 * 4 + 3


def test_endpoint_shapes_are_those_that_tf_slim_computed(published):
    by_name = {configuration.name: configuration for configuration in catalog.configurations()}
    keys = [key for key in published if "/endpoint/" in key and key.endswith("/shape")]
    assert len(keys) > 100
    for key in keys:
        name, endpoint = key.removesuffix("/shape").split("/endpoint/")
        configuration = by_name[name]
        network = architecture(configuration.architecture, configuration.depth_multiplier, 1001)
        shapes = network.endpoint_shapes(configuration.size, configuration.size)
        assert tuple(published[key])[1:] == shapes[endpoint], key


@pytest.mark.parametrize(
    "size, stages",
    [
        (224, (112, 56, 28, 14, 7)), (192, (96, 48, 24, 12, 6)), (160, (80, 40, 20, 10, 5)), (128, (64, 32, 16, 8, 4)),
        (96, (48, 24, 12, 6, 3)), (32, (16, 8, 4, 2, 1)), (33, (17, 9, 5, 3, 2)), (100, (50, 25, 13, 7, 4)),
        (150, (75, 38, 19, 10, 5)), (225, (113, 57, 29, 15, 8)), (300, (150, 75, 38, 19, 10)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_spatial_sizes(build, size, stages):
    network = build(1.0)
    sizes = network.output_sizes(size, 2 * size)
    after = [out[0] for unit, out in zip(network.units, sizes, strict=True) if unit.stride == 2]
    assert tuple(after) == stages
    assert sizes[-1] == (stages[-1], output_sizes_of(2 * size))


def output_sizes_of(size: int) -> int:
    for _ in range(5):
        size = (size + 1) // 2
    return size


def windows(size: int, before: int, after: int, kernel: int, stride: int) -> int:
    """Count by hand the kernel's places on an axis with zeros before and after it."""
    return len([start for start in range(-before, size + after - kernel + 1) if (start + before) % stride == 0])


@given(size=st.integers(1, 400), kernel=st.sampled_from([1, 3, 5]), stride=st.sampled_from([1, 2]))
def test_same_padding_is_tensorflows(size, kernel, stride):
    before, after = pad_amounts(size, kernel, stride)
    outputs = -(-size // stride)
    assert windows(size, before, after, kernel, stride) == outputs == output_size(size, kernel, stride)
    assert after - before in (0, 1)  # the odd zero lies after
    fewest = min(pads for pads in range(kernel) if windows(size, 0, pads, kernel, stride) >= outputs)
    assert before + after == fewest


@given(size=st.integers(3, 400), stride=st.sampled_from([1, 2]), padding=st.sampled_from(["symmetric", "bottom_right"]))
def test_the_peers_paddings_count_their_outputs_right(size, stride, padding):
    before, after = pad_amounts(size, 3, stride, padding)
    assert output_size(size, 3, stride, padding) == windows(size, before, after, 3, stride)
    assert (before, after) == ((0, 1) if (padding, stride) == ("bottom_right", 2) else (1, 1))


@given(name=st.sampled_from(list(BUILDERS)), multiplier=st.floats(0.01, 4), classes=st.integers(0, 5000))
def test_any_multiplier_gives_one_consistent_network(name, multiplier, classes):
    network = architecture(name, multiplier, classes)
    assert all(after.in_channels == before.out_channels for before, after in pairwise(network.units))
    assert all(unit.out_channels >= 8 for unit in network.units)
    assert len(network.variables) == 5 * len(network.units) + (2 if classes else 0)
    assert network.parameters() == sum(prod(v.shape) for v in network.variables.values())
    for index, unit in enumerate(network.units):
        if unit.depthwise:
            assert unit.in_channels == unit.out_channels
        if unit.adds is not None:
            assert unit.adds < index and network.units[unit.adds].out_channels == unit.out_channels
    assert ("Logits" in network.endpoints) == bool(classes)
    assert list(network.endpoint_shapes(97, 64)) == list(network.endpoints)


@CONFIGURATIONS
def test_units_residuals_and_regularization(configuration):
    network = architecture(configuration.architecture, configuration.depth_multiplier, 1001)
    features = architecture(configuration.architecture, configuration.depth_multiplier, 0)
    regularized = [v.name for v in network.variables.values() if v.regularized]
    assert not [name for name in regularized if not name.endswith("/weights")]  # kernels of full convolutions only
    sums = [unit.scope.split("/")[1] for unit in network.units if unit.adds is not None]
    if configuration.architecture == "mobilenet_v1":
        assert (len(network.units), len(regularized), sums) == (27, 15, [])
        assert all(unit.relu6 for unit in network.units)
    else:
        assert (len(network.units), len(regularized)) == (52, 36)
        assert sums == [f"expanded_conv_{k}" for k in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)]
        assert [unit.scope for unit in network.units if not unit.relu6] == [
            unit.scope for unit in network.units if unit.scope.endswith("/project")
        ]
    assert sum(v.regularized for v in features.variables.values()) == len(regularized) - 1


def test_variable_names_and_layouts():
    v1, v2 = mobilenet_v1(1.0).variables, mobilenet_v2(1.0).variables
    assert list(v1)[:2] == ["MobilenetV1/Conv2d_0/weights", "MobilenetV1/Conv2d_0/BatchNorm/gamma"]
    assert v1["MobilenetV1/Conv2d_1_depthwise/depthwise_weights"].shape == (3, 3, 32, 1)
    assert v1["MobilenetV1/Conv2d_13_pointwise/weights"].shape == (1, 1, 1024, 1024)
    assert v1["MobilenetV1/Logits/Conv2d_1c_1x1/biases"].shape == (1001,)
    assert v2["MobilenetV2/expanded_conv/depthwise/depthwise_weights"].shape == (3, 3, 32, 1)
    assert "MobilenetV2/expanded_conv/expand/weights" not in v2
    assert v2["MobilenetV2/expanded_conv_16/project/weights"].shape == (1, 1, 960, 320)
    assert v2["MobilenetV2/Conv_1/BatchNorm/moving_variance"].shape == (1280,)
    assert not v2["MobilenetV2/Conv_1/BatchNorm/moving_variance"].trainable
    assert v2["MobilenetV2/Logits/Conv2d_1c_1x1/weights"].shape == (1, 1, 1280, 1001)


@pytest.mark.parametrize("multiplier", [0, -1.0, float("nan"), float("inf"), "1"])
@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_a_multiplier_that_is_no_positive_number_is_refused(build, multiplier):
    with pytest.raises(InputError, match="depth multiplier"):
        build(multiplier)


@pytest.mark.parametrize("classes", [-1, 1.5, True])
def test_a_number_of_classes_that_is_none_is_refused(classes):
    with pytest.raises(InputError, match="classes"):
        mobilenet_v1(1.0, classes)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(InputError, match="mobilenet_v1, mobilenet_v2"):
        architecture("mobilenet_v3", 1.0, 0)
