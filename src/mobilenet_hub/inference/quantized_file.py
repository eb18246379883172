"""Quantized LiteRT files that a module keeps, run as they are: the answers of the file's own runtime, bit for bit.

Images are quantized as the file says (real / scale + zero point, rounded to even, in float32), outputs dequantized.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.errors import InputError, InvalidModuleError
from mobilenet_hub.host.cpu import available_cores, on_every_core
from mobilenet_hub.inference.litert import without_chatter
from mobilenet_hub.module import ModuleConfig
from mobilenet_hub.weights.litert import QuantizedFile, read_quantized

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

OUTPUTS = ("logits", "features")
_NEAR = 1e-3  # of a whole pixel value: what float32 leaves of k / 255 * 255


class QuantizedNetwork:
    """A kept file, ready for images.

    Attributes:
        gives_probabilities: whether its "logits" are probabilities already.
    """

    def __init__(self, data: bytes, file: Path, config: ModuleConfig, outputs: Sequence[str], threads: int | None):
        """Open the file.

        Args:
            data: the file's bytes.
            file: its path, for errors.
            config: the module's configuration.
            outputs: "logits", "features" or both.
            threads: how many to use; None: as many as there are cores.

        Raises:
            InputError: another output.
            InvalidModuleError: the file holds another network than the module says, or LiteRT cannot run it.
        """
        if unknown := [name for name in outputs if name not in OUTPUTS]:
            raise InputError(f"a quantized LiteRT file gives {' and '.join(OUTPUTS)}, not {unknown[0]!r}")
        found = read_quantized(data, file)
        if max(found.num_classes, 2 * bool(found.num_classes)) != config.num_classes:
            raise InvalidModuleError(f"{file} gives {found.num_classes} classes, not {config.num_classes}")
        self.gives_probabilities = found.activation != "linear"
        self._variant = config.variant
        with on_every_core():  # their threads begin here
            self._networks = {name: _open(data, file, found, name, threads) for name in outputs}
        self._lock = Lock()

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of a batch [n, height, width, 3], uint8 or float32 in [0, 1]."""
        with self._lock:
            return {name: self._outputs(name, network, images) for name, network in self._networks.items()}

    def _outputs(self, name: str, network: "Interpreter", images: np.ndarray) -> np.ndarray:
        (source,), (target,) = network.get_input_details(), network.get_output_details()
        rows = []
        for image in images:
            network.set_tensor(source["index"], self._prepared(image, source)[np.newaxis])
            network.invoke()
            rows.append(_dequantized(network.get_tensor(target["index"]).reshape(-1), target["quantization"]))
        found = np.stack(rows) if rows else np.zeros((0, int(np.prod(target["shape"]))), np.float32)
        if name == "logits" and found.shape[1] == 1:  # one sigmoid or one logit: two classes
            other = 1 - found if self.gives_probabilities else np.zeros_like(found)
            found = np.concatenate([other, found], axis=1)
        return found

    def _prepared(self, image: np.ndarray, source: dict) -> np.ndarray:
        pixels = image.astype(np.float32)
        if image.dtype != np.uint8:
            pixels = pixels * np.float32(255)
            whole = np.rint(pixels)
            pixels = np.where(np.abs(pixels - whole) < _NEAR, whole, pixels)
        real = pixels / np.float32(255 / self._variant.input_scale) + np.float32(self._variant.input_offset)
        if source["dtype"] == np.float32:
            return real
        scale, zero = source["quantization"]
        limits = np.iinfo(source["dtype"])
        steps = np.round(real / np.float32(scale) + np.float32(zero))
        return np.clip(steps, limits.min, limits.max).astype(source["dtype"])


def _dequantized(values: np.ndarray, quantization: tuple[float, int]) -> np.ndarray:
    scale, zero = quantization
    if values.dtype == np.float32:
        return values.copy()
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def _open(data: bytes, file: Path, found: QuantizedFile, output: str, threads: int | None) -> "Interpreter":
    from ai_edge_litert.interpreter import Interpreter

    if output == "features" and found.num_classes:
        data = found.with_output(data, found.features)
    try:
        with without_chatter():
            network = Interpreter(model_content=data, num_threads=threads or available_cores())
            network.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InvalidModuleError(f"{file} cannot be run by LiteRT: {error}") from None
    return network
