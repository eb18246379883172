"""Which network a set of tensors is: any multiplier, any number of classes, and one clear report of what is wrong."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_files import some_weights

from mobilenet_hub.architecture import BUILDERS, architecture
from mobilenet_hub.catalog.labels import imagenet_labels
from mobilenet_hub.catalog.published import configurations
from mobilenet_hub.errors import InputError, InvalidModuleError
from mobilenet_hub.weights.identify import Source, Wanted, fitting_multiplier, slim_name, to_module


def shapes(network):
    """Arrays of the network's shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0.5), one.shape) for name, one in network.variables.items()}


def source(weights, path="weights", **more):
    return Source(Path(path), "test", weights, **more)


@pytest.mark.parametrize("one", configurations(), ids=lambda one: one.name)
@pytest.mark.parametrize("num_classes", [0, 7, 1001])
def test_every_published_network_is_recognized(one, num_classes):
    network = architecture(one.architecture, one.depth_multiplier, num_classes)
    config = to_module(source(shapes(network)), Wanted(image_size=(one.size, one.size))).config
    assert (config.architecture, config.depth_multiplier) == (one.architecture, one.depth_multiplier)
    assert config.num_classes == num_classes
    assert config.labels == (imagenet_labels() if num_classes == 1001 else None)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(BUILDERS)), multiplier=st.floats(1e-3, 6))
def test_any_multiplier_gives_back_its_network(name, multiplier):
    weights = shapes(architecture(name, multiplier, 0))
    found = fitting_multiplier(weights, name, Path("weights"))
    assert found is not None
    assert {key: one.shape for key, one in architecture(name, found, 0).variables.items()} == {
        key: array.shape for key, array in weights.items()
    }


@pytest.mark.parametrize(
    ("name", "multiplier", "path", "found"),
    [
        ("mobilenet_v2", 0.36, "weights", 0.35),  # 0.36 makes the same network as the published 0.35
        ("mobilenet_v2", 0.36, "mobilenet_v2_0.36_96.pb", 0.36),  # unless the name says otherwise
        ("mobilenet_v2", 0.36, "mobilenet_v2_0.5_96.pb", 0.35),  # and is right
        ("mobilenet_v1", 0.6, "weights", 0.6),
        ("mobilenet_v1", 0.333, "weights", 0.333),
    ],
)
def test_the_likeliest_of_equal_multipliers(name, multiplier, path, found):
    assert fitting_multiplier(shapes(architecture(name, multiplier, 0)), name, Path(path)) == found


@pytest.mark.parametrize(
    ("path", "inside", "given", "found"),
    [
        ("mobilenet_v1_0.25_128.ckpt", None, None, (128, 128)),
        ("downloads/mobilenet_v1_025_160/variables", None, None, (160, 160)),
        ("/kaggle/input/mobilenet-v1/tensorflow2/025-192-feature-vector/2", None, None, (192, 192)),
        ("kagglehub/models/google/mobilenet-v1/tensorFlow2/025-128-classification/1", None, None, (128, 128)),
        ("mobilenet-v1-tensorflow1-025-160-feature-vector-v1", None, None, (160, 160)),
        ("weights", (96, 128), None, (96, 128)),
        ("mobilenet_v1_0.25_128.ckpt", (128, 128), None, (128, 128)),
        ("mobilenet_v1_0.25_128.ckpt", None, (224, 224), (224, 224)),
        ("weights", None, (224, 192), (224, 192)),
    ],
)
def test_the_image_size(path, inside, given, found):
    weights = shapes(architecture("mobilenet_v1", 0.25, 0))
    module = to_module(source(weights, path, image_size=inside), Wanted(image_size=given))
    assert module.config.image_size == found


@pytest.mark.parametrize(
    ("path", "inside", "wanted", "error", "words"),
    [
        ("weights", None, Wanted(), InputError, "image_size=224"),
        ("mobilenet_v1_0.5_128.ckpt", None, Wanted(), InputError, "image_size=224"),  # the name is wrong
        ("mobilenet_v1_0.25_128.ckpt", (96, 96), Wanted(), InputError, "says 96x96 and 128x128 pixels"),
        ("weights", (96, 96), Wanted(image_size=(128, 128)), InvalidModuleError, "images of 96x96 pixels, not 128x128"),
        ("weights", None, Wanted(image_size=(0, 10)), InputError, "1 to 16384"),
        ("weights", (2**40, 2**40), Wanted(), InvalidModuleError, "says that its images have"),
    ],
)
def test_an_image_size_that_cannot_be(path, inside, wanted, error, words):
    weights = shapes(architecture("mobilenet_v1", 0.25, 0))
    with pytest.raises(error, match=words):
        to_module(source(weights, path, image_size=inside), wanted)


def test_the_classifier_can_be_left_out():
    module = to_module(source(shapes(architecture("mobilenet_v2", 0.5, 1001))), Wanted(None, None, (96, 96), 0))
    assert module.config.num_classes == 0
    assert module.config.labels is None
    assert not any("Logits" in name for name in module.weights)


def test_labels_of_the_file_are_kept():
    weights = shapes(architecture("mobilenet_v2", 0.5, 2))
    module = to_module(source(weights, labels=("cat", "dog")), Wanted(image_size=(96, 96)))
    assert module.config.labels == ("cat", "dog")


BROKEN = {
    "missing": (lambda w: w.pop("MobilenetV1/Conv2d_3_pointwise/weights"), "missing: MobilenetV1/Conv2d_3_pointwise"),
    "extra": (lambda w: w.update(other=np.zeros(3)), "not part of the network: other"),
    "misshapen": (
        lambda w: w.update({"MobilenetV1/Conv2d_0/weights": np.zeros((5, 5, 3, 8), np.float32)}),
        r"Conv2d_0/weights has shape \[5, 5, 3, 8\], not \[3, 3, 3, 8\]",
    ),
    "not finite": (
        lambda w: w["MobilenetV1/Conv2d_0/BatchNorm/beta"].put(0, np.nan),
        "Conv2d_0/BatchNorm/beta holds values that are not finite",
    ),
    "negative variance": (
        lambda w: w["MobilenetV1/Conv2d_0/BatchNorm/moving_variance"].put(0, -1),
        "moving_variance holds negative values",
    ),
    "no multiplier": (
        lambda w: w.update({"MobilenetV1/Conv2d_5_pointwise/BatchNorm/beta": np.zeros(77, np.float32)}),
        r"Conv2d_5_pointwise/BatchNorm/beta has shape \[77\], not \[64\]",
    ),
    "both": (lambda w: w.update({"MobilenetV2/Conv/weights": np.zeros(1)}), "MobilenetV1 and MobilenetV2"),
    "none": (lambda w: w.clear(), "found: none"),
}


@pytest.mark.parametrize(("breaking", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_named(breaking, words):
    weights = some_weights(architecture("mobilenet_v1", 0.25, 3))
    breaking(weights)
    with pytest.raises(InvalidModuleError, match=words) as caught:
        to_module(source(weights, "file.pb"), Wanted(image_size=(128, 128)))
    assert "file.pb" in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(architecture="mobilenet_v2"), "holds mobilenet_v1, not mobilenet_v2"),
        (Wanted(depth_multiplier=0.5), "is not mobilenet_v1 with depth multiplier 0.5"),
        (Wanted(num_classes=5), "has a classifier of 3 classes, not one of 5"),
    ],
)
def test_another_network_than_wanted_is_refused(wanted, words):
    with pytest.raises(InvalidModuleError, match=words):
        to_module(source(shapes(architecture("mobilenet_v1", 0.25, 3)), image_size=(128, 128)), wanted)


@pytest.mark.parametrize("name", ["MobilenetV2/Conv/weights", "step", "MobilenetV3/x"])
def test_names_without_a_scope_stay(name):
    assert slim_name(name) == name
    assert slim_name(f"a/b/{name}:0") == name if "V2" in name else f"a/b/{name}"
