"""LiteRT (TensorFlow Lite) files as networks: float ones by their weights, quantized ones kept as they are.

Batch norm is folded into kernels and biases in these files, so that the module computes the same and cannot be trained.
Where only the weights are integers ("dynamic range"), they are widened.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mobilenet_hub.architecture import INPUT_CHANNELS, Variant
from mobilenet_hub.weights.exported import CUT, read_carried
from mobilenet_hub.weights.head import Affine, Dense, Step, head_weights
from mobilenet_hub.weights.identify import Found, Source, to_source
from mobilenet_hub.weights.labels import labels_inside
from mobilenet_hub.weights.litert_graph import LiteRtGraph
from mobilenet_hub.weights.litert_metadata import entries_of, scaling_of_metadata
from mobilenet_hub.weights.operations import Recognized, as_found, recognize
from mobilenet_hub.weights.pixels import PIXEL_RANGE, PIXEL_SCALE, scaling_of_images
from mobilenet_hub.weights.reading import Unusable, reading
from mobilenet_hub.weights.tensorflow.graph_def import image_size_of

_NEAR_ONE, _SURE, _FAR, _MARGIN = 0.7, 1.4, 10.0, 0.2  # how far a measured range may be from that which was meant
_EVEN = 0.15  # of the farther end of a range: how much nearer the other may be, where noise was measured for images
WHAT = "a LiteRT file of a MobileNet"


@dataclass(frozen=True)
class QuantizedFile:
    """What a quantized file gives, and where."""

    features: int  # the tensor of the pooled features
    activation: str  # what its classes end with: softmax, sigmoid or linear
    num_classes: int  # 0 where it gives features
    output_at: int  # where the file says which tensor is its output

    def with_output(self, data: bytes, tensor: int) -> bytes:
        """Return the file with another tensor for its output."""
        return data[: self.output_at] + tensor.to_bytes(4, "little") + data[self.output_at + 4 :]


def read_litert(file: Path, given: tuple[int, int] | None = None) -> Source:
    """Read a .tflite file.

    Args:
        file: the file.
        given: (height, width) of the images, where the caller says it; it matters where the file does not.

    Returns:
        A network whose batch norm is folded, for inference only; or a quantized file, and what it is.

    Raises:
        CorruptFileError: the file is damaged; says where.
        InvalidModuleError: the network is no MobileNet, or made for the Edge TPU.
    """
    with reading(file, WHAT):
        data = file.read_bytes()
        carried = read_carried(metadata_of(data), file)
        try:
            graph, found = _recognized(data, given, ours=carried is not None)
        except Unusable as error:
            raise Unusable(f"{error}: {CUT}" if carried else str(error)) from None
        size = image_size_of(graph.image_shape)
        classes = _classes(found)
        labels = labels_inside(data, max(classes, 2)) if classes else None  # one unit makes two classes
        if not graph.quantized:
            if carried:
                found = _as_exported(found, carried.config.variant)
            whole = as_found(found, size, graph.names)
            fed = None if carried else scaling_of_metadata(data)
            source = to_source(file, "LiteRT file", replace(whole, labels=labels), fed)
            return replace(source, carried=carried)
        if size is None or graph.shape(graph.input)[0] != 1:
            shape = list(graph.image_shape)
            raise Unusable(f"its images have the shape {shape}, and a quantized file is run on one at a time, as it is")
        if graph.outputs != 1:
            raise Unusable(f"it has {graph.outputs} outputs, and a quantized file is run as it is, with one")
        weights, hidden = _outline(found)
        outline = Found(weights, size, labels, Variant(hidden_units=hidden), False, found.scaling, graph.names)
        if carried is not None:
            scaling, outline = (1.0, 0.0), replace(outline, scaling=None)  # ours take [0, 1], or pixels of it
        else:
            scaling = _scaling_of_input(graph, data, found.scaling)
        source = replace(to_source(file, "quantized LiteRT file", outline), model=data, carried=carried)
        if scaling is not None or 0 < max(map(abs, graph.input_range())) <= _SURE:  # the file says how images enter
            source = replace(source, assumed=())
        if scaling is not None:
            scale, offset = scaling
            source = replace(source, variant=replace(source.variant, input_scale=scale, input_offset=offset))
        return source


def _scaling_of_input(
    graph: LiteRtGraph, data: bytes, scaled: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Return what takes images in [0, 1] to a quantized file's input; None where that is -1 to 1.

    A file that scales by itself takes pixels, or [0, 1]; of others the range of the input says it. What metadata say is
    of floats (TensorFlow Lite's Task Library ignores it for pixels): of integers the range decides, and the metadata
    where it does not.
    """
    if graph.takes_floats and (given := scaling_of_metadata(data)):
        return given
    if scaled is not None:
        scaling_of_images(*scaled)
        return (PIXEL_RANGE if abs(scaled[0]) < PIXEL_SCALE else 1.0), 0.0
    try:
        return of_range(*graph.input_range())
    except Unusable:
        if given := scaling_of_metadata(data):
            return given
        raise


def of_range(low: float, high: float) -> tuple[float, float] | None:
    """Return what takes images in [0, 1] to the numbers that a quantized input can be; None where they are -1 to 1.

    Raises:
        Unusable: they are none that images become.
    """
    far = max(-low, high)
    even = far <= _SURE or abs(high + low) <= _EVEN * far  # means and deviations of photos are not: -2.1 to 2.6
    if (min(-low, high) >= _NEAR_ONE and far <= _FAR and even) or low == high == 0:
        return None
    for least, most in ((0.0, 1.0), (0.0, 255.0), (-128.0, 127.0)):
        margin = _MARGIN * (most - least)
        if abs(low - least) <= margin and abs(high - most) <= margin:
            return most - least, least
    raise Unusable(f"it takes numbers from {low:.4g} to {high:.4g}, and nothing says how an image becomes such ones")


def read_quantized(data: bytes, file: Path) -> QuantizedFile:
    """Return what a quantized file that a module keeps gives, and where.

    Raises:
        CorruptFileError: the file is damaged; says where.
        InvalidModuleError: it holds another network.
    """
    with reading(file, WHAT):
        graph, found = _recognized(data)
        functions = [step for step in found.head if isinstance(step, str)]
        last = functions[-1] if functions and isinstance(found.head[-1], str) else "linear"
        return QuantizedFile(int(str(found.features)), last, _classes(found), graph.output_at)


def metadata_of(data: bytes) -> dict[str, str]:
    """Return the metadata of a file by name, those that are texts."""
    found = {}
    for name, buffer in entries_of(data):
        with suppress(UnicodeDecodeError):
            found[str(name, "utf-8")] = str(buffer.bytes(0), "utf-8")
    return found


def _as_exported(found: Recognized, variant: Variant) -> Recognized:
    """Leave out what a module does by itself: the scaling of images, and the division by the temperature.

    Raises:
        Unusable: images are scaled otherwise than the module does.
    """
    scale, offset = found.scaling or (1.0, 0.0)
    entering = variant.input_scale, variant.input_offset
    if not any(np.allclose((scale * top, offset), entering, rtol=1e-5, atol=1e-6) for top in (1, 255)):
        raise Unusable(f"it scales its images otherwise than the module that it was exported from: {CUT}")
    temperature = variant.temperature
    head = list(found.head)
    if len(head) > 2 and head[-1] == "softmax" and isinstance(head[-2], Affine) and isinstance(head[-3], Dense):
        scale, shift = np.asarray(head[-2].scale), np.asarray(head[-2].shift)
        if np.allclose(scale, 1 / temperature, rtol=1e-5) and not shift.any():
            del head[-2]
    return replace(found, head=tuple(head), scaling=None)


def _classes(found: Recognized) -> int:
    """Return how many numbers a head gives; 0 where there is none."""
    return next((step.kernel.shape[-1] for step in reversed(found.head) if isinstance(step, Dense)), 0)


def _outline(found: Recognized) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """Return weights that are as large as the file's own, which say what it is; and its hidden layers' widths."""
    steps: list[Step] = []
    for step in found.head:
        if isinstance(step, Dense):
            steps += ["relu", step] if steps else [step]
    head, hidden = head_weights(steps, found.network.scope, 0)
    return {**found.weights, **head}, hidden


def _recognized(
    data: bytes, given: tuple[int, int] | None = None, *, ours: bool = False
) -> tuple[LiteRtGraph, Recognized]:
    graph = LiteRtGraph(data, any_output=ours)
    shape = graph.image_shape
    if len(shape) != 4 or shape[3] != INPUT_CHANNELS:
        what = "gray images" if len(shape) == 4 and shape[3] == 1 else f"of the shape {list(shape)}"
        if len(shape) == 4 and shape[1] == INPUT_CHANNELS:
            what = f"images with their channels first, {list(shape)}, as converters from PyTorch leave them"
        raise Unusable(f"its input is {what}, where a module takes images in colour")
    size = image_size_of(shape) or given
    return graph, recognize(graph.operations(), graph.input, graph.output, size, kept=graph.quantized)
