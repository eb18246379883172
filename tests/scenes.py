"""A picture whose faults show, and what the tests of decoding do with it: write it, turn it, compare it."""

import io

import numpy as np


def scene(height=37, width=53):
    """Four unlike corners and an odd size, so that a wrong turn, stride or order of channels shows."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return np.stack([red, green, 128 + 60 * np.sin(x / 9 + y / 7)], axis=2).round().astype(np.uint8)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(pixels, orientation):
    """Pixels as a camera stores them that notes this EXIF orientation."""
    flipped = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1]}
    across = pixels.transpose(1, 0, 2)
    flipped |= {5: across, 6: across[:, ::-1], 7: across[::-1, ::-1], 8: across[::-1]}
    return flipped[orientation]


def furthest(pixels, expected):
    """The largest difference of a sample, in levels of 255."""
    assert pixels.shape == expected.shape
    return np.abs(pixels.astype(int) - np.asarray(expected).astype(int)).max()


def three(gray):
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)
