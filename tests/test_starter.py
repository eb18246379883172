import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet_hub.evaluation.evaluate import evaluate
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.module_folder import read_module
from mobilenet_hub.store import resolve

RECIPE = Path(__file__).parents[1] / "recipes" / "starter"
MAX_BYTES = 4_000_000


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare_starter", RECIPE / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_a_small_module_with_readable_labels():
    folder = resolve("starter")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_BYTES
    config = read_module(folder).config
    assert config.num_classes == len(set(config.labels)) == 202
    assert "tabby cat" in config.labels
    assert not any(label.startswith("n0") or "," in label for label in config.labels)


def test_its_labels_are_those_that_the_recipe_makes(prepare, shared):
    from zipfile import ZipFile

    with ZipFile(shared("datasets/tiny_imagenet.zip")) as archive:
        labels = prepare.read_labels(archive.read("words.txt").decode())
    assert read_module(resolve("starter")).config.labels == tuple(sorted(labels.values()))


def test_it_classifies_offline(tmp_path):
    Image.fromarray(np.full((80, 60, 3), 128, np.uint8)).save(tmp_path / "gray.png")
    prediction = Classifier("starter").classify(tmp_path / "gray.png", top=5)[0]
    assert len(prediction.labels) == 5
    assert list(prediction.scores) == sorted(prediction.scores, reverse=True)


def test_it_recognises_photos_of_its_classes(shared):
    """Full-size photographs, other than those it was trained on, named WORDNETID_class."""
    classifier = Classifier("starter")
    labels = read_module(resolve("starter")).config.labels
    photos = {
        photo: name
        for photo in sorted(shared("photos/imagenet_samples").glob("*.JPEG"))
        if (name := photo.stem.partition("_")[2].replace("_", " ")) in labels
    }
    assert len(photos) >= 15
    predictions = classifier.classify(list(photos), top=10)
    found = sum(name in prediction.labels for name, prediction in zip(photos.values(), predictions, strict=True))
    assert found / len(photos) >= 0.3  # chance: 10 of 202 labels, 5 %


@pytest.mark.slow
def test_its_accuracy_is_what_it_says(prepare, shared, tmp_path):
    prepare.prepare(shared("datasets/tiny_imagenet.zip"), tmp_path)
    said = read_module(resolve("starter")).config.metrics["validation"]
    found = evaluate("starter", tmp_path / "val")
    assert found.metrics.images == said["images"] == 5050
    assert found.accuracy == pytest.approx(said["accuracy"], abs=0.002)  # a few photos: float16 kernels, other CPUs
