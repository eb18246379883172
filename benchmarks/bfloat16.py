"""What bfloat16 costs in accuracy, computed on any CPU: kernels, biases and activations rounded as OpenVINO does.

    python benchmarks/bfloat16.py --shared ../shared

Products of bfloat16 numbers are summed in float32; the last convolution's bias and output stay float32. Four trained
networks, 143 photographs: how many are right and how many have the same answer as in float32, and the cosine similarity
of the features, first rounded plainly, then with the biases of our `inference.bfloat16`, then also with the layers that
it keeps in float32. Needs torch.
"""

import argparse
from pathlib import Path

import numpy as np
import pretrained

from mobilenet_hub.architecture import pad_amounts
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.inference.bfloat16 import prepare, to_bfloat16
from mobilenet_hub.inference.graph import dense_layers, fold_batch_norm
from mobilenet_hub.module_folder import read_module
from mobilenet_hub.store import resolve
from mobilenet_hub.weights.convert import load_source


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="the folder with photos/, weights/ and golden/")
    parser.add_argument("--count", type=int, help="only the first photos")
    args = parser.parse_args()
    shared = args.shared
    files, labels, _ = pretrained.photos(shared, args.count)
    print("| network | rounded | layers in float32 | right | same answer | features' cosine, mean | least |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for name, module in networks(shared):
        network, weights = module.config.network, module.weights
        images = Preprocessing(module.config.image_size).load_batch(files)
        units = [fold_batch_norm(network, unit, weights) for unit in network.units]
        dense = dense_layers(network, weights)
        exact = forward(network, units, dense, images, len(units) + 1)
        plain = [(to_bfloat16(kernel), to_bfloat16(bias)) for kernel, bias in units[:-1]]
        plain.append((to_bfloat16(units[-1][0]), units[-1][1]))
        ways = [("plainly", (plain, 0)), ("biases corrected", prepare(network, weights, units, 0))]
        if (ours := prepare(network, weights, units)).exact:
            ways.append(("biases corrected", ours))
        for way, (layers, first) in ways:
            features, logits = forward(network, layers, dense, images, first)
            answers, own = logits.argmax(1), exact[1].argmax(1)
            cosine = (exact[0] * features).sum(1) / np.linalg.norm(exact[0], axis=1) / np.linalg.norm(features, axis=1)
            right = f"{(answers == labels).sum()} of {(own == labels).sum()}" if network.num_classes == 1001 else ""
            print(
                f"| {name} | {way} | {first} | {right} | {(answers == own).sum()} | {cosine.mean():.5f} "
                f"| {cosine.min():.5f} |",
                flush=True,
            )


def networks(shared):
    for size in pretrained.SIZES:
        yield f"V1 0.25, {size}", pretrained.network(shared, size)
    yield "the starter, V1 0.5, 160", read_module(resolve("starter"))
    yield "Teachable Machine, V2 0.35, 224", load_source(shared / "weights" / "teachable_machine_v2_035_224")


def forward(network, layers, dense, images, first):
    """Return features and logits, with the activations from unit `first` on rounded, and what goes into it."""
    import torch
    from torch.nn import functional

    value, made = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1, []
    for number, (unit, (kernel, bias)) in enumerate(zip(network.units, layers, strict=True)):
        value = nearest(value) if number == first else value
        height, width = (
            pad_amounts(n, unit.kernel_size, unit.stride, network.variant.padding) for n in value.shape[2:]
        )
        value = functional.conv2d(
            functional.pad(value, (*width, *height)),
            torch.from_numpy(kernel.transpose(2, 3, 0, 1) if unit.depthwise else kernel.transpose(3, 2, 0, 1)),
            torch.from_numpy(bias),
            stride=unit.stride,
            groups=value.shape[1] if unit.depthwise else 1,
        )
        value = value.clamp(0, 6) if unit.relu6 else value
        value = value if unit.adds is None else value + made[unit.adds]
        value = nearest(value) if first <= number < len(layers) - 1 else value
        made.append(value)
    features = value = value.mean((2, 3)).numpy()
    for number, (kernel, biases) in enumerate(dense):
        value = np.maximum(value, 0) if number else value
        value = value @ kernel[0, 0] + biases  # float32 in whatever precision the network runs
    return features, value


def nearest(value):
    return value.bfloat16().float()


if __name__ == "__main__":
    main()
