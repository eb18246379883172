"""The documentation as a site, in build/site: `make site`.

The pages are laid out in build/pages as they lie in the repository, so that one link serves both. Added is what follows
from the program: every command from its parser, the Python names from their docstrings, the gallery and the notebooks
from real runs. Zensical builds it, and refuses a link that leads nowhere (zensical.toml).
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import site_gallery
import site_notebooks
import site_reference

ROOT = Path(__file__).resolve().parents[1]
_PAGES = ("docs", "examples", "benchmarks/NOTES.md", "recipes/starter/README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def lay_out(pages: Path) -> None:
    """Copy what is written by hand, and the sources for their docstrings; write the reference."""
    shutil.rmtree(pages, ignore_errors=True)
    (pages / "docs/reference").mkdir(parents=True)
    shutil.copyfile(ROOT / "README.md", pages / "index.md")
    for name in _PAGES:
        source, target = ROOT / name, pages / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.ipynb"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    source = pages.with_name("src")
    shutil.copytree(ROOT / "src", source, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "starter"))
    for file in source.rglob("*.py"):  # the heading by which mkdocstrings knows a doctest
        file.write_text(re.sub(r"^( +)Example:$", r"\1Examples:", file.read_text("utf-8"), flags=re.MULTILINE), "utf-8")
    (pages / "docs/reference/commands.md").write_text(site_reference.commands(), "utf-8")
    (pages / "docs/reference/api.md").write_text(site_reference.api(), "utf-8")


def main() -> int:
    """Lay the pages out and build the site."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="ants_bees.zip, for its notebook (default: drawn pictures)")
    args = parser.parse_args()
    pages = ROOT / "build/pages"
    lay_out(pages)
    site_gallery.make(pages / "docs")
    site_notebooks.make(ROOT / "docs/notebooks", pages / "docs/notebooks", args.photos)
    tool = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(tool, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
