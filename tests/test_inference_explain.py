"""Class activation maps: exact, whatever computes and whatever stands behind the features, and where the photo is."""

import io
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from reference_network import random_weights

import mobilenet_hub as hub
from mobilenet_hub.architecture import Variant
from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images.fit import FITS
from mobilenet_hub.inference import explain as explaining
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.module import Module, ModuleConfig

CAT = Path(__file__).resolve().parents[1] / "examples" / "cat.jpg"
ENGINES = [("litert", "f32")] + [("openvino", p) for p in ("f32", "bf16") if find_spec("openvino")]
HEADS = {
    "linear": {},
    "tempered": {"temperature": 3.0},
    "hidden": {"hidden_units": (20,)},
    "deep": {"hidden_units": (20, 9)},
    "symmetric": {"padding": "symmetric"},
}


def made(architecture="mobilenet_v1", classes=4, size=(64, 96), **variant):
    config = ModuleConfig(architecture, 0.25, size, classes, variant=Variant(**variant))
    return Module(config, random_weights(config.network))


def noise(count, size=(64, 96), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def gap(explanation):
    """Return how far a map's mean plus its bias is from the logit."""
    return np.abs(explanation.maps.mean((1, 2)) + explanation.biases - explanation.logits).max()


@pytest.fixture(scope="module")
def starter():
    return Classifier("starter", "f32")


@pytest.mark.parametrize(("engine", "precision"), ENGINES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v2"])
def test_a_maps_mean_and_bias_are_the_logit(engine, precision, head, architecture):
    classifier = Classifier(made(architecture, **HEADS[head]), precision, engine=engine)
    images = list(noise(3))
    logits = classifier.logits(images)
    scale = max(1.0, np.abs(logits).max())
    for one, row in zip(classifier.explain(images, top=4), logits, strict=True):
        assert gap(one) < 1e-5 * scale  # float32 maps, of float64 products
        # What the classifier says, computed by float32 products of hundreds of terms; the temperature is left out.
        assert np.allclose(one.logits, row[list(one.indices)], atol=1e-4 * scale)
        assert one.maps.shape[1:] == (2, 3)
        assert list(one.scores) == sorted(one.scores, reverse=True)


def test_hidden_layers_are_explained_by_their_gradient():
    """The gradient of a logit by the features, by differences, is what a map's weights are."""
    rng = np.random.default_rng(1)
    layers = [(rng.normal(size=(1, 1, 6, 5)), rng.normal(size=5)), (rng.normal(size=(1, 1, 5, 3)), rng.normal(size=3))]
    features = rng.uniform(0, 6, (2, 2, 6))
    maps, _, _ = explaining.class_maps(layers, features, np.array([2]))

    def logit(pooled):
        return (np.maximum(pooled @ layers[0][0][0, 0] + layers[0][1], 0) @ layers[1][0][0, 0] + layers[1][1])[2]

    pooled, step = features.mean((0, 1)), 1e-6
    gradient = [(logit(pooled + step * one) - logit(pooled - step * one)) / (2 * step) for one in np.eye(6)]
    assert np.allclose(maps[0], features @ gradient, atol=1e-4)


@pytest.mark.parametrize("constant", [0, 1])
def test_two_classes_that_are_one_sigmoid_speak_against_each_other(constant):
    module = made(classes=2)
    kernel, bias = (variable.name for variable in module.config.network.classifier)
    weights = dict(module.weights)
    for name in (kernel, bias):
        weights[name] = weights[name].copy()
        weights[name][..., constant] = 0
    classifier = Classifier(replace(module, weights=weights), "f32")
    (one,) = classifier.explain(noise(1)[0], classes=[0, 1])
    assert np.array_equal(one.maps[0], -one.maps[1]) and one.maps.any()
    assert gap(one) < 1e-5
    assert one.logits[1 - constant] == pytest.approx(classifier.logits(noise(1)[0])[0][1 - constant], abs=1e-5)


@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_a_map_does_not_depend_on_the_batch(engine, precision, monkeypatch):
    classifier = Classifier(made(), precision, engine=engine)
    images = noise(9)
    together = classifier.explain(list(images), top=2)
    alone = [classifier.explain(image, top=2)[0] for image in images]
    monkeypatch.setattr(explaining, "MAX_MAP_BYTES", 1)  # as many calls of the engine as images
    in_steps = Classifier(classifier.engine.job.source, precision, engine=engine).explain(list(images), top=2)
    # LiteRT computes image by image; OpenVINO orders its sums by the size of the batch.
    close = 0 if engine == "litert" else 1e-3 if precision == "f32" else 0.05
    for a, b, c in zip(together, alone, in_steps, strict=True):
        assert a.indices == b.indices == c.indices
        scale = np.abs(a.maps).max()
        assert np.abs(a.maps - b.maps).max() <= close * scale and np.abs(a.maps - c.maps).max() <= close * scale


def cornered(photo, corner, size):
    """Return a gray picture (height, width) with a photo in one corner of its central square."""
    height, width = size
    side = min(size)
    sheet = np.full((height, width, 3), 128, np.uint8)
    top, left = (height - side + corner[0] * side) // 2, (width - side + corner[1] * side) // 2
    sheet[top : top + side // 2, left : left + side // 2] = photo
    return sheet


def quarters(heat):
    """Return the shares of what spoke for the class that lie in each quarter, [2, 2]."""
    heat = np.clip(heat, 0, None)
    halves = np.array_split(heat, 2, 0)
    return np.array([[part.sum() for part in np.array_split(half, 2, 1)] for half in halves]) / heat.sum()


@pytest.fixture(scope="module")
def face():
    """The cat's face."""
    with Image.open(CAT) as image:
        return np.asarray(ImageOps.fit(image.convert("RGB"), (160, 160)))


@pytest.mark.parametrize("size", [(320, 320), (320, 480), (480, 320)])
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_what_speaks_is_where_the_photo_is(starter, face, corner, size):
    (one,) = starter.explain(cornered(face, corner, size), classes=[starter.classify(face)[0].labels[0]])
    shares = quarters(one.heat())
    assert np.unravel_index(shares.argmax(), (2, 2)) == corner
    assert shares[corner] > 0.4


@pytest.mark.parametrize("image_size", [(160, 160), (96, 224), (161, 193)])
@pytest.mark.parametrize("fit", FITS)
def test_every_fit_and_size_keeps_the_corner(face, fit, image_size):
    classifier = Classifier("starter", "f32", image_size, fit=fit)
    for corner in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        sheet = cornered(face, corner, (320, 320))
        if fit in ("center", "pad"):  # of the input's shape, so that nothing but gray is cut or added
            sheet = np.asarray(ImageOps.pad(Image.fromarray(sheet), image_size[::-1], color=(128, 128, 128)))
        (one,) = classifier.explain(sheet, classes=["Egyptian cat"])
        assert one.image.shape == (*image_size, 3) and one.heat().shape == image_size
        assert np.array_equal(one.image, classifier.preprocessing.load(sheet))
        rows, columns = (
            heat.clip(0) @ np.linspace(-1, 1, len(heat)) for heat in (one.heat().sum(1), one.heat().sum(0))
        )
        assert (rows > 0, columns > 0) == (corner[0] == 1, corner[1] == 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_oriented_file_is_explained_as_it_is_seen(starter, face, orientation):
    upright = Image.fromarray(cornered(face, (0, 1), (320, 320)))
    back = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, 1)  # what undoes each
    exif = Image.Exif()
    exif[0x0112] = back
    turned = ImageOps.exif_transpose(_with(upright, exif))
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", quality=95, exif=exif)
    (one,), (plain,) = (starter.explain(image, classes=["Egyptian cat"]) for image in (buffer.getvalue(), upright))
    assert np.corrcoef(one.heat().ravel(), plain.heat().ravel())[0, 1] > 0.98  # JPEG at 95


def _with(image, exif):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return Image.open(buffer)


@pytest.mark.parametrize("size", [160, 161, 176, 200])
def test_a_mirrored_photo_has_the_mirrored_map(size, shared):
    """At every size; were positions laid out evenly at 161, this would be 0.60, and 0.62 by the padding alone."""
    classifier = Classifier("starter", "f32", size)
    paths = sorted(shared("photos/imagenet_samples").iterdir())[::4]
    images = classifier.preprocessing.load_batch(paths)
    found = []
    for one in classifier.explain(list(images)):
        (mirrored,) = classifier.explain(one.image[:, ::-1], classes=[one.indices[0]])
        found.append(np.corrcoef(one.heat().ravel(), mirrored.heat()[:, ::-1].ravel())[0, 1])
    assert np.mean(found) > 0.68  # of a network that was not made to be symmetric


def test_an_explanation_can_be_drawn(starter, face):
    one = starter.explain(face, top=3)[0]
    drawn = one.overlay(1)
    assert drawn.dtype == np.uint8 and drawn.shape == one.image.shape
    none = one.maps.max() <= 0
    assert not none and len(np.unique(one.overlay(0).reshape(-1, 3), axis=0)) > 100
    assert one.first(1).labels == one.labels[:1] and one.first(1).maps.shape[0] == 1


def test_classes_are_asked_for_by_name_or_number(starter, face):
    (one,) = hub.explain(face, classes=["tabby", 3]) if "tabby" in starter.labels else hub.explain(face, classes=[5, 3])
    assert one.indices[1] == 3 and one.maps.shape[0] == 2
    with pytest.raises(InputError, match="no class 'Egyptian cap'; near to it: Egyptian cat"):
        starter.explain(face, classes=["Egyptian cap"])
    for wrong in ([], [0, 0], [len(starter.labels)], [True], [-1], [1.0]):
        with pytest.raises(InputError, match="class"):
            starter.explain(face, classes=wrong)
    with pytest.raises(InputError, match="top must be"):
        starter.explain(face, top=0)


def test_floats_are_explained_as_they_are(starter):
    batch = np.random.default_rng(0).random((2, *starter.image_size, 3), np.float32)
    first, second = starter.explain(batch)
    assert (first.source, second.source) == ("image 0", "image 1")
    assert np.abs(first.image / 255 - batch[0]).max() <= 0.5 / 255 + 1e-6
    assert gap(first) < 1e-4


def test_a_bad_photo_is_named_and_costs_the_others_nothing(starter, face):
    named = []
    found = starter.explain([b"no picture", face], on_error=lambda name, error: named.append((name, str(error))))
    assert [one.source for one in found] == ["image 1"]
    assert named[0][0] == "image 0"
    with pytest.raises(ImageError, match="image 0"):
        starter.explain([b"no picture"])
    assert starter.explain([]) == []


def test_a_quantized_file_says_why_it_cannot(shared):
    from mobilenet_hub.weights.convert import load_source

    classifier = Classifier(load_source(shared("weights/tflite/mobilenet_v1_0.5_160_quant.tflite")))
    with pytest.raises(InputError, match=r"quantized LiteRT file .* which part of a photo"):
        classifier.explain(np.zeros((20, 20, 3), np.uint8))


@pytest.mark.parametrize("path", ["weights/teachable_machine_v2_035_224", "realfiles/files/nsfwjs_v2"])
def test_other_peoples_files_are_explained(path, shared):
    from mobilenet_hub.weights.convert import load_source

    classifier = Classifier(load_source(shared(path)), "f32")
    for one in classifier.explain([CAT], top=2):
        assert gap(one) < 1e-5 and one.maps.max() > 0


def test_the_document_runs_as_it_stands(monkeypatch):
    root = CAT.parents[1]
    monkeypatch.chdir(root)
    (block,) = re.findall(r"^```python\n(.*?)^```", (root / "docs" / "explain.md").read_text("utf-8"), re.DOTALL | re.M)
    scope: dict = {}
    exec(compile(block, "explain.md", "exec"), scope)
    assert scope["why"].labels == ("Egyptian cat", "lion")
