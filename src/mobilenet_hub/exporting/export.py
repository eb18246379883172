"""Modules in the formats that their users run, each run again by its own runtime and compared before it is kept.

Read the files in this order: formats, request, output, proof, then one file for each format, publish last.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from mobilenet_hub.exporting.formats import Free, Precision
from mobilenet_hub.exporting.output import PROOF_FILE, find_place, finished_at, size_of
from mobilenet_hub.exporting.proof import Proof, prove
from mobilenet_hub.exporting.request import Options, make_request
from mobilenet_hub.host.environment import set_variable

if TYPE_CHECKING:
    from mobilenet_hub.exporting.request import Exportable


def export(
    module: "Exportable",
    format: str,
    output: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] | Free | None = None,
    batch_size: int | Free | None = None,
    uint8_input: bool = False,
    outputs: str | Sequence[str] | None = None,
    opset: int | None = None,
    precision: Precision | None = None,
    calibration: str | os.PathLike[str] | None = None,
    any_size: bool = False,
    handle: str | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> Proof:
    """Write a module in another format, run it there, and keep it only if it gives what the module gives.

    Args:
        module: any name of a module; or one in memory with its weights as they are now: what `hub.load` gave, a
            `hub.KerasLayer` (fine-tuned, say), a `Module` that a reader gave.
        format: "tf-hub" (TF2 SavedModel), "onnx", "openvino", "litert", "keras", "safetensors" (module folder), or
            "site" (a static site that tensorflow_hub and `mobilenet pull` fetch from).
        output: a name with the format's ending (.onnx, .xml, .tflite, .keras) is that file; any other is a folder.
        image_size: a side, (height, width) or "free"; None: free for tf-hub and keras where the module allows it,
            otherwise the size that the module was trained at.
        batch_size: a number of images or "free"; None: 1 for litert, else free.
        uint8_input: take decoded pixels, 0 to 255, instead of float32 in [0, 1] (onnx, openvino, litert).
        outputs: "logits", "probabilities", "features", slim's endpoints, or several; None: logits, or features where
            there are no classes.
        opset: ONNX's, 13 to 26; None: 17.
        precision: litert's arithmetic: "float32", "float16", "dynamic" or "int8"; None: "float32".
        calibration: a folder of photos, for int8.
        any_size: allow an image size that the published module does not.
        handle: the name to publish under, for "site"; None: the module's own.
        overwrite: replace an export that is there already; and keep one that gives mostly other top classes than the
            module, which a precision of few bits may do.
        force: the same, as it was called before.

    Returns:
        What was found when the export was run, with warnings where an answer changed; also written beside it, as
        <file>.proof.json or into the folder.

    Raises:
        InputError: an option that does not fit the format or the module; a name with another format's ending.
        MissingExtraError: a package is not installed; the text has the install line.
        OutputError: the output exists and `overwrite` is not set, or cannot be written.
        ProofError: the export does not give what the module gives; nothing was kept.

    Example:
        >>> export("starter", "onnx", "starter.onnx").difference < 1e-4  # doctest: +SKIP
        True
    """
    options = Options(image_size, batch_size, uint8_input, outputs, opset, precision, calibration, any_size, handle)
    request = make_request(module, format, options)
    set_variable("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: it reports every missing GPU
    writer = import_module(f"mobilenet_hub.exporting.{request.format.writer}")
    if request.format.in_site:
        return writer.publish(request, output, overwrite=overwrite or force)
    place = find_place(output, request.format.suffix, overwrite=overwrite or force)
    with finished_at(place) as work:
        path = work / place.main if place.main else work
        writer.write(request, path)
        loaded = writer.load(request, path)
        proof = prove(request, loaded, place.path, size_of(work), any_agreement=overwrite or force)
        proof.write(work / PROOF_FILE)
    return proof
