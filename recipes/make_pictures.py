"""The pictures of the documentation that are taken of our own pages: run on a machine with chromium and the data set.

    python recipes/make_pictures.py ants_bees.zip

The data set is that of the tutorial. Its photos are not ours to show: the report's head is taken without them, and its
gallery of mistakes from a classifier of drawn shapes. The pictures of the server's page are taken by its test,
tests/test_serve_page.py.
"""

import argparse
import contextlib
import shutil
import tempfile
import zipfile
from pathlib import Path

from draw_shapes import draw_folders

import mobilenet_hub as hub

PICTURES = Path(__file__).resolve().parents[1] / "docs/pictures"
CAT = PICTURES.parents[1] / "examples/cat.jpg"
_COLORS = 64


def picture_of_report(
    report: Path, target: Path, *, height: int = 850, photos: bool = False, section: str | None = None
) -> None:
    """Write the beginning of a page, or one section of it, less its photos if they are not ours, as a small PNG."""
    from PIL import Image
    from playwright import sync_api as playwright

    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": height}, device_scale_factor=1.5)
        page.goto(report.as_uri())
        if not photos:
            page.add_style_tag(content="figure:has(img), section:has(figure img) { display: none }")
        if section is None:
            page.screenshot(path=target)
        else:
            page.locator("section", has=page.get_by_role("heading", name=section)).screenshot(path=target)
        browser.close()
    with Image.open(target) as seen:
        few = seen.convert("RGB").quantize(2 * _COLORS if photos else _COLORS)
    few.save(target, optimize=True)


def copies_of_cat(folder: Path) -> None:
    """Write the example photo, which is free, and copies of it as people make them."""
    from PIL import Image, ImageOps

    folder.mkdir()
    with Image.open(CAT) as image:
        cat = image.convert("RGB")
    width, height = cat.size
    shutil.copyfile(CAT, folder / "cat.jpg")
    shutil.copyfile(CAT, folder / "cat (1).jpg")
    cat.save(folder / "cat.png")
    cat.save(folder / "cat_sent.jpg", quality=30)
    cat.resize((width // 2, height // 2)).save(folder / "cat_small.jpg")
    cat.crop((width // 20, height // 20, width - width // 20, height - height // 20)).save(folder / "cat_cut.jpg")
    cat.rotate(2).save(folder / "cat_turned.jpg")
    cat.convert("L").save(folder / "cat_gray.jpg")
    ImageOps.mirror(cat).save(folder / "cat_mirrored.jpg")


def picture_of_copies(folder: Path, target: Path) -> None:
    """Write what `dedupe` shows of the copies, and `similar` of one of them, as small PNGs."""
    from mobilenet_hub.cli.main import main as mobilenet

    page = folder.with_suffix(".html")
    with contextlib.chdir(folder.parent):  # the pages name what they are given
        mobilenet(["dedupe", folder.name, "-o", page.name, "--quiet"])
        picture_of_report(page, target / "search_copies.png", height=640, photos=True)
        mobilenet(["embed", folder.name, "-o", f"{folder.name}-features", "--quiet"])
        words = ["--in", f"{folder.name}-features", "-k", "5", "-o", page.name, "--quiet"]
        mobilenet(["similar", f"{folder.name}/cat_mirrored.jpg", *words])
        picture_of_report(page, target / "search_similar.png", height=430, photos=True)


def main() -> None:
    """Train on the data set and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="ants_bees.zip")
    parser.add_argument("--output", type=Path, default=PICTURES, help="the folder of pictures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "ants_bees"
        with zipfile.ZipFile(args.photos) as archive:
            archive.extractall(folder)
        copies_of_cat(Path(scratch) / "cats")
        picture_of_copies(Path(scratch) / "cats", args.output.absolute())
        trained = hub.train(folder, Path(scratch) / "module", frozen=hub.FrozenOptions(precision="f32"))
        picture_of_report(trained.path / "report.html", args.output / "training_report.png")
        draw_folders(Path(scratch) / "shapes", 60)
        trained = hub.train(
            Path(scratch) / "shapes", Path(scratch) / "drawn", frozen=hub.FrozenOptions(precision="f32")
        )
        target = args.output / "report_mistakes.png"
        picture_of_report(trained.path / "report.html", target, photos=True, section="Worst mistakes")


if __name__ == "__main__":
    main()
