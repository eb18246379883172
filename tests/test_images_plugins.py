"""HEIC, AVIF and JPEG XL, which Pillow or a plug-in reads: written with them here, and read on every route."""

import io
import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import scenes
from PIL import Image, features
from scenes import furthest, turned

from mobilenet_hub.errors import ImageError
from mobilenet_hub.images.decode import decode_image

ENDINGS = {"HEIF": ("a.heic", "a.HIF", "a"), "AVIF": ("a.avif", "a.avifs", "a"), "JXL": ("a.jxl", "a.JXL", "a")}
# Levels of 255 at the worst point of a smooth picture. HEVC and AV1 store luma and color differences, rounded.
TOLERANCE = {"HEIF": 16, "AVIF": 16, "JXL": 0}


@pytest.fixture(params=["HEIF", "AVIF", "JXL"])
def kind(request):
    """A format that can be written here."""
    if request.param == "HEIF":
        pytest.importorskip("pillow_heif", reason="the extra heif: HEIC").register_heif_opener()
    elif request.param == "JXL":
        pytest.importorskip("pillow_jxl", reason="JPEG XL: pip install pillow-jxl-plugin")
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    return request.param


def saved(image, kind, **options):
    return scenes.saved(image, kind, **({"lossless": True} if kind == "JXL" else {"quality": 95}), **options)


def scene(height=38, width=54):  # even sides, which need no filling up
    return scenes.scene(height, width)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_every_mode_is_what_was_written(kind, mode):
    picture = Image.fromarray(scene()).convert(mode)
    if mode.endswith("A"):
        picture.putalpha(128)
    shown = decode_image(picture)  # an image of Pillow's, not yet in any file
    assert furthest(decode_image(saved(picture, kind)), shown) <= TOLERANCE[kind]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_route_shows_the_same_picture_the_right_way_up(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(scene()), kind, exif=exif.tobytes())
    shown = decode_image(data)
    assert furthest(shown, turned(scene(), orientation)) <= TOLERANCE[kind]
    path = tmp_path / "picture"
    path.write_bytes(data)
    with Image.open(path) as opened, Image.open(io.BytesIO(data)) as loaded, path.open("rb") as file:
        loaded.load()
        for source in (path, bytearray(data), opened, loaded, Image.open(file)):
            assert furthest(decode_image(source), shown) == 0


def test_deep_samples_keep_their_upper_bits():
    heif = pytest.importorskip("pillow_heif", reason="the extra heif: HEIC")
    deep = scene().astype(np.uint16) << 8 | 37
    alpha = np.full((*deep.shape[:2], 1), 0x8080, np.uint16)
    for mode, values, shown in (
        ("RGB;16", deep, scene()),
        ("RGBA;16", np.concatenate([deep, alpha], axis=2), scene() * (128 / 255) + 127),
    ):
        buffer = io.BytesIO()
        picture = heif.from_bytes(mode, deep.shape[1::-1], np.ascontiguousarray(values).tobytes())
        picture.save(buffer, quality=-1, chroma=444)
        assert furthest(decode_image(buffer.getvalue()), np.asarray(shown)) <= 2  # through color differences of 10 bits


@pytest.mark.parametrize("cut", [0.05, 0.5, 0.9])
def test_damaged_ones_have_a_reason_that_names_the_kind(kind, cut):
    data = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)), kind)
    with pytest.raises(ImageError) as caught:
        decode_image(data[: int(len(data) * cut)])
    assert any(word in caught.value.reason for word in ("damaged", "truncated"))
    assert "pip install" not in caught.value.reason


def test_the_command_line_reads_them_by_any_name(kind, tmp_path):
    """A new process, which has loaded no plug-in before."""
    folder = tmp_path / "photos"
    folder.mkdir()
    data = saved(Image.fromarray(scene(90, 120)), kind)
    for name in ENDINGS[kind]:
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as packed:
        for name in ENDINGS[kind]:
            packed.write(folder / name, name)
    words = [sys.executable, "-m", "mobilenet_hub.cli.main", "classify", "--json", "--quiet"]
    done = subprocess.run([*words, folder, tmp_path / "photos.zip"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    answers = {json.dumps(p["scores"]) for p in json.loads(done.stdout)["predictions"]}
    assert len(json.loads(done.stdout)["predictions"]) == 6 and len(answers) == 1


@pytest.mark.parametrize(("package", "data", "advice"), [
    ("pillow_heif", b"\0\0\0\x18ftypheic" + bytes(100), "mobilenet-hub[heif]"),
    ("pillow_jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100), "pillow-jxl-plugin"),
])  # fmt: skip
def test_without_the_plug_in_its_name_is_said(package, data, advice):
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ImageError, match="pip install") as caught:
        decode_image(data)
    assert advice in caught.value.reason
