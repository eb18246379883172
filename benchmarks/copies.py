"""What `dedupe` finds of copies that were planted among photos, by kind, and what it takes for copies wrongly.

    python benchmarks/copies.py PHOTOS... --modules starter MODULE ...

PHOTOS are folders of photos that are all different. Of some of them copies are made in every way below; a copy is found
where `dedupe` puts it in the group of its original. Everything else that it puts together is a false pair, unless the
photos had copies before. The last lines compare what --false-pairs promises with what is found among PHOTOS alone.
"""

import argparse
import io
import math
import shutil
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

import mobilenet_hub as hub

SHARES = (1e-6, 1e-5, 1e-4)
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_CAPTION = 0.1  # of the height


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--modules", nargs="+", default=["starter"])
    parser.add_argument("--count", type=int, default=120, help="how many photos have copies")
    args = parser.parse_args()
    files = [p for folder in args.photos for p in sorted(folder.rglob("*")) if p.suffix.lower() in PICTURES]
    step = max(1, len(files) // args.count)
    originals = files[::step][: args.count]
    names = [Path(module).name for module in args.modules]
    print(f"| copies of {len(originals)} photos among {len(files)} | {' | '.join(names)} |")
    print(f"|---|{'--:|' * len(names)}")
    with tempfile.TemporaryDirectory() as folder:
        of = plant(originals, Path(folder))
        columns = [judged(args.photos, Path(folder), of, module) for module in args.modules]
    for kind in (*KINDS, "false pairs", "threshold"):
        print(f"| {kind} | {' | '.join(column[kind] for column in columns)} |")
    for share in SHARES:
        found = [hub.dedupe(args.photos, module=module, false_pairs=share) for module in args.modules]
        told = [f"{sum(len(g.others) for g in each)} of {each.expected_false_pairs or 0:.1f} allowed" for each in found]
        print(f"| --false-pairs {share:g}, of photos alone | {' | '.join(told)} |")


def plant(originals, folder):
    """Write copies; return the original of each."""
    of = {}
    for number, original in enumerate(originals):
        for kind, (make, ending) in KINDS.items():
            copy = folder / kind.replace(" ", "_").replace("/", "-") / f"{number:03d}{ending or original.suffix}"
            copy.parent.mkdir(exist_ok=True)
            if make is None:
                shutil.copyfile(original, copy)
            else:
                with Image.open(original) as image:
                    copy.write_bytes(make(ImageOps.exif_transpose(image).convert("RGB")))
            of[str(copy)] = (kind, str(original))
    return of


def judged(photos, folder, of, module):
    """Return the share that is found of each kind, and how much is found wrongly."""
    found = hub.dedupe([*photos, folder], module=module, keep="first")
    right, wrong = dict.fromkeys(KINDS, 0), 0
    for group in found:
        keep = of[group.keep][1] if group.keep in of else group.keep
        for other in group.others:
            kind, original = of.get(other.path, (None, other.path))
            if original != keep:
                wrong += 1
            elif kind is not None and group.keep == original:
                right[kind] += 1
    count = len(of) // len(KINDS)
    shown = {kind: f"{100 * number / count:.0f} %" for kind, number in right.items()}
    return {**shown, "false pairs": str(wrong), "threshold": f"{found.threshold.cosine:.3f}"}


def saved(image, **options):
    stream = io.BytesIO()
    image.save(stream, **{"format": "JPEG", "quality": 90, **options})
    return stream.getvalue()


def scaled(share):
    def make(image):
        size = [max(1, round(side * share)) for side in image.size]
        return saved(image.resize(size, Image.Resampling.LANCZOS))

    return make


def cropped(share):
    def make(image):
        left, top = (round(side * share) for side in image.size)
        return saved(image.crop((left, top, image.width - left, image.height - top)))

    return make


def rotated(degrees):
    """Turn, and cut what is empty then, as programs for photos do."""

    def make(image):
        turned = image.rotate(degrees, Image.Resampling.BICUBIC)
        cut = math.tan(math.radians(degrees)) / 2
        across, down = cut * image.height, cut * image.width
        return saved(turned.crop((round(across), round(down), round(image.width - across), round(image.height - down))))

    return make


def captioned(image):
    image = image.copy()
    top = round(image.height * (1 - _CAPTION))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, top, image.width, image.height), fill="white")
    draw.text((image.width // 10, top), "a caption of some words", fill="black", font_size=(image.height - top) * 0.7)
    return saved(image)


def turned_by_exif(orientation, undone):
    def make(image):
        exif = Image.Exif()
        exif[0x112] = orientation
        return saved(image.transpose(undone), exif=exif)

    return make


KINDS = {
    "same file": (None, ""),
    "PNG": (lambda image: saved(image, format="PNG"), ".png"),
    "WebP, quality 80": (lambda image: saved(image, format="WEBP", quality=80), ".webp"),
    "EXIF, turned by 90": (turned_by_exif(6, Image.Transpose.ROTATE_90), ".jpg"),
    "EXIF, turned by 180": (turned_by_exif(3, Image.Transpose.ROTATE_180), ".jpg"),
    **{
        f"JPEG quality {quality}": (lambda image, quality=quality: saved(image, quality=quality), ".jpg")
        for quality in (90, 60, 30, 10)
    },
    "3/4 of the size": (scaled(3 / 4), ".jpg"),
    "half size": (scaled(1 / 2), ".jpg"),
    "a quarter of the size": (scaled(1 / 4), ".jpg"),
    "mirrored": (lambda image: saved(ImageOps.mirror(image)), ".jpg"),
    "gray": (lambda image: saved(image.convert("L")), ".jpg"),
    **{
        f"cropped by {100 * share:g} % of each side": (cropped(share), ".jpg") for share in (0.02, 0.05, 0.1)
    },
    **{f"rotated by {degrees} degrees": (rotated(degrees), ".jpg") for degrees in (1, 3, 5)},
    "caption over a tenth": (captioned, ".jpg"),
}  # fmt: skip


if __name__ == "__main__":
    main()
