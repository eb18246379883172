"""One photo, one answer: what train wrote down, evaluate, classify and the report say, also after export and import."""

import csv
import json

import numpy as np
import pytest
from test_training_frozen import base, paint  # noqa: F401 (a fixture)
from test_weights_exported import NEEDS

from mobilenet_hub.architecture import mobilenet_v1
from mobilenet_hub.evaluation.dataset import read_dataset
from mobilenet_hub.evaluation.evaluate import evaluate
from mobilenet_hub.exporting.export import export
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.engine import settled_precision
from mobilenet_hub.inference.litert import LiteRTModel
from mobilenet_hub.training.frozen import FrozenOptions
from mobilenet_hub.training.schedule import GradientOptions
from mobilenet_hub.training.train import train
from mobilenet_hub.weights.convert import convert

NEAR = 2e-5  # where features were kept, the head is computed by NumPy, else by LiteRT: sums of 256 float32
GRADIENT = GradientOptions(epochs=2, batch_size=8, learning_rate=0.01, warmup=0.5, decay=0.5, batch_norm_momentum=0.8)
METHODS = {
    "frozen": {},
    "fine-tune": {"gradient": GRADIENT},
    "from-scratch": {"gradient": GRADIENT, "network": mobilenet_v1(0.25), "image_size": 32},
}
METHOD = pytest.mark.parametrize(
    "method", ["frozen", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fine-tune", "from-scratch"))]
)
PRECISION = pytest.mark.parametrize("precision", ["f32", "bf16"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of thirty photos; one of them is there twice, one in two, one to test with is none."""
    folder = paint(tmp_path_factory.mktemp("data") / "colours", {"blue sky": 30, "Grün": 30, "red": 30}, size=40)
    first, second = sorted((folder / "red").iterdir())[3:5]
    (folder / "red" / "copy.png").write_bytes(first.read_bytes())
    (folder / "Grün" / "also red.png").write_bytes(second.read_bytes())
    for number in range(100):  # until it is one to test with: found out when the training is over
        (folder / "red" / "none.png").write_bytes(b"no picture %d" % number)
        if any(example.name == "red/none.png" for example in read_dataset(folder).part("test")):
            return folder
    raise AssertionError("no part to test with")


@pytest.fixture(scope="module")
def table(photos):
    """The same photos as a table in another folder, half of the paths absolute."""
    file = photos.parent / "tables" / "photos.csv"
    file.parent.mkdir()
    found = sorted(photos.rglob("*.png"))
    lines = [
        (path if at % 2 else f"../{path.relative_to(photos.parent)}", path.parent.name) for at, path in enumerate(found)
    ]
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *lines])
    return file


@pytest.fixture(scope="module")
def trained(photos, base, tmp_path_factory):  # noqa: F811
    """What makes a module by a method in a precision, each once."""
    made = {}

    def get(method, precision):
        if settled_precision(precision, "auto") != precision:
            pytest.skip("a CPU without bfloat16")
        if (method, precision) not in made:
            if method != "frozen":
                pytest.importorskip("keras")
            options = METHODS[method] | ({} if method == "from-scratch" else {"module": base})
            frozen, output = FrozenOptions(precision=precision), tmp_path_factory.mktemp(method) / "module"
            made[method, precision] = train(photos, output, method=method, frozen=frozen, **options)
        return made[method, precision]

    return get


def written(folder):
    """Of each photo by its digest: what train wrote down."""
    with (folder / "photos.csv").open(encoding="utf-8", newline="") as stream:
        return {row["sha1"]: row for row in csv.DictReader(stream)}


def said(evaluation):
    return {o.digest: (o.label, o.predicted, o.score) for o in evaluation.outcomes}


def classified(module, evaluation, precision="auto"):
    outcomes = evaluation.outcomes
    found = Classifier(module, precision).classify([o.path for o in outcomes], top=1)
    return {o.digest: (o.label, p.indices[0], p.scores[0]) for o, p in zip(outcomes, found, strict=True)}


@PRECISION
@METHOD
def test_all_say_the_same_of_every_photo(trained, photos, table, method, precision):
    result = trained(method, precision)
    rows, evaluation = written(result.path), evaluate(result.path, photos, precision=precision)
    answers = said(evaluation)
    assert answers == classified(result.path, evaluation, precision)
    assert answers == said(evaluate(result.path, table, precision=precision))
    assert answers.keys() == rows.keys()
    assert len(rows) == 89  # less the copy, the two of both classes, and what is no picture
    for digest, (label, predicted, score) in answers.items():
        assert (label, predicted) == (int(rows[digest]["label"]), int(rows[digest]["predicted"]))
        assert score == pytest.approx(float(rows[digest]["score"]), abs=NEAR)
    test = {digest: answer for digest, answer in answers.items() if rows[digest]["split"] == "test"}
    right = sum(label == predicted for label, predicted, _ in test.values())
    assert [skip.path.name for skip in result.skipped if "photo" not in skip.reason] == ["none.png"]
    metrics = json.loads((result.path / "metrics.json").read_text("utf-8"))["test"]
    assert (metrics["correct"], metrics["images"]) == (right, len(test))
    assert result.accuracy == right / len(test)
    assert f"{right}<small> of {len(test)}</small>" in (result.path / "report.html").read_text("utf-8")
    for source in (photos, table):
        unseen = evaluate(result.path, source, precision=precision, unseen=True)
        assert said(unseen) == test
        assert unseen.accuracy == result.accuracy


@pytest.mark.parametrize(
    ("method", "format"),
    [
        pytest.param(method, format, marks=pytest.mark.slow if method != "frozen" else ())
        for method in METHODS
        for format in NEEDS
        if method == "fine-tune" or format not in ("keras", "tf-hub")  # slow ones once
    ],
)
def test_and_the_same_after_export_and_import(trained, photos, table, method, format, tmp_path):
    for package in NEEDS[format]:
        pytest.importorskip(package)
    module = trained(method, "f32").path
    export(module, format, tmp_path / "export")
    back = convert(tmp_path / "export", tmp_path / "renamed")
    for precision in ("f32", "auto"):
        expected = said(evaluate(module, photos, precision=precision, unseen=True))
        found = evaluate(back, table, precision=precision, unseen=True)
        assert said(found) == expected == classified(back, found, precision)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_int8_says_one_thing_wherever_it_is_asked(photos, table, outputs, shared, tmp_path):
    """Of Google's own weights: random ones do not bear it."""
    pytest.importorskip("tensorflow")
    google = convert(shared("weights/slim_frozen/mobilenet_v1_0.25_128_frozen.pb"), tmp_path / "google")
    module = train(photos, tmp_path / "m", module=google, frozen=FrozenOptions(precision="f32"))
    export(module.path, "litert", tmp_path / "m.tflite", precision="int8", calibration=photos, outputs=outputs)
    back = convert(tmp_path / "m.tflite", tmp_path / "back")
    evaluation = evaluate(back, photos)
    answers, rows = said(evaluation), written(module.path)
    assert answers == classified(back, evaluation) == said(evaluate(back, table))
    assert said(evaluate(back, table, unseen=True)) == {d: a for d, a in answers.items() if rows[d]["split"] == "test"}
    pixels = Classifier(back).preprocessing.load_batch([o.path for o in evaluation.outcomes])
    given = LiteRTModel(tmp_path / "m.tflite").run(pixels / np.float32(255))[outputs]
    assert [o.predicted for o in evaluation.outcomes] == given.argmax(1).tolist()
