"""Resampling: the fast package's filters are Pillow's, and Pillow stands in where the package has no build."""

from typing import get_args

import numpy as np
import pytest

from mobilenet_hub.images import resample as resampling
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.resample import Filter, resample

FILTERS = get_args(Filter)
BOXES = ((0, 0, 120, 90), (7.25, 3.5, 97.75, 80.125), (40, 40, 41, 41))


@pytest.fixture
def pillow(monkeypatch):
    def use():
        monkeypatch.setattr(resampling, "resampler", lambda: "pillow")

    return use


def smooth(height, width):
    """Make a picture without hard edges."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 9 + c) * np.cos(columns / (7 + c)) for c in range(3)]
    return (128 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 48), (224, 224), (1, 1)])
@pytest.mark.parametrize("box", BOXES, ids=str)
@pytest.mark.parametrize("name", FILTERS)
def test_the_filters_are_pillows(pillow, name, box, size):
    picture = smooth(90, 120)
    found = resample(picture, size, box, name)
    pillow()
    reference = resample(picture, size, box, name)
    assert found.shape == reference.shape == (*size, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - reference).max() <= 2


@pytest.mark.parametrize("name", FILTERS)
def test_a_plain_picture_stays_plain(name):
    plain = np.full((50, 70, 3), (10, 128, 255), np.uint8)
    assert (resample(plain, (224, 224), (0, 0, 70, 50), name) == (10, 128, 255)).all()


def test_a_view_into_a_larger_array_is_read_as_it_is_seen():
    picture = smooth(90, 120)
    mirrored = picture[:, ::-1]
    box = (10, 5, 100, 85)
    expected = resample(mirrored.copy(), (32, 32), box, "lanczos")
    np.testing.assert_array_equal(resample(mirrored, (32, 32), box, "lanczos"), expected)


def test_no_shape_of_picture_is_refused():
    random = np.random.default_rng(0)
    for _ in range(500):
        height, width, *size = (int(side) for side in random.integers(1, 60, 4))
        picture = random.integers(0, 256, (height, width, 3), np.uint8)
        for fit in ("center", "crop", "squash", "pad"):
            assert Preprocessing((size[0], size[1]), fit).apply(picture).shape == (*size, 3)
