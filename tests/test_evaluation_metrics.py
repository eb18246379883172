"""The figures of a classifier, on answers small enough to count by hand."""

import json

import numpy as np
import pytest

from mobilenet_hub.evaluation.metrics import measure, wilson_interval

PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.05, 0.05, 0.9]])
LABELS = np.array([0, 1, 1, 0])


def test_counts():
    metrics = measure(PROBABILITIES, LABELS)
    assert (metrics.images, metrics.correct, metrics.accuracy) == (4, 2, 0.5)
    assert metrics.confusion.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert metrics.recall.tolist() == pytest.approx([0.5, 0.5, np.nan], nan_ok=True)
    assert metrics.precision.tolist() == pytest.approx([0.5, 1, 0])
    assert metrics.balanced_accuracy == 0.5
    assert metrics.loss == pytest.approx(-np.log([0.8, 0.6, 0.4, 0.05]).mean())
    assert metrics.top5 is None


def test_calibration_error():
    metrics = measure(PROBABILITIES, LABELS)
    # Each photo has a bin of its own: |0.8 - 1|, |0.6 - 1|, |0.5 - 0|, |0.9 - 0|.
    assert metrics.calibration_error == pytest.approx((0.2 + 0.4 + 0.5 + 0.9) / 4)
    assert sum(bin.images for bin in metrics.reliability) == 4


def test_top5():
    probabilities = np.tile(np.arange(8, 0, -1) / 36, (2, 1))
    assert measure(probabilities, np.array([4, 5])).top5 == 0.5


def test_wilson_interval():
    # Brown, Cai and DasGupta (2001) and R's binom.confint give these.
    assert wilson_interval(90, 100) == pytest.approx((0.82563, 0.94477), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_json_names_only_classes_that_occur():
    value = measure(np.eye(1001)[[7, 9]], np.array([7, 7])).to_json([f"class {i}" for i in range(1001)])
    assert [row["label"] for row in value["classes"]] == ["class 7", "class 9"]
    assert value["confusion"] == [[1, 1], [0, 0]]
    json.dumps(value, allow_nan=False)


def test_nothing_to_measure():
    assert measure(np.empty((0, 3)), np.empty(0, int)).to_json("abc")["accuracy"] is None
