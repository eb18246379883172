"""The Python blocks of the documents run as they stand, one document in one process of thought."""

import re
from pathlib import Path

import make_docs
import pytest
from pages import blocks

DOCS = Path(__file__).resolve().parents[1] / "docs"
HANDLE = re.compile(r'"(https://tfhub\.dev/[^"]+)"')


@pytest.mark.keras_backend
def test_coming_from_tensorflow_hub(golden_module):
    texts = [
        block.text
        for block in blocks(DOCS / "coming_from_tensorflow_hub.md")
        if block.language == "python" and not block.why_not
    ]
    assert len(texts) >= 4
    scope: dict = {}
    for text in texts:
        for handle in HANDLE.findall(text):
            golden_module(handle)
        exec(compile(text, "coming_from_tensorflow_hub.md", "exec"), scope)
    assert tuple(scope["logits"].shape) == (2, 1001)
    assert tuple(scope["features"].shape) == (2, 4, 4, 256)
    assert scope["model"].output_shape == (None, 5)
    assert scope["layer"].trainable


def test_links_between_documents_lead_somewhere():
    for file in [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", file.read_text(encoding="utf-8")):
            assert (file.parent / target).exists(), f"{file.name} links to {target}, which does not exist"


def test_what_follows_from_the_code_is_as_the_code_says():
    for page, text in make_docs.pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name} is stale: run `make docs`"


def test_ci_runs_the_commands_of_the_readme():
    """The two that .ci/run takes from the text: one that shows something, and the tests."""
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```sh\n(python3 -m venv [^\n]+)\n```", text, re.MULTILINE)
    assert [command.split("&&")[-1].split()[0] for command in commands] == [".venv/bin/mobilenet", ".venv/bin/pytest"]


def test_the_figures_of_the_readme_stand_in_the_measurements():
    root = DOCS.parent
    readme = (root / "README.md").read_text("utf-8")
    (table,) = re.findall(r"^## How fast\?\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    measured = "".join((root / name).read_text("utf-8") for name in ("benchmarks/NOTES.md", "docs/bulk.md"))
    rows = re.findall(r"^\| (?:photos|the ).*$", table, re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        figures = [int(cell.strip(" *")) for cell in row.split("|")[2:-1] if cell.strip()]
        assert all(re.search(rf"\|\W*{figure}\b", measured) for figure in figures), row
        assert f"**{max(figures)}**" in row  # bold is the fastest, whoever it is
    assert "2.3 s" in measured and "48.6 s" in measured


def test_words_that_newcomers_ask_for_are_in_the_glossary():
    glossary = (DOCS / "glossary.md").read_text("utf-8").lower()
    for word in ("module", "feature vector", "depth multiplier", "logits", "calibration"):
        assert re.search(rf"^\*\*[^*]*{word}", glossary, re.MULTILINE), word


def test_pages_have_the_titles_of_tasks():
    titles = {page.name: page.read_text("utf-8").splitlines()[0] for page in DOCS.glob("*.md")}
    assert titles["bulk.md"] == "# Process large collections" and titles["formats.md"] == "# Convert existing weights"
    assert all(title.startswith("# ") for title in titles.values())
