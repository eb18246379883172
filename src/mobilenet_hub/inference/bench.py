"""How fast this machine is: decoding, inference and both together, and which published network fits a budget.

Every figure comes from the code that does the work elsewhere: the pipeline with the network left out, the network with
the pipeline left out, and both.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np

from mobilenet_hub.architecture import STATISTICS, Architecture
from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.catalog.published import NUM_CLASSES, Configuration, configurations
from mobilenet_hub.errors import ImageError, InputError, ModuleUnavailableError
from mobilenet_hub.host.progress import OnProgress, Stage, silent
from mobilenet_hub.images.batches import BATCH_SIZE, compute, decode_batches
from mobilenet_hub.images.decode import decode_image
from mobilenet_hub.images.fit import Fit, Preprocessing
from mobilenet_hub.images.inputs import Item, items
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.engine import Engine, EngineChoice, Precision, settled_precision
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_config
from mobilenet_hub.store import locate

_MOST_PHOTOS, _MOST_BYTES = 2_000, 1 << 30  # kept in memory, as files would be in the page cache


@dataclass(frozen=True, slots=True)
class Speed:
    """Images a second of one network on this machine, on as many threads as its engine has."""

    decode: float  # decoding and fitting alone
    inference: float  # the network alone, in bulk
    end_to_end: float  # both at once
    one_image_ms: float  # the network alone on a single image, spread over all threads: the median

    @property
    def limit(self) -> float:
        """What the parts allow if neither ever waits: 1 / (1 / decode + 1 / inference)."""
        return 1 / (1 / self.decode + 1 / self.inference)


@dataclass(frozen=True, slots=True)
class NetworkSpeed:
    """The speed of a published network, beside its published accuracy."""

    configuration: Configuration
    one_image_ms: float  # spread over all threads: the median
    images_per_s: float  # in bulk


def bench(
    module: str | os.PathLike[str] = "starter",
    photos: Sequence[str] = (),
    *,
    precision: Precision = "auto",
    engine: EngineChoice = "auto",
    fit: Fit | None = None,
    threads: int | None = None,
    seconds: float = 3.0,
) -> Speed:
    """Measure how fast a module is on this machine: decoding, the network, both at once, and one image alone.

    Args:
        module: any name of a module; of a published one that is not in the cache, the network without its weights.
        photos: files, folders or globs of your own photos; none: made-up JPEGs of 500x375 pixels.
        precision: as for `Classifier`.
        engine: as for `Classifier`.
        fit: how images are fitted; None: the default.
        threads: how many compute and decode; None: as many as there are cores.
        seconds: how long each figure is measured.

    Raises:
        InputError: no photo can be read, or no such precision, fit or number of threads.
        UnknownModuleError, InvalidModuleError: as for `Classifier`.

    Example:
        >>> speed = bench("starter", seconds=0.1)
        >>> speed.limit < min(speed.decode, speed.inference)
        True
    """
    found = photos_in_memory(photos)[0] if photos else example_photos()
    opened = open_to_measure(module, precision, engine, threads)
    return measure(opened, found, Preprocessing(opened.image_size, fit), seconds=seconds)


def open_to_measure(
    name: str | os.PathLike[str],
    precision: Precision,
    engine: EngineChoice = "auto",
    threads: int | None = None,
    *,
    few: bool = False,
) -> Engine:
    """Open a module: its folder, or, of a published one that is not in the cache, its network without weights."""
    try:
        source: Path | Module = locate(name, fetch=False, kind="classification")
        config = source.config if isinstance(source, Module) else read_config(source)
        output = "logits" if config.num_classes else "features"
    except ModuleUnavailableError:
        source, output = placeholder(find_module(os.fspath(name), "classification").configuration), "logits"
        precision = settled_precision(precision, engine, few=few)  # of made-up weights, scores say nothing
    return Engine(source, (output,), precision=precision, engine=engine, threads=threads, few=few)


def photos_in_memory(inputs: Sequence[str]) -> tuple[list[Item], list[Skipped]]:
    """Read the files of the inputs, at most 2,000 or a gigabyte, so that no disk is measured.

    Returns:
        The photos, and (name, reason) of the files that are none.

    Raises:
        InputError: there is none.
    """
    found: list[Item] = []
    left_out: list[Skipped] = []
    held = 0
    for item in islice(items(inputs), _MOST_PHOTOS):
        try:
            data = item.read()
            decode_image(data, min_size=(1, 1))
        except ImageError as error:
            left_out.append(Skipped(item.key, error.reason))
            continue
        found.append(Item(item.key, _constant(data)))
        held += len(data)
        if held > _MOST_BYTES:
            break
    if not found:
        why = f", e.g. {left_out[0].name}: {left_out[0].reason}" if left_out else ""
        raise InputError(f"there are no photos to measure with{why}")
    return found, left_out


def example_photos(count: int = 64) -> list[Item]:
    """Make JPEGs of 500x375 pixels to measure with where there are no photos: smooth shapes with a camera's grain.

    Example:
        >>> len(example_photos(2))
        2
    """
    import simplejpeg

    random = np.random.default_rng(0)
    y, x = np.mgrid[0:375, 0:500]
    photos = []
    for number in range(count):
        waves = [np.sin((x * random.normal() + y * random.normal()) / 40 + number) for _ in range(3)]
        pixels = 128 + 90 * np.stack(waves, axis=2) + random.normal(0, 6, (375, 500, 1))
        data = simplejpeg.encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8), quality=90, colorsubsampling="420")
        photos.append(Item(f"example {number}", _constant(data)))
    return photos


def _constant(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def measure(engine: Engine, photos: Sequence[Item], preprocessing: Preprocessing, *, seconds: float = 3.0) -> Speed:
    """Measure one network with photos, turn by turn: decoding, inference, both, so that all share any disturbance.

    Args:
        engine: the network.
        photos: what to decode, again and again.
        preprocessing: how they become the engine's input.
        seconds: how long each of the three is measured.
    """
    output = engine.outputs[0]

    def batched(stream: Iterator[Item]) -> Iterator[list[Item]]:
        return iter(lambda: list(islice(stream, BATCH_SIZE)), [])

    pixels = np.zeros((BATCH_SIZE, *engine.image_size, 3), np.uint8)
    runs: dict[str, Callable[[Iterator[Item]], Iterator[int]]] = {
        "decode": lambda stream: (len(b.inputs) for b in decode_batches(stream, preprocessing, threads=engine.threads)),
        "inference": lambda stream: (len(engine.run(pixels)[output]) for _ in batched(stream)),
        "end_to_end": lambda stream: (len(b.inputs) for b, _ in compute(stream, engine, output, preprocessing)),
    }
    done = dict.fromkeys(runs, 0)
    spent = dict.fromkeys(runs, 0.0)
    for turn in range(4):  # the first warms up
        for name, run in runs.items():
            count, taken = _timed(run, photos, seconds / 3 if turn else 0.2)
            if turn:
                done[name] += count
                spent[name] += taken
    rates = {name: done[name] / spent[name] for name in runs}
    return Speed(**rates, one_image_ms=one_image_ms(engine, seconds / 3))


def _timed(run: Callable[[Iterator[Item]], Iterator[int]], photos: Sequence[Item], seconds: float) -> tuple[int, float]:
    """Run for about that long, to the end of what was begun; return how many images were done and the time it took."""
    start = time.perf_counter()
    stream = _until(start + seconds, cycle(photos))
    return sum(run(stream)), time.perf_counter() - start


def _until(end: float, stream: Iterator[Item]) -> Iterator[Item]:
    """Pass on whole batches until the time has come; at least one."""
    while True:
        yield from islice(stream, BATCH_SIZE)
        if time.perf_counter() >= end:
            return


def one_image_ms(engine: Engine, seconds: float = 0.5) -> float:
    """Return the median time of a single image in the network, in milliseconds."""
    image = np.zeros((1, *engine.image_size, 3), np.uint8)
    engine.run(image)
    times = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        engine.run(image)
        times.append(time.perf_counter() - start)
    return 1000 * median(times)


def measure_catalog(
    precision: Precision = "auto",
    seconds: float = 0.5,
    networks: Sequence[Configuration] | None = None,
    on_progress: OnProgress = silent,
    *,
    threads: int | None = None,
) -> list[NetworkSpeed]:
    """Measure published networks, all by default, without their weights: the time does not depend on them."""
    speeds = []
    networks = configurations() if networks is None else networks
    for number, configuration in enumerate(networks):
        on_progress(Stage("bench", "network"), number, len(networks))
        settled = settled_precision(precision, "auto")  # of made-up weights, scores say nothing
        engine = Engine(placeholder(configuration), ("logits",), precision=settled, threads=threads)
        pixels = np.zeros((BATCH_SIZE, *engine.image_size, 3), np.uint8)
        engine.run(pixels)
        start, runs = time.perf_counter(), 0
        while not runs or time.perf_counter() < start + seconds:
            engine.run(pixels)
            runs += 1
        rate = runs * BATCH_SIZE / (time.perf_counter() - start)
        speeds.append(NetworkSpeed(configuration, one_image_ms(engine, seconds / 2), rate))
    return speeds


def placeholder(configuration: Configuration) -> Module:
    """Return a module with made-up weights: as fast as the published one.

    Example:
        >>> from mobilenet_hub.catalog.published import configurations
        >>> placeholder(configurations()[0]).config.num_classes
        1001
    """
    size = configuration.size
    config = ModuleConfig(configuration.architecture, configuration.depth_multiplier, (size, size), NUM_CLASSES)
    return Module(config, _placeholder_weights(config.network))


def _placeholder_weights(network: Architecture) -> dict[str, np.ndarray]:
    """Make weights that keep activations in the ordinary range: numbers near zero would be slower on some CPUs."""
    random = np.random.default_rng(0)
    weights = {}
    for name, variable in network.variables.items():
        if name.endswith(("gamma", *STATISTICS[1:])):
            weights[name] = np.ones(variable.shape, np.float32)
        else:
            inputs = 9 if name.endswith("depthwise_weights") else max(1, int(np.prod(variable.shape[:-1])))
            weights[name] = random.normal(0, (2 / inputs) ** 0.5, variable.shape).astype(np.float32)
    return weights


def best_within(
    speeds: Sequence[NetworkSpeed], *, budget_ms: float | None = None, images_per_s: float | None = None
) -> list[NetworkSpeed]:
    """Return those that fit the budget, the most accurate first; of equal accuracy the faster.

    Args:
        speeds: measured networks.
        budget_ms: the most that one image may take.
        images_per_s: the least that must be done in bulk.

    Example:
        >>> best_within([], budget_ms=5)
        []
    """
    fitting = [
        speed
        for speed in speeds
        if (budget_ms is None or speed.one_image_ms <= budget_ms)
        and (images_per_s is None or speed.images_per_s >= images_per_s)
    ]
    return sorted(fitting, key=lambda s: (-s.configuration.published.top1, s.one_image_ms))


def front(speeds: Sequence[NetworkSpeed]) -> list[NetworkSpeed]:
    """Return those that none beats in both accuracy and time for one image, the fastest first.

    Example:
        >>> front([])
        []
    """
    best, chosen = float("-inf"), []
    for speed in sorted(speeds, key=lambda s: (s.one_image_ms, -s.configuration.published.top1)):
        if speed.configuration.published.top1 > best:
            best = speed.configuration.published.top1
            chosen.append(speed)
    return chosen
