"""A folder to run commands in: a small module `m` with three classes, and photos of which some are none."""

import io

import numpy as np
from PIL import Image
from reference_network import random_weights

from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module


def jpeg(number):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
    Image.fromarray(pixels).resize((60 + number % 7, 50), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def make_work(folder, count, bad):
    """Fill a folder; return the files of its photos, name -> content."""
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 3, labels=("ant", "bee", "cat"))
    write_module(folder / "m", Module(config, random_weights(config.network)))
    (folder / "photos").mkdir()
    files = {f"{n:03d}.jpg": bad.get(f"{n:03d}.jpg", jpeg(n)) for n in range(count)}
    for name, data in files.items():
        (folder / "photos" / name).write_bytes(data)
    return files


def make_classes(folder, count):
    """Fill a folder as `make_work`, with photos of two classes, each in a folder of its own."""
    make_work(folder, 0, {})
    for number in range(count):
        place = folder / "photos" / ("ant" if number % 2 else "bee")
        place.mkdir(exist_ok=True)
        (place / f"{number:02d}.jpg").write_bytes(jpeg(number))
