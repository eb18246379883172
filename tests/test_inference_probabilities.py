"""Softmax and cross-entropy: what they are by definition, at any size of the logits."""

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mobilenet_hub.inference.probabilities import cross_entropies, softmax

ROWS = st.lists(st.integers(-(10**5), 10**5), min_size=2, max_size=6)


@given(ROWS, st.sampled_from([np.float32, np.float64]))
def test_they_are_the_definition_in_exact_numbers(row, dtype):
    powers = [Decimal(value).exp() for value in row]  # 28 digits, and an exponent for any of these
    logits = np.array([row], dtype)
    wanted = [float(power / sum(powers)) for power in powers]
    np.testing.assert_allclose(softmax(logits)[0], wanted, rtol=1e-12, atol=1e-300)  # float64, a sum of six
    for label in range(len(row)):
        loss = float(-(powers[label] / sum(powers)).ln())
        np.testing.assert_allclose(cross_entropies(logits, np.array([label]))[0], loss, rtol=1e-12, atol=1e-12)


def test_no_images_give_no_rows():
    assert softmax(np.zeros((0, 3), np.float32)).shape == (0, 3)
    assert cross_entropies(np.zeros((0, 3), np.float32), np.zeros(0, int)).shape == (0,)
