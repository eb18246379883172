"""The classifier on fixed features: the minimum itself, however the features are scaled, and a sober choice."""

import numpy as np
import pytest

from mobilenet_hub.inference.probabilities import softmax
from mobilenet_hub.training.head import balanced_class_weights, fit_head, minimise


def clouds(count, classes, features, noise, seed=0):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, features))
    labels = random.integers(0, classes, count)
    return (centres[labels] + noise * random.normal(size=(count, features))).astype(np.float32), labels


def test_the_fit_is_the_minimum():
    features, labels = clouds(120, 3, 5, 2.0)
    head = fit_head(features, labels, 3, strengths=(0.1,))
    standard = (features - features.mean(0)) / features.std(0)
    # The classifier in terms of standardised features, in float64: there the objective is defined.
    kernel = head.weights * features.std(0)[:, None].astype(np.float64)
    bias = head.biases + features.mean(0) @ head.weights.astype(np.float64)

    def objective(flat):
        probabilities = softmax(standard @ flat[:15].reshape(5, 3) + flat[15:])[np.arange(120), labels]
        return -np.log(probabilities).mean() + 0.05 * (flat[:15] ** 2).sum()

    flat = np.concatenate([kernel.ravel(), bias])
    steps = 1e-4 * np.eye(18)
    slopes = [(objective(flat + step) - objective(flat - step)) / 2e-4 for step in steps]
    assert head.converged
    assert np.abs(slopes).max() < 5e-5  # the fit stops at 1e-5; float32 weights and differences add as much again


def test_scale_and_offset_of_features_make_no_difference():
    features, labels = clouds(200, 4, 6, 1.5)
    scale, offset = np.float32([1e-2, 1, 100, 3, 0.5, 7]), np.float32([5, -300, 0, 1, 2, 3])
    plain = fit_head(features, labels, 4, strengths=(0.03,))
    scaled = fit_head(features * scale + offset, labels, 4, strengths=(0.03,))
    difference = softmax(plain.logits(features)) - softmax(scaled.logits(features * scale + offset))
    assert np.abs(difference).max() < 1e-3  # float32 keeps four digits of a small feature on a large offset


def test_dead_features_get_no_weight():
    features, labels = clouds(60, 2, 3, 0.5)
    features[:, 1] = 6.0
    head = fit_head(features, labels, 2)
    assert np.all(head.weights[1] == 0)
    assert np.isfinite(head.biases).all()


def test_validation_chooses_the_strength():
    noisy, labels = clouds(60, 2, 40, 8.0)
    clean, clean_labels = clouds(60, 2, 40, 0.3)
    strong = fit_head(noisy, labels, 2, clouds(60, 2, 40, 8.0, seed=1))
    weak = fit_head(clean, clean_labels, 2, clouds(60, 2, 40, 0.3, seed=1))
    assert strong.strength > weak.strength
    assert strong.strength in [strength for strength, *_ in strong.curve]


def test_without_validation_photos_there_is_still_a_classifier():
    features, labels = clouds(30, 2, 4, 0.1)
    empty = np.empty((0, 4), np.float32), np.empty(0, int)
    head = fit_head(features, labels, 2, empty)
    assert (head.logits(features).argmax(1) == labels).all()


def test_class_weights_lift_the_rare_class():
    random = np.random.default_rng(0)
    features = np.concatenate([random.normal(0, 1, (190, 1)), random.normal(1.2, 1, (10, 1))]).astype(np.float32)
    labels = np.repeat([0, 1], [190, 10])
    weights = balanced_class_weights([190, 10])
    assert weights[labels].mean() == pytest.approx(1)
    plain = fit_head(features, labels, 2, strengths=(0.01,)).logits(features).argmax(1)
    balanced = fit_head(features, labels, 2, strengths=(0.01,), class_weights=weights).logits(features).argmax(1)
    assert (balanced[190:] == 1).mean() > (plain[190:] == 1).mean() + 0.3


def test_minimise_reaches_the_bottom_of_a_long_valley():
    scales = np.array([1.0, 100.0, 1e4])
    target = np.array([1.0, -2.0, 3.0])
    found, iterations = minimise(
        lambda x: (float((scales * (x - target) ** 2).sum()), 2 * scales * (x - target)), np.zeros(3)
    )
    assert found == pytest.approx(target, abs=1e-5)
    assert iterations < 60
