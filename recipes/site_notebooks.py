"""The notebooks of the documentation, run and written as pages of the site.

They lie in docs/notebooks without outputs. Where they ask for photos that are not at hand, they draw pictures.
"""

import os
import tempfile
import zipfile
from pathlib import Path

from draw_shapes import draw_folders

_TIMEOUT_S = 600


def prepare(folder: Path, photos: Path | None) -> None:
    """Fill the folder that notebooks run in: `ants_bees`, drawn shapes where there is no archive."""
    if photos is not None:
        with zipfile.ZipFile(photos) as archive:
            archive.extractall(folder / "ants_bees")
    else:
        draw_folders(folder / "ants_bees", 40)


def execute(notebook: Path, folder: Path):
    """Run a notebook in a folder; return it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; with its traceback.
    """
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    NotebookClient(
        content, timeout=_TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    return content


def make(notebooks: Path, pages: Path, photos: Path | None) -> None:
    """Run every notebook and write its page, with the pictures beside it."""
    from nbconvert import MarkdownExporter

    os.environ["MOBILENET_HUB_OFFLINE"] = "1"
    pages.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(notebooks.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as scratch:
            prepare(Path(scratch), photos)
            run = execute(notebook, Path(scratch))
        text, resources = MarkdownExporter().from_notebook_node(run, resources={"output_files_dir": notebook.stem})
        (pages / f"{notebook.stem}.md").write_text(text, "utf-8")
        for name, data in resources["outputs"].items():
            (pages / name).parent.mkdir(exist_ok=True)
            (pages / name).write_bytes(data)
