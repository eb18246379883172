"""Compiled models and where they are kept, so that the next start is fast."""

import hashlib
import os
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.host.cpu import cpu_features
from mobilenet_hub.host.files import replacing, sha256_of
from mobilenet_hub.inference.graph import import_openvino
from mobilenet_hub.module import ModuleConfig
from mobilenet_hub.module_folder import WEIGHTS_FILE
from mobilenet_hub.version import __version__

if TYPE_CHECKING:
    from openvino import CompiledModel


_HEADER = b"mobilenet-hub compiled model".ljust(32)

# What is compiled depends on the code of these.
_MAKERS = ("architecture", "inference.bfloat16", "inference.graph", "inference.openvino_hints")

_MAX_CACHE_BYTES = 1 << 30


def device_settings(precision: str, threads: int | None, bulk: bool) -> dict[str, Any]:
    """Return OpenVINO's settings for one image at a time or, in bulk, for many."""
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT" if bulk else "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    if threads is not None:
        settings |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads if bulk else 1}
    return settings


class CompiledNetwork:
    """A compiled model of a fixed batch size, `chunk`, and as many requests as it runs at a time."""

    def __init__(self, compiled: "CompiledModel", chunk: int, outputs: tuple[str, ...]):
        self._compiled = compiled
        self._chunk = chunk
        # By position: "logits" and "Logits" are one tensor, which OpenVINO may know by either name.
        self._shapes = {name: tuple(compiled.outputs[i].shape)[1:] for i, name in enumerate(outputs)}
        count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests = [compiled.create_infer_request() for _ in range(count)]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the chunks in turn on the requests; each writes its part of the results, the last chunk filled up."""
        from openvino import Tensor

        starts = range(0, len(images), self._chunk)
        rows = len(starts) * self._chunk
        results = {name: np.empty((rows, *shape), np.float32) for name, shape in self._shapes.items()}
        images = np.ascontiguousarray(images)
        for turn, start in enumerate(starts):
            request = self._requests[turn % len(self._requests)]
            request.wait()
            part = images[start : start + self._chunk]
            if len(part) < self._chunk:
                part = np.concatenate([part, np.zeros((self._chunk - len(part), *part.shape[1:]), part.dtype)])
            request.set_input_tensor(Tensor(part, shared_memory=part.flags.writeable))
            for index, result in enumerate(results.values()):
                request.set_output_tensor(index, Tensor(result[start : start + self._chunk], shared_memory=True))
            request.start_async()
        for request in self._requests:
            request.wait()
        return {name: result[: len(images)] for name, result in results.items()}


def cache_key(folder: Path, config: ModuleConfig, *choices: object) -> str:
    """Name all that a compiled model depends on: weights, network, what was asked for, our code, OpenVINO, CPU."""
    openvino = import_openvino()
    core = openvino.Core()
    hardware = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    try:
        digest = sha256_of(folder / WEIGHTS_FILE)
    except OSError:
        digest = "unreadable"  # and so in no cache: reading the module will say what is wrong
    parts = (digest, config.network, choices, _code(), openvino.get_version(), hardware, sorted(cpu_features()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _code() -> list[bytes]:
    files = [import_module(f"mobilenet_hub.{name}").__file__ for name in _MAKERS]
    try:
        return [Path(file or "").read_bytes() for file in files]
    except OSError:  # a distribution without sources
        return [__version__.encode()]


def load_compiled(file: Path, settings: dict[str, Any]) -> "CompiledModel | None":
    """Read a compiled model back, or None where there is none that is whole."""
    from openvino import Core

    try:
        content = file.read_bytes()
        os.utime(file)  # the cache drops what was not used for longest
    except OSError:
        return None
    start = len(_HEADER) + hashlib.sha256().digest_size
    blob = content[start:]
    if content[:start] != _HEADER + hashlib.sha256(blob).digest():
        return None
    try:
        return Core().import_model(blob, "CPU", settings)
    except RuntimeError:  # of another build of OpenVINO, against all odds
        return None


def save_compiled(file: Path, compiled: "CompiledModel") -> None:
    """Keep a compiled model for the next start; a cache that cannot be written is done without."""
    exported = BytesIO()
    compiled.export_model(exported)
    blob = exported.getbuffer()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as stream:
            stream.write(_HEADER + hashlib.sha256(blob).digest())
            stream.write(blob)
        _prune(file.parent)
    except OSError:
        pass


def _prune(folder: Path) -> None:
    files = sorted(((f.stat().st_mtime, f.stat().st_size, f) for f in folder.glob("*.blob")), reverse=True)
    total = 0
    for _, size, file in files:
        total += size
        if total > _MAX_CACHE_BYTES:
            file.unlink(missing_ok=True)
