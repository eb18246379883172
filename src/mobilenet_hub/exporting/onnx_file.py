"""The export to ONNX, written straight from the architecture: batch norm folded, TensorFlow's padding, images NHWC."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.architecture import INPUT_CHANNELS, ConvUnit, fixed_pad_amounts, pad_amounts
from mobilenet_hub.errors import InputError, ProofError
from mobilenet_hub.exporting.proof import Run
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.inference.graph import INPUT, fold_batch_norm
from mobilenet_hub.weights.exported import GRAPH, weight_names
from mobilenet_hub.weights.onnx_file import graph_digest
from mobilenet_hub.weights.tensorflow.protobuf import Message

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


def write(request: Request, file: Path) -> None:
    """Write the file, checked by ONNX's own checker.

    Raises:
        InputError: the installed onnx does not know the opset.
    """
    import onnx

    if request.opset > (latest := onnx.defs.onnx_opset_version()):
        raise InputError(f"onnx {onnx.__version__} knows operator sets up to {latest}, not {request.opset}; update it")
    model = _model(request)
    written = Message(model.SerializeToString())
    properties = _properties(request) | {GRAPH: graph_digest(written, weight_names(request.config.network))}
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def load(request: Request, file: Path) -> tuple[str, Run]:
    """Load it with ONNX Runtime; return the runtime's name and a function that runs it.

    Raises:
        ProofError: ONNX Runtime does not take it.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise ProofError(f"ONNX Runtime {onnxruntime.__version__} does not take the export: {error}") from error

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        names = list(request.outputs)
        return dict(zip(names, session.run(names, {INPUT: images}), strict=True))

    return f"ONNX Runtime {onnxruntime.__version__}", run


def _model(request: Request) -> "ModelProto":
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph(request)
    size = request.image_size or ("height", "width")
    batch = request.batch_size or "batch"
    image_type = TensorProto.UINT8 if request.uint8_input else TensorProto.FLOAT
    shapes = request.config.network.endpoint_shapes(*request.usual_size)
    outputs = []
    for name, endpoint in zip(request.outputs, request.endpoints, strict=True):
        graph.add("Identity", [graph.values[endpoint]], name)
        alias = {"logits": "Logits", "features": "global_pool"}.get(endpoint, endpoint)
        shape: tuple[int | None, ...] = shapes[alias][-1:] if endpoint == "features" else shapes[alias]
        if request.image_size is None and len(shape) == 3 and endpoint != "global_pool":
            shape = (None, None, shape[-1])
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape]))
    nodes, constants = graph.needed(request.outputs)
    proto = helper.make_graph(
        nodes,
        request.config.architecture,
        [helper.make_tensor_value_info(INPUT, image_type, [batch, *size, INPUT_CHANNELS])],
        outputs,
        constants,
    )
    opsets = [helper.make_opsetid("", request.opset)]
    model = helper.make_model(
        proto,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="mobilenet-hub",
    )
    helper.set_model_props(model, _properties(request))
    return onnx.shape_inference.infer_shapes(model)


def _properties(request: Request) -> dict[str, str]:
    """Return what the file says of itself, as ONNX Runtime shows it; labels one a line."""
    labels = request.config.labels
    facts = {"module": request.contract.name, "license": request.config.license, "images": _images(request)}
    facts |= request.carried
    if labels and len(labels) == request.config.num_classes:
        facts["labels"] = "\n".join(labels)
    return {key: str(value) for key, value in facts.items() if value}


def _images(request: Request) -> str:
    return f"[batch, height, width, 3] RGB, {'uint8' if request.uint8_input else 'float32 in [0, 1]'}"


class _Graph:
    """The nodes of the whole network.

    Attributes:
        values: the tensor of each output of `graph.output_names`.
    """

    def __init__(self, request: Request):
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.values: dict[str, str] = {}
        self._add_units(request, self._scaled(request))
        self._add_head(request)

    def add(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node, named as its output, and return that name."""
        from onnx import helper

        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray | np.generic | float) -> str:
        """Keep a constant and return its name."""
        from onnx import numpy_helper

        array = np.ascontiguousarray(np.asarray(value, None if isinstance(value, np.ndarray) else np.float32))
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def needed(self, outputs: tuple[str, ...]) -> "tuple[list[NodeProto], list[TensorProto]]":
        """Return the nodes and constants that the outputs follow from."""
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                kept.append(node)
        return kept[::-1], [value for name, value in self.constants.items() if name in wanted]

    def _scaled(self, request: Request) -> str:
        """Take [0, 1] or 0..255 to [-1, 1] before any padding, and put channels first."""
        from onnx import TensorProto

        x, variant = INPUT, request.config.variant
        scale = variant.input_scale
        if request.uint8_input:
            x, scale = self.add("Cast", [x], "images_as_float", to=TensorProto.FLOAT), scale / 255
        x = self.add("Mul", [x, self.constant("input_scale", scale)], "scaled")
        x = self.add("Add", [x, self.constant("input_offset", variant.input_offset)], "shifted")
        return self.add("Transpose", [x], "channels_first", perm=[0, 3, 1, 2])

    def _add_units(self, request: Request, x: str) -> None:
        network, made = request.config.network, []
        zero, six = self.constant("zero", 0.0), self.constant("six", 6.0)
        sizes: tuple[tuple[int, int] | None, ...] = (None,) * len(network.units)
        if request.image_size:
            sizes = (request.image_size, *network.output_sizes(*request.image_size)[:-1])
        for unit, size in zip(network.units, sizes, strict=True):
            kernel, bias = fold_batch_norm(network, unit, request.weights)
            axes = (2, 3, 0, 1) if unit.depthwise else (3, 2, 0, 1)
            weights = [
                self.constant(unit.kernel.name, kernel.transpose(axes)),
                self.constant(f"{unit.scope}/bias", bias),
            ]
            x = self.add("Conv", [x, *weights], f"{unit.scope}/Conv", **_convolution(request, unit, size))
            if unit.relu6:
                x = self.add("Clip", [x, zero, six], f"{unit.scope}/Relu6")
            if unit.adds is not None:
                x = self.add("Add", [x, made[unit.adds]], f"{unit.scope}/add")
            made.append(x)
            last = self.add("Transpose", [x], f"{unit.scope}/output", perm=[0, 2, 3, 1])
            self.values.update(dict.fromkeys(unit.endpoints, last))
        self.values["last"] = x

    def _add_head(self, request: Request) -> None:
        network, scope = request.config.network, f"{request.config.network.scope}/Logits"
        pooled = self.add("GlobalAveragePool", [self.values.pop("last")], f"{scope}/pooled")
        self.values["global_pool"] = self.add("Transpose", [pooled], f"{scope}/global_pool", perm=[0, 2, 3, 1])
        self.values["features"] = x = self.add("Flatten", [pooled], f"{scope}/features", axis=1)
        if not network.num_classes:
            return
        for at, (kernel, biases) in enumerate(network.hidden):
            x = self._dense(x, (kernel.name, biases.name), request.weights)
            x = self.add("Relu", [x], f"{scope}/hidden_{at}")
        logits = self._dense(x, tuple(variable.name for variable in network.classifier), request.weights)
        self.values["logits"] = self.values["Logits"] = logits
        scaled = logits
        if network.variant.temperature != 1:
            by = self.constant(f"{scope}/temperature", np.float32(network.variant.temperature))
            scaled = self.add("Div", [logits, by], f"{scope}/scaled")
        self.values["Predictions"] = self.add("Softmax", [scaled], f"{scope}/softmax", axis=1)

    def _dense(self, x: str, names: tuple[str, ...], weights: Mapping[str, np.ndarray]) -> str:
        kernel, biases = (weights[name] for name in names)
        constants = [self.constant(names[0], kernel[0, 0]), self.constant(names[1], biases)]
        return self.add("Gemm", [x, *constants], f"{names[0].rpartition('/')[0]}/Gemm")


def _convolution(request: Request, unit: ConvUnit, size: tuple[int, int] | None) -> dict[str, Any]:
    """Return the attributes of a Conv; for a free size TensorFlow's rule is ONNX's SAME_UPPER."""
    padding = request.config.variant.padding
    attributes: dict[str, Any] = {
        "kernel_shape": [unit.kernel_size] * 2,
        "strides": [unit.stride] * 2,
        "group": unit.in_channels if unit.depthwise else 1,
    }
    if size is None and padding == "same":
        return {**attributes, "auto_pad": "SAME_UPPER"}
    if size is None:
        height = width = fixed_pad_amounts(unit.kernel_size, unit.stride, padding)
    else:
        height, width = (pad_amounts(n, unit.kernel_size, unit.stride, padding) for n in size)
    return {**attributes, "pads": [height[0], width[0], height[1], width[1]]}
