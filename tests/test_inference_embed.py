"""Embedder: feature vectors of everything that counts as images."""

import numpy as np
import pytest
from reference_network import forward, random_weights

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.inference.embed import Embedder
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module


@pytest.fixture(scope="module", params=[0, 3], ids=["feature_vector", "classification"])
def module(request):
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 48), request.param)
    return Module(config, random_weights(config.network))


def test_features_of_a_float_batch_are_the_references(module, tmp_path):
    images = np.random.default_rng(0).random((70, 32, 48, 3), np.float32)  # more than one batch
    embedder = Embedder(write_module(tmp_path / "m", module), precision="f32")
    features = embedder.embed(images)
    expected = forward(module.config.network, module.weights, images)["features"]
    assert features.shape == (70, embedder.num_features) == (70, 256)
    assert features.dtype == np.float32
    assert np.abs(features - expected).max() < 1e-4 * np.abs(expected).max()  # float32 against float64


def test_every_kind_of_image_gives_the_same_features(module, tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    embedder = Embedder(module, precision="f32")
    expected = embedder.embed(pixels[np.newaxis].astype(np.float32) / 255)
    with Image.open(path) as opened, Image.open(path) as another:
        for images in (
            path, str(path), [path], path.read_bytes(), [path.read_bytes()], opened, [another],
            pixels, [pixels], pixels[np.newaxis], (item for item in [pixels]),
        ):  # fmt: skip
            value = embedder.embed(images)
            assert value.shape == expected.shape
            assert np.abs(value - expected).max() < 1e-5 * np.abs(expected).max()  # x / 255 is rounded twice
    assert embedder.embed([]).shape == (0, 256)


def test_what_is_no_image_is_named(module, tmp_path):
    bad = tmp_path / "text.jpg"
    bad.write_text("no picture")
    embedder = Embedder(module)
    with pytest.raises(ImageError, match=r"text\.jpg"):
        embedder.embed([bad])
    for images in (
        np.zeros((1, 33, 48, 3), np.float32),
        np.full((1, 32, 48, 3), 255.0, np.float32),
        np.full((1, 32, 48, 3), -1.0, np.float32),
        np.zeros((32, 48, 3), np.float32),
    ):
        with pytest.raises(InputError):
            embedder.embed(images)
