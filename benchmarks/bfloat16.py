"""What bfloat16 costs in accuracy, computed on any CPU: every kernel, and every layer's output, rounded to bfloat16.

    python benchmarks/bfloat16.py --shared ../shared

Batch norm is folded before, sums and biases stay float32, as in a compiled network. Google's two pretrained V1 0.25
networks, 143 photographs: top-1 beside float32's, and the cosine similarity of the features, first with everything
rounded, then with the first layers kept in float32.
"""

import argparse
from pathlib import Path

import numpy as np
import pretrained

from mobilenet_hub.architecture import pad_amounts
from mobilenet_hub.graph import fold_batch_norm
from mobilenet_hub.images import load_batch

KEPT = (0, 1, 3, 5, 7, 9, 13)  # first layers in float32, of 27


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="the folder with photos/, weights/ and golden/")
    shared = parser.parse_args().shared
    files, labels, _ = pretrained.photos(shared)
    print("| network | layers in float32 | top-1 | features' cosine, mean | least |\n|---|--:|--:|--:|--:|")
    for size in pretrained.SIZES:
        module = pretrained.network(shared, size)
        images = load_batch(files, size)
        exact, logits = forward(module, images, kept=None)
        print(f"| V1 0.25, {size} | all | {(logits.argmax(1) == labels).sum()} | 1 | 1 |")
        for kept in KEPT:
            features, logits = forward(module, images, kept)
            cosine = (exact * features).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(features, axis=1)
            right = (logits.argmax(1) == labels).sum()
            print(f"| V1 0.25, {size} | {kept} | {right} | {cosine.mean():.4f} | {cosine.min():.4f} |", flush=True)


def forward(module, images, kept):
    """Return features and logits, with all but the first `kept` layers rounded; None: with nothing rounded."""
    import torch
    from torch.nn import functional

    network = module.config.network
    value = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    for number, unit in enumerate(network.units):
        rounded = to_bfloat16 if kept is not None and number >= kept else torch.clone
        kernel, bias = (torch.from_numpy(array).float() for array in fold_batch_norm(network, unit, module.weights))
        height, width = (pad_amounts(n, unit.kernel_size, unit.stride, network.padding) for n in value.shape[2:])
        value = functional.conv2d(
            functional.pad(rounded(value), (*width, *height)),
            rounded(kernel.permute(2, 3, 0, 1) if unit.depthwise else kernel.permute(3, 2, 0, 1)),
            bias.flatten(),
            stride=unit.stride,
            groups=len(value[0]) if unit.depthwise else 1,
        )
        value = rounded(value.clamp(0, 6) if unit.relu6 else value)
    features = value.mean((2, 3)).numpy()
    kernel, biases = (module.weights[variable.name] for variable in network.classifier)
    return features, features @ kernel[0, 0] + biases


def to_bfloat16(value):
    return value.bfloat16().float()


if __name__ == "__main__":
    main()
