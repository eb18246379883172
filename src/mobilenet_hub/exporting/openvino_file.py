"""The export to OpenVINO's IR: the graph that our own engine compiles, as .xml and .bin."""

from pathlib import Path

import numpy as np

from mobilenet_hub.exporting.proof import Run
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.inference.graph import build_graph, import_openvino
from mobilenet_hub.weights.exported import GRAPH, weight_names
from mobilenet_hub.weights.openvino_file import constants_of, graph_digest, net_of


def write(request: Request, file: Path) -> None:
    """Write the .xml and, beside it, the .bin."""
    openvino = import_openvino()
    graph = build_graph(
        request.config.network,
        request.weights,
        request.usual_size,
        request.endpoints,
        batch_size=request.batch_size,
        input_type="uint8" if request.uint8_input else "float32",
    )
    for output, name in zip(graph.outputs, request.outputs, strict=True):
        output.add_names({name})
    for key, value in _about(request).items():
        graph.set_rt_info(value, ["model_info", key])
    for key, text in request.carried.items():
        graph.set_rt_info(text, [key])
    openvino.save_model(graph, file, compress_to_fp16=False)
    graph.set_rt_info(graph_digest(net_of(file), constants_of(file), weight_names(request.config.network)), [GRAPH])
    openvino.save_model(graph, file, compress_to_fp16=False)


def load(request: Request, file: Path) -> tuple[str, Run]:
    """Load it with OpenVINO; return the runtime's name and a function that runs it."""
    openvino = import_openvino()
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = compiled(images)
        return {name: results[compiled.output(name)] for name in request.outputs}

    return f"OpenVINO {openvino.__version__}", run


def _about(request: Request) -> dict[str, str]:
    """Return what the IR says of itself, with the keys of OpenVINO's Model API."""
    about = {"model_type": "Classification", "module": request.contract.name}
    if request.config.labels:
        # Model API separates labels by spaces, and writes those inside a label as underscores.
        about["labels"] = " ".join(label.replace(" ", "_") for label in request.config.labels)
    return about
