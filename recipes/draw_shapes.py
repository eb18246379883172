"""Pictures of circles, squares and stars, in a folder for each: something to train on where no photos are at hand.

    python recipes/draw_shapes.py shapes --count 40

Each is drawn anew with its own place, size, turn, colors and grain; the same seed draws the same pictures.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_SIDE = 160
_CORNERS = {"circles": 48, "squares": 4, "stars": 10}


def draw(shape: str, random: np.random.Generator) -> Image.Image:
    """Return one picture of a shape."""
    ground, color = random.integers(0, 256, (2, 3))
    while np.abs(ground - color).sum() < 150:
        color = random.integers(0, 256, 3)
    image = Image.new("RGB", (_SIDE, _SIDE), tuple(int(level) for level in ground))
    radius, corners = random.uniform(30, 60), _CORNERS[shape]
    center = random.uniform(radius, _SIDE - radius, 2)
    angles = random.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(corners) / corners
    radii = np.where(np.arange(corners) % 2, 0.45 * radius, radius) if shape == "stars" else np.full(corners, radius)
    outline = center + radii[:, np.newaxis] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ImageDraw.Draw(image).polygon([tuple(point) for point in outline], fill=tuple(int(level) for level in color))
    grain = random.normal(0, 12, (_SIDE, _SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def draw_folders(folder: Path, count: int, seed: int = 0) -> None:
    """Fill a folder with a folder of pictures for each shape."""
    random = np.random.default_rng(seed)
    for shape in _CORNERS:
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            draw(shape, random).save(folder / shape / f"{number:03d}.jpg", quality=90)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=40, help="pictures of each shape")
    args = parser.parse_args()
    draw_folders(args.folder, args.count)


if __name__ == "__main__":
    main()
