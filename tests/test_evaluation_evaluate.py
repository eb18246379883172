"""`evaluate` and the report page: figures that agree with the answers, and a page that needs nothing but itself."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from reference_network import random_weights

import mobilenet_hub as hub
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.evaluation.metrics import Curve, Outcome, measure
from mobilenet_hub.evaluation.mistakes import MAX_PICTURES, explain_worst, mistakes_card, worst
from mobilenet_hub.evaluation.report import Report, render
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 3, labels=("gas pump", "tench", "<i>odd & long</i>"))
    return write_module(tmp_path_factory.mktemp("module") / "m", Module(config, random_weights(config.network)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in ("gas_pump", "Tench"):
        (folder / label).mkdir()
        for i in range(12):
            Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / label / f"{i} é.png")
    return folder


def test_the_accuracy_is_that_of_classify(module, photos):
    evaluation = hub.evaluate(module, photos)
    predictions = hub.Classifier(module).classify([o.path for o in evaluation.outcomes], top=1)
    assert [o.predicted for o in evaluation.outcomes] == [p.indices[0] for p in predictions]
    right = sum(
        p.labels[0].lower() == o.path.parent.name.lower().replace("_", " ")
        for p, o in zip(predictions, evaluation.outcomes, strict=True)
    )
    assert evaluation.accuracy == right / 24
    assert evaluation.metrics.confusion.sum(1).tolist() == [12, 12, 0]
    assert not evaluation.skipped


def test_another_size_and_fit_where_one_insists(photos, tmp_path, capsys):
    handle = "google/imagenet/mobilenet_v1_025_128/classification/1"
    labels = ("gas pump", "tench", *(f"class {i}" for i in range(999)))
    config = ModuleConfig("mobilenet_v1", 0.25, (128, 128), 1001, handle=handle, labels=labels)
    weights = random_weights(config.network)
    weights[config.network.classifier[1].name][2:] -= 1000  # so that it says one of the two
    fixed = write_module(tmp_path / "fixed", Module(config, weights))
    command = ["evaluate", str(fixed), str(photos), "--json", "--image-size", "64x32"]
    assert main(command) == 2
    assert "--any-size" in capsys.readouterr().err
    assert main([*command, "--any-size", "--fit", "crop"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["facts"]["Module"]["image size"] == "32 x 64"
    predictions = hub.Classifier(fixed, image_size=(64, 32), fit="crop", any_size=True).classify(
        [o.path for o in hub.evaluate(fixed, photos).outcomes], top=1
    )
    answers = np.bincount([p.indices[0] for p in predictions], minlength=2)
    assert np.sum(value["confusion"], 0).tolist()[:2] == answers.tolist()


def test_the_command_prints_and_writes(module, photos, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main(["evaluate", str(module), str(photos), "-o", str(page)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"[\d.]+% of 24 photos right \(95% interval", out)
    assert "gas pump" in out
    assert "worst mistakes" in out
    assert main(["evaluate", str(module), str(photos), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["images"] == 24
    assert len(value["facts"]["Module"]["SHA-256 of the weights"]) == 64
    text, wrong = page.read_text("utf-8"), 24 - value["correct"]
    assert (
        text.count("data:image/jpeg;base64,") == 3 * wrong
    )  # the photo, what spoke for its label, and for the right one
    assert text.count('alt="What spoke for') == 2 * wrong > 0


def test_the_maps_of_the_mistakes_are_of_the_label_given_and_of_the_right_one(module, photos):
    evaluation = hub.evaluate(module, photos)
    wrong = worst(evaluation.outcomes)
    maps = explain_worst(evaluation.classifier, evaluation.outcomes)
    assert list(maps) == [o.path for o in wrong[:MAX_PICTURES]] and maps
    for outcome in wrong[:MAX_PICTURES]:
        one = maps[outcome.path]
        assert one.indices == (outcome.predicted, outcome.label)
        assert one.scores == pytest.approx((outcome.score, outcome.true_score), abs=1e-4)
        assert one.maps.mean((1, 2)) + one.biases == pytest.approx(one.logits, abs=1e-4)
    page = mistakes_card(evaluation.outcomes, evaluation.labels, dict(list(maps.items())[1:]))  # a photo that has gone
    assert page.count("data:image/jpeg;base64,") == 3 * len(maps) - 2


def test_the_mistakes_of_a_quantized_file_have_no_maps(shared, tmp_path):
    file = shared("weights/tflite/mobilenet_v1_0.5_160_quant.tflite")
    classifier = hub.Classifier(hub.convert(file, tmp_path / "quantized"))
    outcome = Outcome(next(shared("photos/imagenet_samples").iterdir()), "c/p", "", 1, 2, 0.9, 0.1)
    assert explain_worst(classifier, [outcome]) == {}


def test_what_cannot_be_decoded_or_is_unknown_is_named(module, photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    for name in ("tench/broken.jpg", "whale/1.jpg"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"no photo")
    with pytest.raises(InputError, match="can be decoded"):
        hub.evaluate(module, folder)
    (folder / "tench/good.png").write_bytes((photos / "Tench/3 é.png").read_bytes())
    assert main(["evaluate", str(module), str(folder)]) == 1
    error = capsys.readouterr().err
    assert "broken.jpg" in error
    assert "'whale' is not a class of the module" in error


def test_refusals(module, photos, tmp_path):
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32))
    features = write_module(tmp_path / "features", Module(config, random_weights(config.network)))
    with pytest.raises(InputError, match="no classifier"):
        hub.evaluate(features, photos)
    with pytest.raises(OutputError, match="cannot be written"):
        hub.evaluate(module, photos).write_report(tmp_path / "nowhere" / "report.html")


def page_of(classes, photos_each, folder):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), photos_each)
    logits = random.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    metrics = measure(probabilities, labels)
    outcomes = [
        Outcome(folder / f"gone {i}.jpg", f"c/gone {i}.jpg", "", int(y), int(p.argmax()), float(p.max()), float(p[y]))
        for i, (y, p) in enumerate(zip(labels, probabilities, strict=True))
    ]
    curve = Curve(
        "Loss", "epoch", "loss", {"training": [(1, 0.5), (2, 0.4)], "validation": [(1, 0.6), (2, 0.7)]}, chosen=1
    )
    log = Curve("Strength", "strength", "loss", {"training": [(0.01, 1.0), (1.0, 2.0)]}, log_x=True, chosen=0.01)
    names = [f"class {i} <b>&" for i in range(classes)]
    return render(
        Report(
            "A & <title>",
            "lead",
            names,
            {"test": metrics, "train": metrics},
            outcomes,
            [curve, log],
            {"F": {"a<": "b>"}},
            ["careful <i>"],
            [("x<y.jpg", "broken")],
        )
    )


@pytest.mark.parametrize(("classes", "each"), [(2, 1), (2, 30), (10, 20), (30, 3), (31, 3), (200, 2)])
def test_the_page_is_well_formed_and_self_contained(classes, each, tmp_path):
    from html.parser import HTMLParser

    page = page_of(classes, each, tmp_path)
    problems, stack, void = [], [], {"meta", "img", "br"}

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in void:
                stack.append(tag)
            problems.extend(f"{k}={v}" for k, v in attributes if k in ("src", "href") and not v.startswith("data:"))

        def handle_startendtag(self, tag, attributes):
            pass

        def handle_endtag(self, tag):
            if not stack or stack.pop() != tag:
                problems.append(f"</{tag}>")

    Checker().feed(page)
    assert not problems
    assert not stack
    assert not re.search(r"https?://|url\(|@import|<script", page)
    assert "nan" not in page.lower().replace("nance", "")
    assert not re.search(r"<b>&[^a]|<i>|b><", page.replace("<b>class", "").replace("</b>", ""))


def test_a_page_without_mistakes(tmp_path):
    metrics = measure(np.eye(2), np.array([0, 1]))
    outcomes = [Outcome(tmp_path / "a.jpg", "a/a.jpg", "", 0, 0, 1.0, 1.0)]
    assert "every photo got its label" in render(Report("t", "", ["a", "b"], {"test": metrics}, outcomes))
