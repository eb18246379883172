"""The formats that a module can be exported to: what each is, what it needs, and which options mean something for it.

Help, checks and the table of docs/export.md follow from `FORMATS`. A new format is a row here and its file.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from mobilenet_hub.errors import InputError

Free = Literal["free"]

FREE: Free = "free"

Precision = Literal["float32", "float16", "dynamic", "int8"]

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "dynamic", "int8")

PROBABILITIES = "probabilities"

OPSETS = (13, 17, 26)  # ONNX: the first with Squeeze and Softmax as used here, the default, the last that was tried


@dataclass(frozen=True)
class Format:
    """What one format is.

    Its file in this folder has `write(request, path)` and `load(request, path)`, which returns the runtime's name and
    a function that runs the export; or, for a format that chooses its own place, `publish(request, output, ...)`.
    """

    name: str
    writer: str  # its file
    what: str  # in a few words
    suffix: str | None = None  # the ending of its file; None: always a folder
    options: frozenset[str] = frozenset()  # which of the options mean something
    needs: tuple[tuple[str, str], ...] = ()  # (import name, extra that installs it)
    any_output: bool = False  # False: the network's own output, or "features" to leave the classifier out
    # Whether it takes images of any size: on request only, or unless the module is of a fixed size, or always.
    free_size: Literal["never", "on request", "where allowed", "always"] = "where allowed"
    default_batch: int | None = None  # None: any number of images
    in_site: bool = False  # it is put into a site, below its handle


_TENSORFLOW = (("tensorflow", "tensorflow"),)
_GRAPH_OPTIONS = frozenset({"image_size", "batch_size", "uint8_input"})

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format(
            "tf-hub",
            "tf_hub",
            "TF2 SavedModel with the whole reusable interface and `serving_default`",
            options=frozenset({"image_size", "batch_size"}),
            needs=_TENSORFLOW,
        ),
        Format(
            "onnx",
            "onnx_file",
            "for ONNX Runtime, also in browsers (ONNX Runtime Web)",
            suffix=".onnx",
            options=_GRAPH_OPTIONS | {"opset"},
            needs=(("onnx", "onnx"), ("onnxruntime", "onnx")),
            any_output=True,
            free_size="on request",
        ),
        Format(
            "openvino",
            "openvino_file",
            "IR, `.xml` and `.bin`",
            suffix=".xml",
            options=_GRAPH_OPTIONS,
            needs=(("openvino", "openvino"),),
            any_output=True,
            free_size="never",
        ),
        Format(
            "litert",
            "litert_file",
            "for phones, labels attached",
            suffix=".tflite",
            options=_GRAPH_OPTIONS | {"precision", "calibration"},
            any_output=True,
            free_size="never",
            default_batch=1,
        ),
        Format(
            "keras",
            "keras_file",
            "loads with plain Keras after `import mobilenet_hub`",
            suffix=".keras",
            needs=(("keras", "torch"),),
            free_size="always",
        ),
        Format("safetensors", "safetensors_folder", "a module folder"),
        Format(
            "site",
            "publish",
            "a static site that tensorflow_hub and `mobilenet pull` fetch from",
            options=frozenset({"handle"}),
            needs=_TENSORFLOW,
            in_site=True,
        ),
    )
}


def takers(option: str) -> str:
    """Return the names of the formats for which an option means something.

    Example:
        >>> takers("opset"), takers("uint8_input")
        ('onnx', 'onnx, openvino, litert')
    """
    return ", ".join(one.name for one in FORMATS.values() if option in one.options)


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
