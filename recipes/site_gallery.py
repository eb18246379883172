"""The gallery of the site: reports and exports of real runs on drawn pictures, made when the site is built."""

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from draw_shapes import draw_folders

CAT = Path(__file__).resolve().parents[1] / "examples/cat.jpg"
_COUNT = 40
_HEAD = """# Gallery

Live pages and files, made by these commands when this site was built. The pictures are drawn
(`recipes/draw_shapes.py`), so that nobody's photos are shown; the cat is [CC0](../examples/README.md).
"""
# (title, what is seen, command, files of the working folder to show)
_SHOWN = (
    (
        "The report of a training",
        "Accuracy with intervals, the worst mistakes, what was taken for what, how far scores can be trusted.",
        "train shapes -o shapes-classifier",
        ("shapes-classifier/report.html", "shapes-classifier/README.md", "shapes-classifier/metrics.json"),
    ),
    (
        "A module measured on other pictures",
        "The same page for any module on any labelled pictures.",
        "evaluate shapes-classifier others -o evaluated.html",
        ("evaluated.html",),
    ),
    (
        "Why",
        "Which part of a picture spoke for each label.",
        "classify cat.jpg --explain why.html",
        ("why.html",),
    ),
    (
        "What is wrong with a folder",
        "Copies, wrong labels, dark and blurred pictures, before one trains on them.",
        "check shapes -o checked.html",
        ("checked.html",),
    ),
    (
        "Copies",
        "Groups of the same picture, with the one to keep.",
        "dedupe shapes -o copies.html",
        ("copies.html",),
    ),
    (
        "Like this one",
        "The nearest pictures of a collection.",
        "similar shapes/stars/000.jpg --in features -o nearest.html",
        ("nearest.html",),
    ),
    (
        "A LiteRT file for phones",
        "Written, loaded again by LiteRT itself, and compared.",
        "export shapes-classifier --format litert -o shapes.tflite",
        ("shapes.tflite", "shapes.tflite.proof.json"),
    ),
    (
        "An ONNX file",
        "The same for ONNX Runtime, also in browsers.",
        "export shapes-classifier --format onnx -o shapes.onnx",
        ("shapes.onnx", "shapes.onnx.proof.json"),
    ),
)


def make(docs: Path) -> None:
    """Run every command, and write the page and the files that it shows."""
    files = docs / "gallery"
    files.mkdir(parents=True)
    parts = [_HEAD]
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        _prepare(work)
        for title, text, command, shown in _SHOWN:
            if command.endswith(".onnx") and find_spec("onnx") is None:
                continue
            printed = _run(command, work)
            links = []
            for name in shown:
                target = files / Path(name).name.replace("README.md", "model_card.txt")
                shutil.copyfile(work / name, target)
                links.append(f"[{target.name}](gallery/{target.name})")
            block = "\n".join(["```", f"$ mobilenet {command}", printed.strip(), "```"])
            parts.append("\n\n".join([f"## {title}", text, " · ".join(links), block]) + "\n")
    (docs / "gallery.md").write_text("\n".join(parts), "utf-8")


def _prepare(work: Path) -> None:
    """Draw the pictures, among them a copy and a wrong label, and embed them."""
    draw_folders(work / "shapes", _COUNT)
    draw_folders(work / "others", _COUNT // 4, seed=1)
    shutil.copyfile(CAT, work / "cat.jpg")
    shutil.copyfile(work / "shapes/stars/001.jpg", work / "shapes/stars/copy.jpg")
    shutil.copyfile(work / "others/circles/000.jpg", work / "shapes/squares/wrong.jpg")
    _run("embed shapes -o features", work)


def _run(command: str, work: Path) -> str:
    words = [sys.executable, "-m", "mobilenet_hub.cli.main", *command.split()]
    environment = {**os.environ, "MOBILENET_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=work, capture_output=True, text=True, env=environment, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"mobilenet {command}: {done.stderr}")
    return done.stdout + done.stderr
