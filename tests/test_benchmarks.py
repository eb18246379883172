"""Every benchmark and recipe runs, once and small: what is measured with them later must not have rotted by then."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from reference_network import random_weights

from mobilenet_hub.inference.engine import settled_precision
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_config, write_module

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
# What is no benchmark or recipe of its own: a part of others, or run by another test.
ELSEWHERE = {
    "benchmarks/pretrained.py",
    "benchmarks/serve_client.py",
    "benchmarks/serve_peers.py",
    "recipes/make_docs.py",
    "recipes/make_site.py",  # tests/test_site.py builds the site with this and the next four
    "recipes/site_gallery.py",
    "recipes/site_notebooks.py",
    "recipes/site_reference.py",
    "recipes/draw_shapes.py",
}

# With several threads PyTorch's wait for one another, where there is as little to do as here.
ON_TORCH = {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}


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


def precisions_here():
    return ["f32", "int8", *(["bf16"] if settled_precision("bf16", "auto") == "bf16" else [])]


def test_bulk():
    """One that cannot run is named and left out: ours must all be there, its peers where they are installed."""
    printed = run("benchmarks/bulk.py", "--photos", "examples", "--count", 4, "--turns", 1)
    rates = {line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")}
    precisions = precisions_here()
    wanted = {"ours, decoding alone"}
    wanted |= {f"ours, {precision}{part}" for precision in precisions for part in ("", " network alone")}
    peers = {
        "Keras image_dataset_from_directory + predict": ("tensorflow",),
        "PyTorch DataLoader + eager network": ("torch",),
        "the same with scaled decoding": ("torch",),
    }
    wanted |= {name for name, packages in peers.items() if all(map(find_spec, packages))}
    assert rates - {""} == wanted, printed
    assert all(f"{precision}, limit of the parts by wall clock" in printed for precision in precisions)


def test_many_machines(photos):
    need("boto3", "moto")
    said = run("benchmarks/many_machines.py", "--photos", photos, "--count", 4, "--turns", 1, "--memory", 20)
    assert "bucket, one thread" in said
    assert "20 photos:" in said


def test_serve():
    need("uvicorn", "starlette", "python_multipart")
    printed = run("benchmarks/serve.py", "--photos", "examples", "--seconds", 0.5, "--turns", 1)
    assert "| 32 connections |" in printed


def test_inference():
    need("tensorflow", "torch")
    precisions = precisions_here()
    words = ("--rounds", 1, "--batch", 1, "--threads", 1, "--precision", *precisions, "--", "mobilenet_v1_025_32")
    printed = run("benchmarks/inference.py", *words)
    assert all(f"mobilenet_v1_025_32, batch 1, 1 threads, {precision}:" in printed for precision in precisions)


def test_layers():
    need("torch")
    printed = run("benchmarks/layers.py", "--rounds", 1, "mobilenet_v1_025_32")
    assert all(f"| {kind} |" in printed for kind in ("1x1", "depthwise", "pooling and classifier"))


def test_train_step():
    need("keras", "torch")
    words = ("--network", "mobilenet_v1", "--depth-multiplier", 0.25, "--size", 32, "--batch", 2, "--rounds", 1)
    printed = run("benchmarks/train_step.py", *words, **ON_TORCH)
    assert all(f"| {name} |" in printed for name in ("ours", "keras.applications", "native PyTorch"))


def test_frozen_training(module, photos):
    need("keras", "torch")
    printed = run("benchmarks/frozen_training.py", module, photos, "--epochs", 1, **ON_TORCH)
    assert "times as long" in printed


def test_fine_tuning(module, photos):
    need("keras", "torch")
    printed = run("benchmarks/fine_tuning.py", module, photos, "--seeds", 1, "--epochs", 1, **ON_TORCH)
    assert "right only when frozen" in printed


def test_decode(shared):
    printed = run("benchmarks/decode.py", "--shared", shared("golden").parent, "--count", 2)
    assert "| the original pipeline |" in printed
    assert "| 4000x3000" in printed


def test_bfloat16(shared):
    need("torch")
    printed = run("benchmarks/bfloat16.py", "--shared", shared("golden").parent, "--count", 1, **ON_TORCH)
    assert "| the starter, V1 0.5, 160 | biases corrected |" in printed


def test_profiles(shared):
    printed = run("benchmarks/profiles.py", "--shared", shared("golden").parent, "--count", 2)
    assert all(f"| {space} |" in printed for space in ("sRGB", "Display P3", "AdobeRGB", "linear"))


def test_search(tmp_path):
    need("simsimd")
    from feature_folders import clustered, write_features

    features = write_features(tmp_path / "features", clustered(400))
    printed = run("benchmarks/search.py", features, "--rows", 5000)
    assert all(f"| 5000 | {step} |" in printed for step in ("index", "query, simsimd", "query, NumPy", "dedupe"))
    assert [folder.name for folder in tmp_path.iterdir()] == ["features"]


def test_copies(photos):
    printed = run("benchmarks/copies.py", photos, "--count", 2)
    assert "| same file | " in printed
    assert "| --false-pairs 1e-06, of photos alone | " in printed


@pytest.mark.parametrize("what", ["archives", "readers"])
def test_fuzzing(what):
    if what == "readers":
        need("h5py")
    printed = run(f"recipes/fuzz_{what}.py", "--minutes", 0.02, "--seed", 1)
    assert {"archives": "nothing found", "readers": ", 0 faults"}[what] in printed


@pytest.fixture
def tiny_imagenet(tmp_path):
    """An archive as the starter was trained on: some classes, named by WordNet id in words.txt."""
    sys.path.insert(0, str(ROOT / "recipes/starter"))
    try:
        from prepare import PLAINER
    finally:
        sys.path.pop(0)
    from PIL import Image

    random = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        names = {f"n{number:08d}": f"{first}, another name" for number, first in enumerate(PLAINER)}
        archive.writestr("words.txt", "\n".join(f"{wnid}\t{words}" for wnid, words in names.items()))
        for wnid in names:
            picture = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(picture, "WEBP")
            archive.writestr(f"val/{wnid}/a.webp", picture.getvalue())
    return tmp_path / "photos.zip"


def test_calibrate(tmp_path, tiny_imagenet):
    starter = shutil.copytree(ROOT / "src/mobilenet_hub/starter", tmp_path / "starter")
    before = json.loads((starter / "module.json").read_text())
    printed = run("recipes/starter/calibrate.py", tiny_imagenet, starter)
    assert "after: 27 photos" in printed
    after = json.loads((starter / "module.json").read_text())
    assert f"temperature {after['temperature']}" in printed
    assert after["temperature"] != before["temperature"]
    assert {**after, "temperature": before["temperature"]} == before
    assert read_config(starter).num_classes == 202


def test_the_starter_s_recipe(tmp_path, photos, tiny_imagenet):
    """Its archive unpacked, and a trained module packed; the hours between are another matter."""
    run("recipes/starter/prepare.py", tiny_imagenet, tmp_path / "prepared")
    assert (tmp_path / "prepared/val/fire salamander/a.webp").exists()

    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 2, labels=("blue", "red"), trained_on={"images": 1})
    trained = write_module(tmp_path / "trained", Module(config, random_weights(config.network)))
    run("recipes/starter/pack.py", trained, photos, 48, tmp_path / "packed")
    packed = read_config(tmp_path / "packed")
    assert packed.image_size == (48, 48)
    assert packed.metrics["test"]["images"] == 40


def test_pictures(photos, tmp_path):
    need("playwright")
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium: apt-get install chromium")
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    run("recipes/make_pictures.py", archive, "--output", tmp_path)
    for name in ("training_report", "report_mistakes", "search_copies", "search_similar"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_none_is_left_out():
    text = Path(__file__).read_text("utf-8")
    files = (*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("recipes/**/*.py"))
    scripts = {file.relative_to(ROOT).as_posix() for file in files}
    fuzzing = {f"recipes/fuzz_{what}.py" for what in ("archives", "readers")}
    assert {script for script in scripts if f'"{script}"' not in text} == fuzzing
