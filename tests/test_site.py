"""The site is built whole, from real runs, without a warning, and asks nothing of other hosts."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import copy_of_checkout

ROOT = Path(__file__).resolve().parents[1]
NEEDS = ("zensical", "mkdocstrings", "nbclient", "nbconvert", "ipykernel", "onnx", "onnxruntime")
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?:[^\">\s]+)")
TARGET = re.compile(r"\b(?:src|href)=\"?([^\">\s]+)")


def paths_of_nav(nav):
    for entry in nav:
        (value,) = entry.values()
        yield from [value] if isinstance(value, str) else paths_of_nav(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site of a copy of this checkout; with the notebooks' photos where they are at hand."""
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}, of the extra mobilenet-hub[docs]")
    copy = copy_of_checkout(tmp_path_factory.mktemp("copy") / "project")
    done = subprocess.run(
        [sys.executable, "recipes/make_site.py"], cwd=copy, capture_output=True, text=True, timeout=900, check=False
    )
    said = re.sub(r"\033\[[0-9;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0, said
    assert "No issues found" in said
    return copy / "build/site"


@pytest.mark.slow
def test_every_page_of_the_plan_is_there(site):
    plan = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    pages = list(paths_of_nav(plan["nav"]))
    assert len(pages) == len(set(pages)) > 30
    for page in pages:
        assert (site / page.replace("README.md", "index.md")).with_suffix(".html").is_file(), page
    written = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert written <= set(pages), "a page that the site's plan (zensical.toml) forgets"


@pytest.mark.slow
def test_links_and_pictures_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        text = page.read_text("utf-8")
        assert not LOADED.findall(re.sub(r'<link[^>]+rel="?canonical[^>]+>', "", text)), page
        if "gallery" in page.parts:
            continue
        for target in TARGET.findall(text):
            path = target.partition("#")[0].partition("?")[0]
            if path and not re.match(r"[a-z]+:", path):
                assert (page.parent / path).exists(), f"{page.relative_to(site)} links to {target}"


@pytest.mark.slow
def test_the_reference_has_every_command_and_every_public_name(site):
    import mobilenet_hub as hub
    from mobilenet_hub.cli.main import COMMANDS, command_parser

    commands = (site / "docs/reference/commands.html").read_text("utf-8")
    for name in COMMANDS:
        assert f'id="{name}"' in commands
        for action in command_parser(name)._actions:
            assert all(flag in commands for flag in action.option_strings)
    names = (site / "docs/reference/api.html").read_text("utf-8")
    for name, owner in hub._OWNERS.items():
        assert re.search(rf'id="?mobilenet_hub\.{owner}\b[.\w]*\.{name}"?', names) or owner == "store", name


@pytest.mark.slow
def test_the_gallery_shows_what_really_ran(site):
    gallery = site / "docs/gallery"
    metrics = json.loads((gallery / "metrics.json").read_text("utf-8"))
    report = (gallery / "report.html").read_text("utf-8")
    assert metrics["test"]["images"] > 10 and f"{metrics['test']['accuracy']:.1%}" in report
    for proof in ("shapes.tflite.proof.json", "shapes.onnx.proof.json"):
        assert json.loads((gallery / proof).read_text("utf-8"))["top1_agreement"] == 1.0


@pytest.mark.slow
def test_the_notebooks_ran_and_are_committed_without_outputs(site):
    notebooks = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
    assert [notebook.stem for notebook in notebooks] == ["ants_and_bees", "fine_tuning", "image_search"]
    for notebook in notebooks:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
        assert (site / f"docs/notebooks/{notebook.stem}.html").is_file()
    assert "of their own class" in (site / "docs/notebooks/image_search.html").read_text("utf-8")
