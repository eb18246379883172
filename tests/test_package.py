"""What is built to be handed out: the wheel's contents, its metadata, and the README as PyPI shows it."""

import email
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import copy_of_checkout

ROOT = Path(__file__).resolve().parents[1]
NEEDS = ("build", "twine", "check_wheel_contents", "hatchling", "hatch_fancy_pypi_readme")
# Everything in the wheel that is no Python.
DATA = {
    "py.typed", "catalog/imagenet_labels.txt", "catalog/imagenet_wordnet_ids.txt", "evaluation/style.css",
    "serve/page/classify.js", "serve/page/index.html", "serve/page/style.css", "serve/page/teach.js",
    "starter/README.md", "starter/labels.txt", "starter/module.json", "starter/weights.safetensors",
}  # fmt: skip
MOST_BYTES = 4_000_000  # the starter is half of it


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the source archive of a copy of this checkout."""
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}, of the extra mobilenet-hub[dev]")
    place = tmp_path_factory.mktemp("package")
    project = copy_of_checkout(place / "project")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", project]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    return place / "dist"


def wheel_of(built):
    (wheel,) = built.glob("*.whl")
    return wheel


def metadata_of(built):
    with zipfile.ZipFile(wheel_of(built)) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


@pytest.mark.slow
def test_twine_and_check_wheel_contents_find_nothing(built):
    for words in (
        ["twine", "check", "--strict", *map(str, built.iterdir())],
        ["check_wheel_contents", wheel_of(built)],
    ):
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(wheel_of(built)) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert sum(one.file_size for one in wheel.infolist()) < MOST_BYTES
    python = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src/mobilenet_hub").rglob("*.py")}
    assert names == python | {f"mobilenet_hub/{name}" for name in DATA}


@pytest.mark.slow
def test_the_metadata_says_who_and_what(built):
    metadata = metadata_of(built)
    assert metadata["Author"] == "The MobileNet Hub project"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("Project-URL")


@pytest.mark.slow
def test_the_readme_on_pypi_has_no_link_that_leads_nowhere(built):
    text = metadata_of(built).get_payload()
    assert "Five commands to a classifier of your own" in text
    assert "<!--" not in text and "![" not in text
    assert all(target.startswith("https://arxiv.org/") for target in re.findall(r"\]\(([^)]+)\)", text))
