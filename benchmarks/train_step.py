"""Time a full training step of our networks beside keras.applications and native PyTorch, interleaved in one process.

    KERAS_BACKEND=torch python benchmarks/train_step.py --batch 32 --size 224 --precision float32

Each round runs one step of every contestant, so that all meet the same load; reported are images per second of wall
clock and per second of processor time, each from a contestant's fastest step. The processor time is what to compare on
a machine that does other work besides. A step is forward, loss, backward, SGD with momentum, moving statistics.
"""

import argparse
import time
from collections.abc import Callable

import keras  # noqa: TID253
import numpy as np

from mobilenet_hub.architecture import Architecture, architecture, pad_amounts
from mobilenet_hub.keras.mobilenet import MobileNet

CLASSES = 1001
LEARNING_RATE, MOMENTUM = 0.01, 0.9
Step = Callable[[], object]


def keras_step(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Step:
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",
    )
    return lambda: model.train_on_batch(images, labels)


def ours(network: Architecture, size: int, precision: str) -> keras.Model:
    return MobileNet(network, dtype=precision)


def applications(network: Architecture, size: int, precision: str) -> keras.Model:
    build = {"mobilenet_v1": keras.applications.MobileNet, "mobilenet_v2": keras.applications.MobileNetV2}[network.name]
    keras.config.set_dtype_policy(precision)
    model = build((size, size, 3), network.depth_multiplier, weights=None, classes=CLASSES, classifier_activation=None)
    keras.config.set_dtype_policy("float32")
    return model


def native_torch_step(network: Architecture, precision: str, images: np.ndarray, labels: np.ndarray) -> Step:
    """The same network as a PyTorch user writes it: nn.Conv2d and nn.BatchNorm2d, channels_last, autocast."""
    import torch
    from torch import nn

    class Unit(nn.Module):
        def __init__(self, unit):
            super().__init__()
            groups = unit.in_channels if unit.depthwise else 1
            self.unit = unit
            self.conv = nn.Conv2d(
                unit.in_channels, unit.out_channels, unit.kernel_size, unit.stride, groups=groups, bias=False
            )
            self.norm = nn.BatchNorm2d(unit.out_channels, network.variant.batch_norm_epsilon)

        def forward(self, x):
            rows, columns = (pad_amounts(n, self.unit.kernel_size, self.unit.stride) for n in x.shape[2:])
            if any((*rows, *columns)):
                x = nn.functional.pad(x, (*columns, *rows))
            x = self.norm(self.conv(x))
            return nn.functional.relu6(x) if self.unit.relu6 else x

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.units = nn.ModuleList(Unit(unit) for unit in network.units)
            self.dropout = nn.Dropout(network.dropout_rate)
            self.classifier = nn.Linear(network.num_features, CLASSES)

        def forward(self, x):
            outputs = []
            for unit in self.units:
                x = unit(x)
                if unit.unit.adds is not None:
                    x = x + outputs[unit.unit.adds]
                outputs.append(x)
            return self.classifier(self.dropout(x.mean((2, 3))))

    model = Network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    targets = torch.from_numpy(labels)

    def step() -> None:
        x = torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1  # channels_last as it stands
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed_bfloat16"):
            loss = nn.functional.cross_entropy(model(x), targets)
        loss.backward()
        optimizer.step()

    return step


def measure(contestants: dict[str, Step], rounds: int) -> dict[str, tuple[float, float]]:
    """Return seconds (wall, processor) of the fastest step of each."""
    best = {}
    for round_index in range(rounds + 2):  # two to warm up
        for name, step in contestants.items():
            wall, processor = time.perf_counter(), time.process_time()
            step()
            spent = time.perf_counter() - wall, time.process_time() - processor
            if round_index >= 2:
                best[name] = tuple(map(min, best.get(name, spent), spent))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=["mobilenet_v1", "mobilenet_v2"])
    parser.add_argument("--depth-multiplier", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=0, help="0: the backend's default")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    random = np.random.default_rng(0)
    images = random.random((arguments.batch, arguments.size, arguments.size, 3), dtype=np.float32)
    labels = random.integers(0, CLASSES, arguments.batch)
    print("| network | contestant | images/s | images/processor s | GFLOP/processor s | ours / it |")
    print("|---|---|---|---|---|---|")
    for name in arguments.network:
        network = architecture(name, arguments.depth_multiplier, CLASSES)
        contestants = {
            "ours": keras_step(ours(network, arguments.size, arguments.precision), images, labels),
            "keras.applications": keras_step(
                applications(network, arguments.size, arguments.precision), images, labels
            ),
        }
        if keras.backend.backend() == "torch":
            contestants["native PyTorch"] = native_torch_step(network, arguments.precision, images, labels)
        best = measure(contestants, arguments.rounds)
        batch = arguments.batch
        flop = 6 * network.macs(arguments.size, arguments.size)  # forward and twice as much backward, 2 a MAC
        for contestant, (wall, processor) in best.items():
            figures = (batch / wall, batch / processor, flop * batch / processor / 1e9, processor / best["ours"][1])
            row = (
                f"{name} {keras.backend.backend()} {arguments.precision}",
                contestant,
                *map("{:.2f}".format, figures),
            )
            print(f"| {' | '.join(row)} |", flush=True)


def limit_threads(threads: int) -> None:
    if not threads:
        return
    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


if __name__ == "__main__":
    main()
