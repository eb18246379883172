"""Classifier: Google's trained networks give their own logits and labels; modules without a classifier are refused."""

import numpy as np
import pytest
from reference_network import random_weights

from mobilenet_hub.catalog.labels import imagenet_labels
from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.inference.classify import Classifier, Prediction, labels_of
from mobilenet_hub.inference.engine import Engine, installed_engines
from mobilenet_hub.inference.probabilities import softmax
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.weights.convert import load_source

FROZEN = {128: "mobilenet_v1_0.25_128_frozen.pb", 224: "mobilenet_v1_0.25_224_frozen.tgz"}


@pytest.fixture(scope="module")
def module():
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 4, labels=("a", "b", "c", "d"))
    return Module(config, random_weights(config.network))


@pytest.mark.parametrize("size", [128, 224])
def test_pretrained_networks_give_googles_logits(size, shared, golden):
    with np.load(shared("golden/pretrained_v1_025.npz")) as arrays:
        expected = arrays[f"{size}/golden_logits"]
    classifier = Classifier(load_source(shared(f"weights/slim_frozen/{FROZEN[size]}")), precision="f32")
    logits = classifier.logits(golden.golden_images(len(expected), size, size))
    assert np.abs(logits - expected).max() < 1e-3  # the promise; float32 itself differs by 1e-5


@pytest.mark.parametrize(("size", "correct"), [(128, 67), (224, 84)])  # 46.9 % and 58.7 % of 143
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_pretrained_networks_are_as_right_as_in_the_original_pipeline(size, correct, precision, shared):
    folder = shared("photos/imagenet_samples")
    with np.load(shared("golden/pretrained_v1_025.npz")) as arrays:
        files, labels = arrays["files"], arrays["labels"]
    classifier = Classifier(load_source(shared(f"weights/slim_frozen/{FROZEN[size]}")), precision)
    predictions = classifier.classify([folder / str(name) for name in files], top=1)
    right = sum(p.indices[0] == label for p, label in zip(predictions, labels, strict=True))
    assert right >= correct - 1  # another decoder and filter may turn one photo


@pytest.mark.parametrize("size", [128, 224])
def test_bfloat16_keeps_the_features_and_the_answers_of_pretrained_networks(size, shared):
    """On a CPU without bfloat16 this holds of itself: the engine takes float32."""
    with np.load(shared("golden/pretrained_v1_025.npz")) as arrays:
        files, labels = arrays["files"], arrays["labels"]
    images = Preprocessing(size).load_batch([shared("photos/imagenet_samples") / str(name) for name in files])
    module = load_source(shared(f"weights/slim_frozen/{FROZEN[size]}"))
    exact, value = (
        Engine(module, ["features", "logits"], precision=precision).run(images) for precision in ("f32", "bf16")
    )
    right = [(result["logits"].argmax(1) == labels).sum() for result in (exact, value)]
    assert abs(right[0] - right[1]) <= 1
    a, b = exact["features"], value["features"]
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.999


def test_predictions_are_the_softmax_in_order(module):
    images = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    classifier = Classifier(module, precision="f32")
    scores = softmax(classifier.logits(images))
    predictions = classifier.classify(images, top=3)
    assert [p.source for p in predictions] == ["image 0", "image 1", "image 2"]
    for prediction, row in zip(predictions, scores, strict=True):
        assert isinstance(prediction, Prediction)
        assert list(prediction.indices) == np.argsort(-row)[:3].tolist()
        assert prediction.labels == tuple("abcd"[i] for i in prediction.indices)
        assert prediction.scores == pytest.approx(sorted(row, reverse=True)[:3])
    assert len(classifier.classify(images[:1], top=50)[0].labels) == 4
    assert softmax(np.array([[1e4, -1e4]], np.float32)).tolist() == [[1.0, 0.0]]


def test_bad_images_are_raised_or_handed_over(module, tmp_path):
    bad = tmp_path / "empty.jpg"
    bad.write_bytes(b"")
    good = np.zeros((20, 30, 3), np.uint8)
    classifier = Classifier(module)
    with pytest.raises(ImageError, match=r"empty\.jpg"):
        classifier.classify([good, bad])
    errors = []
    predictions = classifier.classify([good, bad, good], on_error=lambda *told: errors.append(told))
    assert [p.source for p in predictions] == ["image 0", "image 2"]
    assert [(source, error.reason) for source, error in errors] == [(str(bad), "empty file (0 bytes)")]
    assert classifier.classify([bad], on_error=lambda *_: None) == []


def test_modules_without_classifier_are_refused_with_what_to_use(module):
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32))
    with pytest.raises(InputError, match="Embedder"):
        Classifier(Module(config, random_weights(config.network)))
    for top in (0, 1.5, True):
        with pytest.raises(InputError, match="top"):
            Classifier(module).classify([], top=top)  # pyright: ignore[reportArgumentType]


def test_every_class_has_a_label(module):
    assert labels_of(module.config) == ("a", "b", "c", "d")
    assert labels_of(ModuleConfig("mobilenet_v1", 0.25, (32, 32), 1001)) == imagenet_labels()
    assert labels_of(ModuleConfig("mobilenet_v1", 0.25, (32, 32), 2)) == ("0", "1")


@pytest.mark.parametrize("engine", installed_engines())
def test_eight_threads_may_call_one_classifier(module, engine):
    """Photos of many sizes and batches of all counts at once: each thread gets its own answers."""
    from concurrent.futures import ThreadPoolExecutor

    classifier, random = Classifier(module, engine=engine), np.random.default_rng(0)
    calls = [[random.integers(0, 256, (20 + i, 30, 3), np.uint8) for _ in range(1 + i % 3)] for i in range(24)]
    expected = [classifier.classify(images, top=4) for images in calls]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            assert list(threads.map(lambda images: classifier.classify(images, top=4), calls)) == expected
