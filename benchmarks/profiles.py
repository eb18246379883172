"""Color profiles: what ignoring or applying them costs in accuracy and time. Prints docs/images.md's table.

    python benchmarks/profiles.py --shared ../shared      # about a minute on two cores

Each of the 143 photographs is converted to a color space and saved with its profile, as phones and cameras do.
"""

import argparse
import io
import struct
import time
from pathlib import Path

import numpy as np
import pretrained
from PIL import Image, ImageCms

from mobilenet_hub.images.load import load_image
from mobilenet_hub.inference.classify import Classifier

# Primaries (x, y) of red, green, blue, and the exponent of the tone curve; the white point is D65 everywhere.
SPACES = {
    "sRGB": (((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), 2.2),
    "Display P3": (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), 2.2),
    "AdobeRGB": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 2.19921875),
    "linear": (((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), 1.0),
}
D65, D50 = (0.3127, 0.3290), np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="the folder with photos/, weights/ and golden/")
    parser.add_argument("--count", type=int, help="only the first photos")
    args = parser.parse_args()
    files, labels, _ = pretrained.photos(args.shared, args.count)
    photos = [Image.open(file).convert("RGB") for file in files]
    classifiers = [Classifier(pretrained.network(args.shared, size), "f32") for size in pretrained.SIZES]
    print("| saved as | ignored | applied | ms a photo, ignored | applied |\n|---|--:|--:|--:|--:|")
    for name, (primaries, gamma) in SPACES.items():
        icc = profile(primaries, gamma)
        cells = []
        for profiled in (None, icc):  # accuracy from PNG, lest what JPEG loses be counted as the profile's
            images = [converted(photo, icc) for photo in photos]
            exact, lossy = ([saved(image, kind, profiled) for image in images] for kind in ("PNG", "JPEG"))
            cells.append([" \\| ".join(f"{right(c, exact, labels)}" for c in classifiers), f"{cpu_ms(lossy):.2f}"])
        print(f"| {name} | {cells[0][0]} | {cells[1][0]} | {cells[0][1]} | {cells[1][1]} |", flush=True)


def profile(primaries, gamma):
    """An ICC profile of version 2: a matrix and tone curves, as cameras embed them."""
    white = xyz(*D65)
    columns = np.stack([xyz(*point) for point in primaries], axis=1)
    matrix = columns * np.linalg.solve(columns, white)
    cone, target = BRADFORD @ white, BRADFORD @ D50
    matrix = np.linalg.inv(BRADFORD) @ np.diag(target / cone) @ BRADFORD @ matrix
    fixed = lambda v: struct.pack(">i", round(v * 65536))  # noqa: E731
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0x\0\0\0", b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(fixed, D50))}
    for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True):
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(fixed, column))
        tags[name + b"TRC"] = curve
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        data = content + bytes(-len(content) % 4)
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    size = at + len(body)
    head = struct.pack(">I4xI4s4s4s", size, 0x02200000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp" + bytes(28)
    head += b"".join(map(fixed, D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz(x, y):
    return np.array([x / y, 1, (1 - x - y) / y])


def converted(photo, icc):
    target = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), target, outputMode="RGB")


def saved(image, kind, icc):
    buffer = io.BytesIO()
    options = {"quality": 90} if kind == "JPEG" else {"compress_level": 1}
    image.save(buffer, kind, icc_profile=icc, **options)
    return buffer.getvalue()


def right(classifier, data, labels):
    pixels = [load_image(photo, classifier.image_size) for photo in data]
    return int((classifier.logits(pixels).argmax(axis=1) == labels).sum())


def cpu_ms(data):
    total = 0.0
    for photo in data[::3]:
        times = []
        for _ in range(5):
            start = time.thread_time()
            load_image(photo, 224)
            times.append(time.thread_time() - start)
        total += min(times)
    return 1000 * total / len(data[::3])


if __name__ == "__main__":
    main()
