"""Every block of README and docs is run as it stands, and prints what the page says that it prints."""

import os
import re
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from conftest import SHARED
from draw_shapes import draw_folders
from pages import RUN, Reader, StaleError, blocks, commands_in
from reference_network import random_weights

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import MissingExtraError
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module
from mobilenet_hub.store import resolve

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "recipes/starter/README.md",
    *sorted(ROOT.glob("docs/*.md")),
]
WRITE = "MOBILENET_HUB_WRITE_PAGES"  # set to 1: pages get what their commands print now; to be looked at
KERAS = ("coming_from_tensorflow_hub.md", "keras.md")
ANTS_AND_BEES = ("README.md", "tutorial.md", "evaluate.md")  # their figures are of these photos
# What pages say that was made before, by the commands that make it.
MADE = {
    "convert": "convert mobilenet_v1_0.25_224.tgz -o mobilenet_v1_025_224",
    "train": "train photos -o ants-or-bees --module mobilenet_v1_025_224 --precision f32",
}
BEFORE = {"evaluate.md": ("convert", "train")}
# How many blocks of a page are not run, each with its reason beside it: one more is to be thought about here.
NOT_RUN = {
    "README.md": 2, "CONTRIBUTING.md": 1, "recipes/starter/README.md": 1, "docs/install.md": 3, "docs/keras.md": 1,
    "docs/which_module.md": 1, "docs/coming_from_tensorflow_hub.md": 1, "docs/many_machines.md": 6, "docs/search.md": 2,
    "docs/serving.md": 4, "docs/export.md": 1,
}  # fmt: skip
REAL = ("mobilenet_v1_025_224",)  # of which the mirror has Google's own weights; of the others random ones
HANDLE = re.compile(r"\b(mobilenet_v[12]_\d{3}_\d+/(?:feature_vector|classification)(?:/\d)?)\b")


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """A folder with what the pages speak of: photos, archives of them, modules; and a mirror of published modules."""
    desk, mirror = tmp_path_factory.mktemp("desk"), tmp_path_factory.mktemp("mirror")
    photos, weights = SHARED / "datasets/ants_bees.zip", SHARED / "weights/slim_frozen/mobilenet_v1_0.25_224_frozen.tgz"
    if photos.exists() and weights.exists():
        with zipfile.ZipFile(photos) as archive:
            archive.extractall(desk / "photos")
        for folder in (desk, mirror):
            shutil.copyfile(weights, folder / "mobilenet_v1_0.25_224.tgz")
    else:
        draw_folders(desk / "photos", 30)
    for name in ("ants_bees", "training-photos"):
        shutil.copytree(desk / "photos", desk / name, copy_function=os.link)
    with tarfile.open(desk / "shards.tar", "w") as archive:
        archive.add(desk / "photos", "photos")
    (desk / "shards").mkdir()
    (desk / "shards.tar").rename(desk / "shards/0.tar")
    shutil.copytree(ROOT / "examples", desk / "examples")
    shutil.copyfile(ROOT / "examples/cat.jpg", desk / "cat.jpg")
    for name in ("my_module", "my-flowers"):
        shutil.copytree(resolve("starter"), desk / name)
    for handle in sorted({handle for page in PAGES for handle in HANDLE.findall(page.read_text("utf-8"))}):
        found = find_module(handle)
        config = ModuleConfig(
            found.architecture, found.depth_multiplier, found.image_size, found.num_classes, handle=found.handle
        )
        if found.configuration.name not in REAL and not (mirror / found.handle).exists():
            write_module(mirror / found.handle, Module(config, random_weights(config.network)))
    return desk, mirror


@pytest.fixture
def reader(desk, tmp_path, monkeypatch):
    """Somebody at that desk: a folder of their own, no network but this machine's."""
    photos, mirror = desk
    folder = tmp_path / "work"
    shutil.copytree(photos, folder, copy_function=os.link)
    monkeypatch.chdir(folder)
    for name, value in {
        "HOME": str(tmp_path), "MOBILENET_HUB_OFFLINE": "0", "MOBILENET_HUB_MIRROR": str(mirror),
        "MOBILENET_HUB_SOURCES": "mirror", "XDG_CACHE_HOME": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    reader = Reader(folder)
    yield reader
    reader.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.keras_backend] if page.name in KERAS else [])
        for page in PAGES
        if any(block.language in RUN and not block.why_not for block in blocks(page))
    ],
)
def test_the_blocks_of_a_page_do_what_it_says(page, reader):
    if page.name in ANTS_AND_BEES and not (reader.folder / "photos/ants").exists():
        pytest.skip("needs the reference data datasets/ants_bees.zip, which is not beside this checkout")
    for name in BEFORE.get(page.name, ()):
        assert main(MADE[name].split()) == 0
    for block in blocks(page):
        if block.why_not or block.language not in RUN or block.backend not in ("", os.environ.get("KERAS_BACKEND", "")):
            continue
        try:
            reader.read(block)
        except (ModuleNotFoundError, MissingExtraError) as error:
            pytest.skip(f"{page.name}, line {block.line}: {error}")
        except StaleError as stale:
            stale.add_note(f"{page.relative_to(ROOT)}, line {block.line}; {WRITE}=1 writes what it prints now")
            if not os.environ.get(WRITE):
                raise
            page.write_text(page.read_text("utf-8").replace(stale.shown, stale.printed), "utf-8")
        except Exception as error:
            error.add_note(f"{page.relative_to(ROOT)}, line {block.line}")
            raise


def test_what_is_not_run_says_why_and_is_counted():
    counted = Counter()
    for page in PAGES:
        for block in blocks(page):
            where = f"{page.name}, line {block.line}"
            if block.why_not:
                counted[str(page.relative_to(ROOT))] += 1
            elif block.language not in RUN:
                assert block.language in ("", "text"), f"{where}: {block.language} is neither run nor says why not"
                assert not commands_in(block.text), f"{where}: has commands, but no language to run them"
    assert dict(counted) == NOT_RUN
