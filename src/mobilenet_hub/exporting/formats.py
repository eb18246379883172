"""The formats that a module can be exported to, and which options mean something for each."""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from mobilenet_hub.errors import InputError
from mobilenet_hub.module import Module

if TYPE_CHECKING:
    from mobilenet_hub.hub.keras_layer import KerasLayer
    from mobilenet_hub.hub.load import LoadedModule

    Exportable = str | os.PathLike[str] | Module | LoadedModule | KerasLayer


Free = Literal["free"]

FREE: Free = "free"

Precision = Literal["float32", "float16", "dynamic", "int8"]

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "dynamic", "int8")

PROBABILITIES = "probabilities"

OPSETS = (13, 17, 26)  # ONNX: the first with Squeeze and Softmax as used here, the default, the last that was tried


@dataclass(frozen=True)
class Format:
    """What one format is: the file name's ending (None: always a folder), and which options mean something for it."""

    name: str
    suffix: str | None
    packages: tuple[tuple[str, str], ...] = ()  # (import name, extra that installs it)
    options: frozenset[str] = frozenset()
    any_output: bool = False  # False: the network's own output, or "features" to leave the classifier out


_GRAPH_OPTIONS = frozenset({"image_size", "batch_size", "uint8_input"})

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("tf-hub", None, (("tensorflow", "tensorflow"),), frozenset({"image_size", "batch_size"})),
        Format("onnx", ".onnx", (("onnx", "onnx"), ("onnxruntime", "onnx")), _GRAPH_OPTIONS | {"opset"}, True),
        Format("openvino", ".xml", (), _GRAPH_OPTIONS, True),
        Format(
            "litert",
            ".tflite",
            (("tensorflow", "tensorflow"),),
            _GRAPH_OPTIONS | {"precision", "calibration"},
            True,
        ),
        Format("keras", ".keras"),
        Format("safetensors", None),
        Format("site", None, (("tensorflow", "tensorflow"),), frozenset({"handle"})),
    )
}


def find_format(name: str) -> Format:
    """Return a format by its name.

    Raises:
        InputError: there is none of that name; says which one is near.
    """
    if name == "tfjs":
        raise InputError(
            "there is no export to TF.js: its converter, tensorflowjs, is not maintained and cannot be installed "
            "beside a current TensorFlow; export to onnx for browsers (ONNX Runtime Web), or to litert"
        )
    if name not in FORMATS:
        near = get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(FORMATS)}"
        raise InputError(f"there is no format {name!r} to export to; {hint}")
    return FORMATS[name]
