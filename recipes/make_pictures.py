"""The pictures of the documentation that are taken of our own pages: run on a machine with chromium and the data set.

    python recipes/make_pictures.py ants_bees.zip

The data set is that of the tutorial. Its photos are not ours to show: the report's head is taken without them. The
pictures of the server's page are taken by its test, tests/test_serve_page.py.
"""

import argparse
import shutil
import tempfile
import zipfile
from pathlib import Path

import mobilenet_hub as hub

PICTURES = Path(__file__).resolve().parents[1] / "docs/pictures"
_COLORS = 64


def picture_of_report(report: Path, target: Path) -> None:
    """Write the beginning of a report, less its photos, as a small PNG."""
    from PIL import Image
    from playwright import sync_api as playwright

    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 850}, device_scale_factor=1.5)
        page.goto(report.as_uri())
        page.add_style_tag(content="figure:has(img), section:has(figure img) { display: none }")
        page.screenshot(path=target)
        browser.close()
    with Image.open(target) as seen:
        few = seen.convert("RGB").quantize(_COLORS)
    few.save(target, optimize=True)


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
        trained = hub.train(folder, Path(scratch) / "module", frozen=hub.FrozenOptions(precision="f32"))
        picture_of_report(trained.path / "report.html", args.output / "training_report.png")


if __name__ == "__main__":
    main()
