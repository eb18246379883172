"""The ImageNet labels that ship with the package, and the 1000-class view."""

import numpy as np
import pytest

from mobilenet_hub.catalog.labels import imagenet_labels, imagenet_labels_1000, without_background
from mobilenet_hub.catalog.published import NUM_CLASSES
from mobilenet_hub.errors import InputError


def test_there_is_one_label_for_each_published_logit():
    labels = imagenet_labels()
    assert len(labels) == NUM_CLASSES
    assert labels[0] == "background"
    assert all(label and label == label.strip() for label in labels)
    assert {label for label in labels if labels.count(label) > 1} == {"crane"}


def test_the_labels_are_those_of_the_slim_checkpoints(shared):
    lines = shared("weights/slim_frozen/labels.txt").read_text("utf-8").splitlines()
    assert lines == [f"{index}:{label}" for index, label in enumerate(imagenet_labels())]


def test_the_first_synonyms_are_the_list_that_the_module_pages_link_to():
    first = [label.split(",")[0] for label in imagenet_labels()]
    assert first[:9] == ["background", "tench", "goldfish", "great white shark", "tiger shark",
                         "hammerhead", "electric ray", "stingray", "cock"]  # fmt: skip
    assert first[-1] == "toilet tissue"


def test_the_labels_are_in_the_order_of_the_trained_networks(shared):
    with np.load(shared("golden/pretrained_v1_025.npz")) as data:
        files, classes = data["files"], data["labels"]
    for file, index in zip(files, classes, strict=True):
        named = str(file).split("_", 1)[1].removesuffix(".JPEG").replace("_", " ").lower()
        assert named in [synonym.lower() for synonym in imagenet_labels()[index].split(", ")]


def test_the_1000_class_view_drops_the_background_before_softmax():
    assert imagenet_labels_1000() == imagenet_labels()[1:]
    logits = np.zeros((2, 3, 1001), np.float32)
    logits[..., 0] = 50  # would take all of the probability, were it not dropped first
    view = without_background(logits)
    assert view.shape == (2, 3, 1000)
    assert np.shares_memory(view, logits)
    probabilities = np.exp(view) / np.exp(view).sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, 1 / 1000, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1000,), (1001, 3)])
def test_logits_without_a_background_class_are_refused(shape):
    with pytest.raises(InputError, match="1001"):
        without_background(np.zeros(shape))
