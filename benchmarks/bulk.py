"""A folder of photos through a network: ours beside its own limit, Keras and PyTorch, all in one run.

    python benchmarks/bulk.py --photos ../shared/photos/imagenet_samples              # some ten minutes on two cores
    python benchmarks/bulk.py --photos ../shared/photos/imagenet_samples --large      # the same on 12-megapixel JPEGs

Every contestant decodes the same files, warm in the page cache, and computes MobileNet V1 1.0_224 (random weights: the
time does not depend on them), in its own process, turn by turn. Two rates are given: images a second, and images per
second of processor time over all cores; the second hardly suffers from whatever else the machine is doing.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

SIZE, CLASSES = 224, 1001
PRECISIONS = ("f32", "bf16", "int8")


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--large", action="store_true", help="photos enlarged to 12 megapixels")
    parser.add_argument("--count", type=int, default=1000, help="images a turn; --large: a tenth")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="peak memory for 2,000 and 20,000 images instead")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        print(json.dumps(CONTESTANTS[args.contestant](args.photos)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.memory:
            measure_memory(args.photos, Path(folder))
        else:
            count = args.count // 10 if args.large else args.count
            measure_speed(
                fill(args.photos, Path(folder) / "all" / "photos", count, args.large).parent, count, args.turns
            )


def fill(photos, folder, count, large):
    """Make `count` files: the photos, repeated; or a few of them enlarged, repeated."""
    folder.mkdir(parents=True)
    found = sorted(p for p in photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    data = [p.read_bytes() for p in found] if not large else [enlarged(p) for p in found[:8]]
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(data[number % len(data)])
    return folder


def enlarged(path):
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.open(path).convert("RGB")
    image.resize((4000, 3000), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def measure_speed(folder, count, turns):
    best = {}
    for _ in range(turns):
        for name in CONTESTANTS:
            command = [sys.executable, __file__, "--photos", folder, "--contestant", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            wall, processor = json.loads(done.stdout.splitlines()[-1])
            old = best.get(name, (np.inf, np.inf))
            best[name] = min(wall, old[0]), min(processor, old[1])
    print(f"\n{count} images, {cores()} cores, best of {turns} turns\n")
    print("| | images/s | images per processor second |\n|---|--:|--:|")
    for name, (wall, processor) in best.items():
        print(f"| {name} | {count / wall:.0f} | {count / processor:.0f} |")
    decode = best["ours, decoding alone"]
    for precision in (precision for precision in PRECISIONS if f"ours, {precision}" in best):
        network, both = best[f"ours, {precision} network alone"], best[f"ours, {precision}"]
        print()
        for kind, index in (("wall clock", 0), ("processor time", 1)):
            limit = decode[index] + network[index]
            print(f"{precision}, limit of the parts by {kind}: {count / limit:.0f} images/s; "
                  f"reached: {limit / both[index]:.2f}")  # fmt: skip
        for name, (wall, processor) in best.items():
            if not name.startswith("ours"):
                times = f"{wall / both[0]:.1f}x; by processor time {processor / both[1]:.1f}x"
                print(f"ours, {precision}, against {name}: {times}")


def cores():
    return len(os.sched_getaffinity(0))


def timed(work):
    """Warm up, then measure (seconds, processor seconds)."""
    work(warm_up=True)
    start, processor = time.perf_counter(), time.process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    work(warm_up=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    workers = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    return time.perf_counter() - start, time.process_time() - processor + workers


# Ours: the whole, and each part with the other left out


def engine(precision, folder):
    """What computes, in f32, bf16 or int8."""
    if precision == "int8":
        from mobilenet_hub.images.fit import Preprocessing
        from mobilenet_hub.inference.quantize import quantized

        return quantized(engine("f32", folder), [str(folder)], Preprocessing(SIZE), limit=64)[0]  # pyright: ignore[reportArgumentType]
    from mobilenet_hub.catalog.published import configurations
    from mobilenet_hub.inference.bench import placeholder
    from mobilenet_hub.inference.engine import Engine

    configuration = next(c for c in configurations() if c.name == "mobilenet_v1_100_224")
    opened = Engine(placeholder(configuration), ("logits",), precision=precision)
    if opened.precision != precision:
        sys.exit(f"not to be had here: {precision}")
    return opened


def ours(precision):
    def run(folder):
        from mobilenet_hub.images.batches import compute
        from mobilenet_hub.images.fit import Preprocessing
        from mobilenet_hub.images.inputs import items

        network = engine(precision, folder)

        def work(warm_up):
            for _ in compute(items(some_of(folder) if warm_up else [folder]), network, "logits", Preprocessing(SIZE)):
                pass

        return timed(work)

    return run


def some_of(folder):
    return sorted((folder / "photos").iterdir())[:64]


def decoding(folder):
    from mobilenet_hub.images.batches import decode_batches
    from mobilenet_hub.images.fit import Preprocessing
    from mobilenet_hub.images.inputs import items

    def work(warm_up):
        for _ in decode_batches(items(some_of(folder) if warm_up else [folder]), Preprocessing(SIZE)):
            pass

    return timed(work)


def inference(folder, precision):
    network = engine(precision, folder)
    count = len(list((folder / "photos").iterdir()))
    pixels = np.random.default_rng(0).integers(0, 256, (64, SIZE, SIZE, 3), np.uint8)

    def work(warm_up):
        for start in range(0, 64 if warm_up else count, 64):
            network.run(pixels[: count - start])

    return timed(work)


# Peers, each as its documentation recommends for speed


def keras_pipeline(folder):
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow

    model = keras.applications.MobileNet(weights=None, classes=1000)

    def work(warm_up):
        photos = keras.utils.image_dataset_from_directory(
            folder, labels=None, image_size=(SIZE, SIZE), batch_size=64, shuffle=False, verbose=False
        )
        photos = photos.map(lambda x: x / 127.5 - 1, num_parallel_calls=tensorflow.data.AUTOTUNE)
        photos = photos.prefetch(tensorflow.data.AUTOTUNE)
        model.predict(photos.take(1) if warm_up else photos, verbose=0)

    return timed(work)


def torch_pipeline(folder, scaled):
    """With or without the scaled decoding that Pillow offers and timm's loader does not ask for."""
    import torch
    from PIL import Image

    class Photos(torch.utils.data.Dataset):
        def __init__(self, paths):
            self.paths = paths

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, index):
            image = Image.open(self.paths[index])
            if scaled:
                image.draft("RGB", (256, 256))
            image = image.convert("RGB")
            scale = 256 / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
            left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
            pixels = np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))
            return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

    model = torch_network().eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
    paths = sorted((folder / "photos").iterdir())

    def work(warm_up):
        chosen = paths[:64] if warm_up else paths
        loader = torch.utils.data.DataLoader(Photos(chosen), batch_size=64, num_workers=cores(), prefetch_factor=4)
        with torch.inference_mode():
            for batch in loader:
                model(batch.to(memory_format=torch.channels_last).float().div_(127.5).sub_(1))

    return timed(work)


def torch_network():
    """MobileNet V1 1.0 as timm builds it: convolution, batch norm, ReLU6 in turn, symmetric padding."""
    from torch import nn

    def unit(channels, out, kernel, stride, groups=1):
        convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU6(inplace=True))

    layers, channels = [unit(3, 32, 3, 2)], 32
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    depths = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    for out, stride in zip(depths, strides, strict=True):
        layers += [unit(channels, channels, 3, stride, channels), unit(channels, out, 1, 1)]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, CLASSES))


CONTESTANTS = {
    "ours, decoding alone": decoding,
    **{f"ours, {precision} network alone": partial(inference, precision=precision) for precision in PRECISIONS},
    **{f"ours, {precision}": ours(precision) for precision in PRECISIONS},
    "Keras image_dataset_from_directory + predict": keras_pipeline,
    "PyTorch DataLoader + eager network": partial(torch_pipeline, scaled=False),
    "the same with scaled decoding": partial(torch_pipeline, scaled=True),
}


def measure_memory(photos, folder):
    """Embed 2,000 and 20,000 images with the command and print each one's peak memory."""
    from mobilenet_hub.catalog.published import configurations
    from mobilenet_hub.inference.bench import placeholder
    from mobilenet_hub.module_folder import write_module

    smallest = next(c for c in configurations() if c.name == "mobilenet_v1_025_128")
    module = write_module(folder / "module", placeholder(smallest))
    listing = fill(photos, folder / "photos", 2000, large=False)
    print("| images | peak memory, MiB |\n|--:|--:|")
    for repeats in (1, 10):
        words = ["embed", *[str(listing)] * repeats, "--module", str(module), "-o", f"{folder}/{repeats}", "--quiet"]
        code = (
            f"import resource; from mobilenet_hub.cli.main import main; main({words});"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        print(f"| {2000 * repeats} | {done.stdout.strip()} |", flush=True)


if __name__ == "__main__":
    main()
