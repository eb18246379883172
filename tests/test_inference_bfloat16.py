"""What makes bfloat16 inference keep a network's outputs: rounding, the means that batch norm tells, the biases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference_network import random_weights

from mobilenet_hub.architecture import mobilenet_v1, mobilenet_v2
from mobilenet_hub.inference.bfloat16 import (
    float32_units,
    mean_inputs,
    rounded_layers,
    to_bfloat16,
)
from mobilenet_hub.inference.graph import fold_batch_norm

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@given(arrays(np.float32, 16, elements=FLOATS))
def test_rounding_takes_the_nearest_bfloat16_and_the_even_one_of_two(values):
    near = to_bfloat16(values)
    assert not (near.view(np.uint32) & 0xFFFF).any()
    below = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)
    above = ((values.view(np.uint32) & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32).astype(np.float64)
    exact = values.astype(np.float64)
    to_near, to_below, to_above = (np.abs(exact - other) for other in (near.astype(np.float64), below, above))
    assert (to_near == np.minimum(to_below, to_above)).all()
    assert not (near.view(np.uint32)[to_below == to_above] >> 16 & 1).any()


@pytest.mark.parametrize(
    ("beta", "gamma"), [(1, 1), (-2, 1.5), (5.5, -2), (3, 0), (-1, 0), (9, 0), (0.5, 1e-30), (2, 40)]
)
def test_the_mean_after_relu6_is_that_of_a_normal_variable_cut_off(beta, gamma):
    network = mobilenet_v1(0.25, num_classes=0)
    weights = random_weights(network)
    first = network.units[0]
    for variable, value in zip(first.batch_norm[:2], (gamma, beta), strict=True):
        weights[variable.name] = np.full(variable.shape, value, np.float32)
    grid = np.linspace(-12, 12, 200_001)
    density = np.exp(-grid * grid / 2)
    expected = (np.clip(beta + gamma * grid, 0, 6) * density).sum() / density.sum()
    np.testing.assert_allclose(mean_inputs(network, weights)[1], expected, atol=1e-6)


def test_means_of_linear_layers_are_beta_and_residuals_add_up():
    network = mobilenet_v2(0.35, num_classes=0)
    weights = random_weights(network)
    means = mean_inputs(network, weights)
    assert [len(mean) for mean in means] == [*(unit.in_channels for unit in network.units), network.num_features]
    for index, unit in enumerate(network.units):
        if not unit.relu6:
            expected = weights[unit.batch_norm[1].name] + (0 if unit.adds is None else means[unit.adds + 1])
            np.testing.assert_allclose(means[index + 1], expected)


def consistent_weights(network):
    """Random weights whose batch norm has seen the images: every channel's mean is beta, and ReLU6 is out of reach."""
    weights, random = random_weights(network), np.random.default_rng(0)
    mean = np.zeros(3)
    for unit in network.units:
        names = [variable.name for variable in unit.batch_norm]
        beta = random.uniform(2, 4, unit.out_channels)
        values = (0.1, beta, output_of_the_mean(weights[unit.kernel.name], 0, mean, unit.depthwise), 0.01)
        weights |= {
            n: np.broadcast_to(v, unit.out_channels).astype(np.float32) for n, v in zip(names, values, strict=True)
        }
        mean = beta.astype(np.float32)
    return weights


def output_of_the_mean(kernel, bias, mean, depthwise):
    total = kernel.astype(np.float64).sum((0, 1))
    return (total[:, 0] * mean if depthwise else mean @ total) + bias


def mean_features(network, layers):
    """What the network makes of an image of the mean colour, without ReLU6 and padding."""
    mean = np.zeros(3)
    for unit, (kernel, bias) in zip(network.units, layers, strict=True):
        mean = output_of_the_mean(kernel, bias, mean, unit.depthwise)
    return mean


@pytest.mark.parametrize("first", [0, 4, 27])
def test_rounded_layers_leave_the_mean_features_where_they_were(first):
    network = mobilenet_v1(0.25, num_classes=0)
    weights = consistent_weights(network)
    layers = [fold_batch_norm(network, unit, weights) for unit in network.units]
    result = rounded_layers(network, weights, layers, mean_inputs(network, weights), first)
    for index, ((kernel, bias), (near, moved)) in enumerate(zip(layers, result, strict=True)):
        if index < first:
            assert near is kernel
            assert moved is bias
        else:
            np.testing.assert_array_equal(near, to_bfloat16(kernel))
            assert index == 26 or (moved == to_bfloat16(moved)).all()
    expected = mean_features(network, layers)
    np.testing.assert_allclose(mean_features(network, result), expected, atol=1e-4)
    if first == 0:
        plainly = mean_features(network, [tuple(map(to_bfloat16, layer)) for layer in layers])
        assert np.abs(plainly - expected).max() > 0.01


@pytest.mark.parametrize("noisy", [None, 0, 3, 26])
def test_the_layers_up_to_a_noisy_one_stay_float32(noisy):
    network = mobilenet_v1(0.25, num_classes=0)
    weights = consistent_weights(network)
    for index, unit in enumerate(network.units):  # a kernel as strong as its batch norm's deviation, or far stronger
        strength = 1e-3 if index == noisy else 10.0
        weights[unit.batch_norm[3].name] = np.full(unit.out_channels, strength, np.float32)
    weights[network.units[0].batch_norm[2].name][:] = 0.1
    layers = [fold_batch_norm(network, unit, weights) for unit in network.units]
    means = mean_inputs(network, weights)
    means[0] = np.ones(3)  # or the images, of which nothing is known, could not be noisy
    assert float32_units(network, weights, layers, means) == (0 if noisy is None else noisy + 1)


@pytest.mark.parametrize("gamma", [0, 1])
def test_networks_without_signal_or_with_batch_norm_folded_away_have_no_noise(gamma):
    network = mobilenet_v1(0.25, num_classes=0)
    weights = random_weights(network)
    for unit in network.units:
        for variable, value in zip(unit.batch_norm, (gamma, 0.5, gamma - 1, 0.999), strict=True):
            weights[variable.name] = np.full(variable.shape, value, np.float32)
    layers = [fold_batch_norm(network, unit, weights) for unit in network.units]
    assert float32_units(network, weights, layers, mean_inputs(network, weights)) == 0
