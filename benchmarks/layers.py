"""Where the time of one image goes in LiteRT, on one thread: the kinds of layers, beside what the core can multiply.

    python benchmarks/layers.py [--rounds 200] [mobilenet_v1_100_224 ...]

Needs torch for the products of matrices. The network is cut off behind each of its units; what a unit adds to the
shortest of many runs is its time. In float32.
"""

import argparse
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
from inference import CONFIGURATIONS, SIDE, module_of

from mobilenet_hub.architecture import Architecture, ConvUnit
from mobilenet_hub.inference.litert_graph import build_litert
from mobilenet_hub.module import Module


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configurations", nargs="*", default=CONFIGURATIONS)
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    print(f"products of matrices, one thread: {multiplying():.0f} billion operations a second")
    for name in args.configurations:
        measure(name, args.rounds)


def multiplying() -> float:
    import torch

    torch.set_num_threads(1)
    one, other = torch.randn(2, SIDE, SIDE)
    return 2e-9 * SIDE**3 / min(timed(lambda: one @ other) for _ in range(20))


def measure(name: str, rounds: int) -> None:
    module = module_of(name)
    network, size = module.config.network, module.config.image_size
    cut = [replace(network, units=network.units[:end], num_classes=0) for end in range(1, len(network.units) + 1)]
    runs = [invoking(part, module, part.units[-1].endpoints[0]) for part in cut]
    runs.append(invoking(network, module, "logits"))
    best = [min(timed(run) for _ in range(2)) for run in runs]
    for _ in range(rounds):
        best = [min(known, timed(run)) for known, run in zip(best, runs, strict=True)]
    seconds, operations = defaultdict(float), defaultdict(float)
    macs = [part.macs(*size) for part in cut] + [network.macs(*size)]
    kinds = [kind_of(unit, number) for number, unit in enumerate(network.units)] + ["pooling and classifier"]
    for kind, own, before, all_own, all_before in zip(kinds, best, [0, *best], macs, [0, *macs], strict=False):
        seconds[kind] += own - before
        operations[kind] += 2e-9 * (all_own - all_before)
    print(f"\n{name}, one thread, {1000 * best[-1]:.2f} ms an image\n")
    print("| | share of the operations | share of the time | billion operations a second |\n|---|--:|--:|--:|")
    for kind, taken in seconds.items():
        share, of_time = operations[kind] / sum(operations.values()), taken / best[-1]
        print(f"| {kind} | {share:.1%} | {of_time:.1%} | {operations[kind] / max(taken, 1e-9):.0f} |", flush=True)


def kind_of(unit: ConvUnit, number: int) -> str:
    return "scaling and first convolution" if number == 0 else "depthwise" if unit.depthwise else "1x1"


def invoking(network: Architecture, module: Module, output: str):
    from ai_edge_litert.interpreter import Interpreter

    model = build_litert(network, module.weights, module.config.image_size, [output], input_type="uint8")
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    pixels = np.random.default_rng(0).integers(0, 256, (1, *module.config.image_size, 3), np.uint8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    return interpreter.invoke


def timed(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
