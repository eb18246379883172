"""Near twins across the split: found by features, named, and counted without."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mobilenet_hub as hub
from mobilenet_hub.evaluation.dataset import Example, read_dataset
from mobilenet_hub.evaluation.metrics import Outcome, measure
from mobilenet_hub.evaluation.twins import TWIN, find_twins, twins_card, twins_warning, without_twins


def example(name, split):
    return Example(Path(name), name, 0, split, name)


def outcome(name, right):
    return Outcome(Path(name), name, name, 0, 0 if right else 1, 0.9, 0.9 if right else 0.1)


def rows(*angles):
    return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], np.float32) * 7


def test_twins_are_pairs_that_point_the_same_way():
    near = np.arccos(TWIN)
    test, train = [example(f"t{i}", "test") for i in range(3)], [example(f"l{i}", "train") for i in range(2)]
    twins = find_twins(test, rows(0.99 * near, 1.01 * near, 2.001), train, rows(0, 2) * 3)
    assert [(twin.photo.name, twin.of.name) for twin in twins] == [("t2", "l1"), ("t0", "l0")]
    assert twins[0].similarity > twins[1].similarity >= TWIN
    assert find_twins([], rows(), train, rows(0, 2)) == find_twins(test, rows(0, 1, 2), [], rows()) == ()


def test_many_photos_are_compared_in_parts():
    features = np.random.default_rng(0).normal(size=(1100, 64)).astype(np.float32)
    test, train = [example(f"t{i}", "test") for i in range(1100)], [example(f"l{i}", "train") for i in range(600)]
    twins = find_twins(test, features, train, features[:600])
    assert sorted(int(twin.photo.name[1:]) for twin in twins) == list(range(600))
    assert all(twin.photo.name[1:] == twin.of.name[1:] for twin in twins)


def test_what_is_left_is_counted():
    test, train = [example(f"t{i}", "test") for i in range(4)], [example("l", "train")]
    twins = find_twins(test, rows(0, 0, 1, 2), train, rows(0))
    outcomes = [outcome("t0", True), outcome("t1", True), outcome("t2", True), outcome("t3", False)]
    left = without_twins(outcomes, twins)
    assert (left.images, left.correct, left.accuracy) == (2, 1, 0.5)
    metrics = measure(np.array([[0.9, 0.1]] * 3 + [[0.1, 0.9]]), np.zeros(4, int))
    said = twins_warning(twins, metrics, left)
    assert said.startswith("2 of the 4 test photos have a twin among the training photos (t0 and l; t1 and l)")
    assert "without them 50.0% of 2 are right, with them 75.0%" in said
    none = without_twins(outcomes[:2], twins)
    assert none.to_json() == {"images": 0, "accuracy": None, "interval": None}
    assert "no photo is left" in twins_warning(twins, metrics, none) and "no test photo is left" in twins_card(
        twins, none
    )
    assert twins_card((), None) == ""


@pytest.mark.slow
def test_a_photo_that_was_saved_again_is_found_across_the_split(shared, tmp_path):
    folder = tmp_path / "photos"
    for index, path in enumerate(sorted(shared("photos/imagenet_samples").iterdir())):
        place = folder / ("first" if index < 70 else "second")
        place.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.convert("RGB").resize((200, 180)).save(place / f"{path.stem}.png")
    planted = {}
    for photo in read_dataset(folder).part("test")[:3]:
        with Image.open(photo.path) as image:
            for quality in range(60, 95):  # until its content falls into the training photos
                copy = photo.path.with_name(f"again {photo.path.stem}.jpg")
                image.save(copy, quality=quality)
                parts = {e.path: e.split for e in read_dataset(folder).examples}
                if parts.get(copy) == "train" and parts[photo.path] == "test":
                    planted[photo.name] = f"{photo.name.partition('/')[0]}/{copy.name}"
                    break
    assert len(planted) == 3
    result = hub.train(folder, tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    found = {twin["photo"]: twin["of"] for twin in metrics["twins"]}
    assert planted.items() <= found.items()
    without, test = metrics["test_without_twins"], metrics["test"]
    assert without["images"] == test["images"] - len(found)
    with (tmp_path / "out" / "photos.csv").open(encoding="utf-8") as file:
        listed = [line.rstrip("\n").rsplit(",", 5) for line in file][1:]
    right = [label == said for name, _, split, label, said, _ in listed if split == "test" and name not in found]
    assert (without["images"], without["correct"]) == (len(right), sum(right))
    assert any(re.search(r"test photos? ha(s|ve) (a )?twins? among the training photos", w) for w in result.warnings)
    report = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert all(name in report for pair in planted.items() for name in pair)
    assert "Counted without them" in report
    assert f"of the {without['images']} without a twin" in report
