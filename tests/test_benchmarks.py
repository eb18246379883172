"""Every benchmark and recipe runs, once and small: what is measured with them later must not have rotted by then."""

import io
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from reference_network import random_weights

from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_config, write_module

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
# What is no benchmark or recipe of its own: a part of others, or run by another test.
# Take a minute or more, or a collection of features: each needs a small size of its own.
NOT_YET = {"benchmarks/profiles" + ".py", "benchmarks/search" + ".py", "recipes/starter/calibrate" + ".py"}
ELSEWHERE = {"benchmarks/pretrained.py", "benchmarks/serve_client.py", "recipes/make_docs.py"}


def run(script, *words, **environment):
    """Run a script, which must succeed, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / script, *map(str, words)],
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def need(*packages):
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"needs {package}, which comes with an extra")


@pytest.fixture
def photos(tmp_path):
    """Labelled photos: two classes that differ in colour."""
    from PIL import Image

    random = np.random.default_rng(0)
    for label, colour in (("blue", 200), ("red", 50)):
        folder = tmp_path / "labelled" / label
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 50, (40, 40, 3), np.uint8)
            pixels[..., 2] += np.uint8(colour)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "labelled"


@pytest.fixture
def module(tmp_path):
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 3, labels=("ant", "bee", "cat"))
    return write_module(tmp_path / "module", Module(config, random_weights(config.network)))


def test_startup():
    printed = run("benchmarks/startup.py", "starter", "examples/cat.jpg", "--rounds", 1, "--alone")
    assert "| mobilenet classify photo, second start |" in printed


@pytest.mark.parametrize("contestant", ["ours, decoding alone", "ours, f32 network alone", "ours, auto", "ours, int8"])
def test_bulk_ours(contestant, tmp_path):
    if contestant.endswith("int8"):
        need("nncf")
    (tmp_path / "photos").mkdir()
    for number in range(8):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes((ROOT / "examples/cat.jpg").read_bytes())
    printed = run("benchmarks/bulk.py", "--photos", tmp_path, "--contestant", contestant)
    assert printed.strip().splitlines()[-1].startswith("[")


def test_bulk_beside_its_peers():
    need("tensorflow", "torch")
    printed = run("benchmarks/bulk.py", "--photos", "examples", "--count", 4, "--turns", 1)
    for name in ("ours, f32", "Keras image_dataset_from_directory", "PyTorch DataLoader", "the same with scaled"):
        assert f"| {name}" in printed, printed
    assert "limit of the parts by wall clock" in printed


def test_serve():
    need("uvicorn", "starlette", "python_multipart")
    printed = run("benchmarks/serve.py", "--photos", "examples", "--seconds", 0.5, "--turns", 1)
    assert "| 32 connections |" in printed


def test_inference():
    need("tensorflow", "torch")
    printed = run("benchmarks/inference.py", "--rounds", 1, "--batch", 1, "--", "mobilenet_v1_025_128")
    assert "mobilenet_v1_025_128" in printed


def test_train_step():
    need("keras", "torch")
    words = ("--network", "mobilenet_v1", "--depth-multiplier", 0.25, "--size", 32, "--batch", 2, "--rounds", 1)
    printed = run("benchmarks/train_step.py", *words, KERAS_BACKEND="torch")
    assert all(f"| {name} |" in printed for name in ("ours", "keras.applications", "native PyTorch"))


def test_frozen_training(module, photos):
    need("keras", "torch")
    printed = run("benchmarks/frozen_training.py", module, photos, "--epochs", 1, KERAS_BACKEND="torch")
    assert "times as long" in printed


def test_fine_tuning(module, photos):
    need("keras", "torch")
    printed = run("benchmarks/fine_tuning.py", module, photos, "--seeds", 1, "--epochs", 1, KERAS_BACKEND="torch")
    assert "right only when frozen" in printed


def test_decode(shared):
    printed = run("benchmarks/decode.py", "--shared", shared("golden").parent, "--count", 8)
    assert "| the original pipeline |" in printed
    assert "| 4000x3000" in printed


def test_bfloat16(shared):
    need("torch")
    printed = run("benchmarks/bfloat16.py", "--shared", shared("golden").parent, "--count", 4)
    assert "| the starter, V1 0.5, 160 | biases corrected |" in printed


@pytest.mark.parametrize("what", ["archives", "readers"])
def test_fuzzing(what):
    if what == "readers":
        need("h5py")
    printed = run(f"recipes/fuzz_{what}.py", "--minutes", 0.02, "--seed", 1)
    assert {"archives": "nothing found", "readers": ", 0 faults"}[what] in printed


def test_the_starter_s_recipe(tmp_path, photos):
    """Its archive unpacked, and a trained module packed; the hours between are another matter."""
    sys.path.insert(0, str(ROOT / "recipes/starter"))
    try:
        from prepare import PLAINER
    finally:
        sys.path.pop(0)
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "WEBP")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        names = {f"n{number:08d}": f"{first}, another name" for number, first in enumerate(PLAINER)}
        archive.writestr("words.txt", "\n".join(f"{wnid}\t{words}" for wnid, words in names.items()))
        archive.writestr("val/n00000000/a.webp", picture.getvalue())
    run("recipes/starter/prepare.py", tmp_path / "photos.zip", tmp_path / "prepared")
    assert (tmp_path / "prepared/val/fire salamander/a.webp").exists()

    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 2, labels=("blue", "red"), trained_on={"images": 1})
    trained = write_module(tmp_path / "trained", Module(config, random_weights(config.network)))
    run("recipes/starter/pack.py", trained, photos, 48, tmp_path / "packed")
    packed = read_config(tmp_path / "packed")
    assert packed.image_size == (48, 48)
    assert packed.metrics["test"]["images"] == 40


def test_none_is_left_out():
    text = Path(__file__).read_text("utf-8")
    files = (*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("recipes/**/*.py"))
    scripts = {file.relative_to(ROOT).as_posix() for file in files}
    fuzzing = {f"recipes/fuzz_{what}.py" for what in ("archives", "readers")}
    assert {script for script in scripts if f'"{script}"' not in text} - NOT_YET == fuzzing
