"""The export to LiteRT (.tflite): batch norm folded, in float32, float16, dynamic-range or full int8 arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.exporting.formats import Precision
from mobilenet_hub.exporting.litert_metadata import add_metadata, attach_labels
from mobilenet_hub.exporting.proof import Run
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.inference.graph import INPUT
from mobilenet_hub.inference.litert import without_chatter
from mobilenet_hub.inference.litert_graph import Int8, build_litert, signature_name
from mobilenet_hub.inference.litert_model import SIGNATURE, Storage
from mobilenet_hub.inference.quantize import calibrated

_STORED: dict[Precision, Storage] = {"float32": "float32", "float16": "float16", "dynamic": "int8"}


def write(request: Request, file: Path) -> None:
    """Write the file, with the labels attached where there are any."""
    file.write_bytes(add_metadata(_written(request), request))
    if request.config.labels:
        attach_labels(file, request.config.labels)


def _written(request: Request) -> bytes:
    """Build the model; an endpoint that the caller calls otherwise is renamed in the signature."""
    return build_litert(
        request.config.network,
        request.weights,
        request.usual_size,
        request.endpoints,
        batch_size=request.batch_size,
        input_type="uint8" if request.uint8_input else "float32",
        arithmetic=_arithmetic(request),
        names=request.outputs,
    )


def _arithmetic(request: Request) -> Storage | Int8:
    if request.precision == "int8" and request.photos is not None:
        return calibrated(request.config.network, request.weights, request.photos)
    return _STORED[request.precision]


def load(request: Request, file: Path) -> tuple[str, Run]:
    """Load it with LiteRT; return the runtime's name and a function that runs it."""
    runtime, interpreter = _interpreter(file)
    runner = interpreter.get_signature_runner(SIGNATURE)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = runner(**{INPUT: images})
        return {name: outputs[signature_name(name)] for name in request.outputs}

    return runtime, run


def _interpreter(file: Path) -> tuple[str, Any]:
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    with without_chatter():
        return f"LiteRT {version('ai-edge-litert')}", Interpreter(str(file))
