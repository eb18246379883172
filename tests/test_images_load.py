"""Pictures fitted to the network's input, batches taken as they are, and what published networks say of both."""

import io

import numpy as np
import pytest
from PIL import Image

from mobilenet_hub.errors import InputError
from mobilenet_hub.images import load
from mobilenet_hub.images.decode import decode_image
from mobilenet_hub.images.fit import FITS, Preprocessing


def scene(height=96, width=144):
    """A smooth picture whose four corners differ, so that a wrong turn or channel order shows."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return np.stack([red, green, 128 + 60 * np.sin(x / 17 + y / 11)], axis=2).astype(np.uint8)


# Fits


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (1, 300), (300, 1), (64, 64), (700, 20)])
def test_every_fit_fills_every_size(fit, shape):
    flat = np.full((*shape, 3), 37, np.uint8)
    fitted = load.load_image(flat, (48, 64), fit)
    assert fitted.shape == (48, 64, 3)
    assert fitted.dtype == np.uint8
    assert set(np.unique(fitted)) <= ({37, 128} if fit == "pad" else {37})


def test_each_fit_takes_its_part_of_the_picture():
    wide = np.zeros((80, 160, 3), np.uint8)
    wide[:, :40], wide[:, 120:] = 255, 255  # white outside the central square
    shares = {fit: (load.load_image(wide, 80, fit)[40] > 128).mean() for fit in FITS}
    assert shares["center"] == 0
    assert shares["squash"] == 0.5
    assert shares["pad"] == 0.5
    assert shares["crop"] == pytest.approx(1 - 0.5 / 0.875, abs=0.03)
    assert shares["slim"] == pytest.approx(1 - 0.5 / 0.875, abs=0.03)
    padded = load.load_image(wide, 80, "pad")
    assert (padded[:20] == 128).all() and (padded[60:] == 128).all()


def test_a_picture_of_the_right_size_is_left_alone():
    for fit in ("center", "squash", "pad"):
        assert np.array_equal(load.load_image(scene(48, 64), (48, 64), fit), scene(48, 64))


def test_an_unknown_fit_or_size_is_refused():
    with pytest.raises(InputError, match="center, crop, squash, pad, slim"):
        load.load_image(scene(), 32, "stretch")
    for size in (0, (3, 4, 5), (3.5, 4)):
        with pytest.raises(InputError, match="image size"):
            load.load_image(scene(), size)


def test_a_scaled_jpeg_is_fitted_as_the_whole_is():
    large = np.asarray(Image.fromarray(scene()).resize((2880, 1920)))
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "JPEG", quality=92)
    for fit in FITS:
        one, other = (load.load_image(source, 224, fit).astype(int) for source in (buffer.getvalue(), large))
        assert np.abs(one - other).mean() < 3


@pytest.mark.parametrize("fit", FITS)
def test_colors_are_brought_to_srgb_last_and_show_the_same(fit):
    """Fitted and then converted is converted and then fitted, but for rounding and what a filter makes of edges."""
    from PIL import ImageCms

    y, x = np.mgrid[0:90, 0:120]
    smooth = np.stack([100 + 80 * np.sin(x / 17), 120 + 60 * np.cos(y / 13), 2 * x], axis=2).clip(0, 255)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    swapped = bytearray(lab.tobytes())  # red and green change places: a profile that nobody can miss
    red, green = swapped.index(b"rXYZ", 128), swapped.index(b"gXYZ", 128)
    swapped[red : red + 4], swapped[green : green + 4] = swapped[green : green + 4], swapped[red : red + 4]
    buffer = io.BytesIO()
    Image.fromarray(smooth.astype(np.uint8)).save(buffer, "PNG", icc_profile=bytes(swapped))
    fitted = Preprocessing(32, fit)
    late = fitted.load(buffer.getvalue()).astype(int)
    early = fitted.apply(decode_image(buffer.getvalue())).astype(int)
    if fit == "slim":  # as the published networks were measured, without profiles
        early = fitted.apply(smooth.astype(np.uint8)).astype(int)
        assert np.array_equal(late, early)
    assert np.abs(late - early).max() <= 3
    if fit == "pad":
        assert (late[0] == 128).all()


def test_a_batch_is_its_images():
    batch = Preprocessing(32, "squash").load_batch([scene(), scene()[::-1]])
    assert batch.dtype == np.uint8
    assert np.array_equal(batch[1], load.load_image(scene()[::-1], 32, "squash"))
    assert Preprocessing(32).load_batch([]).shape == (0, 32, 32, 3)


# Batches taken as they are


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_good_batch_is_taken_as_it_is(dtype):
    batch = np.linspace(0, 1, 2 * 4 * 5 * 3).reshape(2, 4, 5, 3).astype(dtype)
    assert np.array_equal(load.check_batch(batch), batch.astype(np.float32))
    assert load.check_batch(np.zeros((0, 4, 5, 3), dtype)).shape == (0, 4, 5, 3)


@pytest.mark.parametrize(
    ("batch", "fix"),
    [
        (np.full((1, 4, 4, 3), 200.0), "images / 255"),
        (np.full((1, 4, 4, 3), -0.5), r"\(images \+ 1\) / 2"),
        (np.full((1, 4, 4, 3), -2.1), "undo the normalization"),
        (np.full((1, 4, 4, 3), np.nan), "not finite"),
        (np.zeros((1, 4, 4, 3), np.uint8), "uint8"),
        (np.zeros((1, 4, 4, 3), np.int64), "int64"),
        (np.zeros((1, 3, 4, 4)), r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 4, 3)), "newaxis"),
        (np.zeros((1, 4, 4, 1)), r"float64 \[1, 4, 4, 1\]"),
        (np.zeros((4, 4)), "RGB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_batch_is_refused_with_the_fix(batch, fix):
    with pytest.raises(InputError, match=fix):
        load.check_batch(batch)


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(InputError, match="224x224"):
        load.check_batch(np.zeros((1, 4, 4, 3)), (224, 224))


# What the published networks say

PRETRAINED = {128: "mobilenet_v1_0.25_128_frozen.pb", 224: "mobilenet_v1_0.25_224_frozen.tgz"}


@pytest.fixture(scope="module", params=PRETRAINED)
def pretrained(request, shared, tmp_path_factory):
    """A published network, the photos, their classes, and the logits of the original pipeline."""
    from mobilenet_hub.inference.classify import Classifier
    from mobilenet_hub.weights.convert import convert

    size = request.param
    weights = shared("weights/slim_frozen") / PRETRAINED[size]
    with np.load(shared("golden/pretrained_v1_025.npz")) as reference:
        files, labels, logits = reference["files"], reference["labels"], reference[f"{size}/photo_logits"]
    photos = [(shared("photos/imagenet_samples") / name).read_bytes() for name in files]
    return Classifier(convert(weights, tmp_path_factory.mktemp("module") / "m"), "f32"), photos, labels, logits


def right(logits, labels):
    return int((logits.argmax(axis=1) == labels).sum())


def test_slim_is_the_original_pipeline(pretrained):
    classifier, photos, labels, original = pretrained
    logits = classifier.logits([load.load_image(photo, classifier.image_size, "slim") for photo in photos])
    # What rounding the resized pixels to 8 bits costs; with another transform in the decoder it is four times as much.
    assert np.abs(logits - original).max() < 0.25
    assert right(logits, labels) == right(original, labels)


def test_the_default_fit_is_as_accurate_as_the_original_scaled_or_not(pretrained):
    classifier, photos, labels, original = pretrained
    scaled = right(classifier.logits(photos), labels)
    whole = right(classifier.logits([decode_image(photo) for photo in photos]), labels)
    assert min(scaled, whole) >= right(original, labels) - 1
    assert abs(scaled - whole) <= 1
