"""Decoding and fitting photos: accuracy of every fit and filter, speed beside Pillow. Prints docs/images.md's tables.

    python benchmarks/decode.py --shared ../shared            # both tables, about a minute on two cores
    python benchmarks/decode.py --shared ../shared --speed    # the speed table only

Accuracy is that of Google's two pretrained V1 0.25 networks on 143 photographs. Time is the CPU time of one thread,
the least of several turns for each photo, so that what else the machine does matters little.
"""

import argparse
import io
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pretrained
from PIL import Image

from mobilenet_hub.images import fit as fits
from mobilenet_hub.images.decode import decode_image
from mobilenet_hub.images.load import load_image
from mobilenet_hub.images.resample import Filter
from mobilenet_hub.inference.classify import Classifier

FILTERS = get_args(Filter)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="the folder with photos/, weights/ and golden/")
    parser.add_argument("--speed", action="store_true", help="measure speed only")
    parser.add_argument("--count", type=int, help="only the first photos")
    args = parser.parse_args()
    files, labels, original = pretrained.photos(args.shared, args.count)
    photos = [file.read_bytes() for file in files]
    if not args.speed:
        classifiers = {size: Classifier(pretrained.network(args.shared, size), "f32") for size in pretrained.SIZES}
        measure_accuracy(photos, labels, original, classifiers)
    measure_speed(photos)


def measure_accuracy(photos, labels, original, classifiers):
    print(f"Top-1 / top-5 of {len(photos)} photos, the 128 network | the 224 network\n")
    print("| fit | filter | decoded whole | decoded scaled |\n|---|---|--:|--:|")
    row = " \\| ".join(top(original[size], labels) for size in classifiers)
    print(f"| the original pipeline | TensorFlow 1 | {row} | |", flush=True)
    whole = [decode_image(photo) for photo in photos]
    for fit in fits.FITS:
        for name in ("",) if fit == "slim" else FILTERS:
            fits.FILTER = name or "lanczos"
            cells = [
                " \\| ".join(accuracy(c, [load_image(s, c.image_size, fit) for s in sources], labels)
                            for c in classifiers.values())
                for sources in ((photos,) if fit == "slim" else (whole, photos))
            ]  # fmt: skip
            cells += [""] * (2 - len(cells))
            print(f"| {fit} | {name or 'TensorFlow 1'} | {' | '.join(cells)} |", flush=True)
    fits.FILTER = "lanczos"


def accuracy(classifier, pixels, labels):
    return top(classifier.logits(pixels), labels)


def top(logits, labels):
    best = np.argsort(-logits.astype(np.float32), axis=1, kind="stable")
    return f"{(best[:, 0] == labels).sum()} / {(best[:, :5] == labels[:, None]).any(axis=1).sum()}"


def measure_speed(photos):
    typical = [photo for photo in photos if sorted(Image.open(io.BytesIO(photo)).size) == [375, 500]]
    large = [enlarged(photo) for photo in typical[:3]]
    print("\nCPU milliseconds for one photo, decode and resize to 224\n")
    print("| photos | Pillow, bilinear | Pillow, bicubic | Pillow, lanczos | here | times lanczos |")
    print("|---|--:|--:|--:|--:|--:|")
    sets = {
        f"500x375, as they are ({kilobytes(typical)} kB)": typical,
        "500x375, saved at quality 90": [saved(photo, 90) for photo in typical],
        "500x375, saved at quality 75": [saved(photo, 75) for photo in typical],
        f"4000x3000 ({kilobytes(large)} kB)": large,
    }
    for name, chosen in sets.items():
        turns = 3 if chosen is large else 9
        pillow = [cpu_ms(lambda p, f=f: with_pillow(p, f), chosen, turns) for f in ("bilinear", "bicubic", "lanczos")]
        here = cpu_ms(lambda photo: load_image(photo, 224), chosen, turns)
        print(f"| {name} | {' | '.join(f'{ms:.2f}' for ms in pillow)} | {here:.2f} | {here / pillow[-1]:.2f} |")


def with_pillow(photo, name):
    return np.asarray(Image.open(io.BytesIO(photo)).convert("RGB").resize((224, 224), Image.Resampling[name.upper()]))


def cpu_ms(function, photos, turns):
    total = 0.0
    for photo in photos:
        times = []
        for _ in range(turns):
            start = time.thread_time()
            function(photo)
            times.append(time.thread_time() - start)
        total += min(times)
    return 1000 * total / len(photos)


def saved(photo, quality):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo)).convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def enlarged(photo):
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    size = (4000, 3000) if image.width > image.height else (3000, 4000)
    noise = np.random.default_rng(0).normal(0, 4, (size[1], size[0], 1))  # a camera's grain: flat areas code too fast
    grainy = np.clip(np.asarray(image.resize(size, Image.Resampling.BICUBIC)) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(grainy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def kilobytes(photos):
    return round(sum(map(len, photos)) / len(photos) / 1000)


if __name__ == "__main__":
    main()
