"""What a file is, from its first bytes: names are changed, and pointers and web pages saved in a file's place."""

import re
import zipfile
from pathlib import Path

from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.host.files import first_bytes
from mobilenet_hub.weights.archive import zip_of

KERAS, LITERT, GRAPH, JSON, ARCHIVE = "keras", "litert", "graph", "json", "archive"
ONNX, OPENVINO, OPENVINO_WEIGHTS, SAFETENSORS = "onnx", "openvino", "openvino weights", "safetensors"
_HEAD = 1024
_HDF5, _ZIP, _GZIP, _TAR = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x1f\x8b", b"ustar"
_TAR_AT = 257
_LFS = b"version https://git-lfs.github.com/spec/"
_WEB = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")
_LIST_OF_CHECKPOINTS = b"model_checkpoint_path:"
_OPENVINO = re.compile(rb"\s*(<\?xml[^>]*>)?\s*<net[\s>]")
_ONNX = re.compile(rb"\x08.(\x12|\x3a)", re.DOTALL)  # ir_version, then the producer's name or the graph
_SAFETENSORS = re.compile(rb".{5}\x00{3}\{", re.DOTALL)  # the length of the header, which is JSON
_PICKLE = re.compile(rb"\x80[\x02-\x05]")  # the protocol; PyTorch's files before version 1.6 are bare pickles
_KERAS_PARTS = {"config.json", "model.weights.h5"}
_GRAPH_STARTS = (b"\x0a",)  # a GraphDef begins with a node
_BY_SUFFIX = {
    ".keras": KERAS, ".h5": KERAS, ".hdf5": KERAS, ".pb": GRAPH, ".tflite": LITERT, ".lite": LITERT,
    ".onnx": ONNX, ".zip": ARCHIVE, ".tgz": ARCHIVE, ".tar": ARCHIVE, ".gz": ARCHIVE,
}  # fmt: skip

CONVERT_ITS_ORIGIN = (
    "convert what it was made from, e.g. the Keras file, SavedModel, frozen graph, LiteRT file or Hugging Face folder"
)
_NEVER_OPENED = (
    "it can run any program and is never opened; use the Hugging Face folder of a network of transformers (config.json "
    "and model.safetensors), or convert what the file was made from"
)
_OF_OTHERS = {  # what people have besides, by name: their first bytes are those of anything
    ".mlmodel": "a Core ML model", ".pt": "a PyTorch file", ".pth": "a PyTorch file", ".pkl": "a pickle",
    ".pt2": "a PyTorch file", ".mar": "an archive for TorchServe", ".ptl": "a PyTorch file",
    ".caffemodel": "a Caffe model", ".h": "a program's header", ".cc": "a program's source",
    ".cpp": "a program's source",
}  # fmt: skip


def kind_of(file: Path) -> str | None:  # noqa: PLR0911 (one for each kind)
    """Return what a file is: "keras", "litert", "graph" and so on, or None where it is nothing known.

    What the bytes do not say, the name may: so that a damaged file is told from a foreign one.

    Raises:
        InvalidModuleError: it is something that people have in a model's place; says what, and what to do.
    """
    head = refuse_stand_in(file)
    if head is None:
        return None
    if _OPENVINO.match(head):
        return OPENVINO
    if file.suffix.lower() == ".bin" and _OPENVINO.match(first_bytes(file.with_suffix(".xml"), _HEAD) or b""):
        return OPENVINO_WEIGHTS
    if head.startswith(_HDF5):
        return KERAS
    if head[4:8] == b"TFL3":
        return LITERT
    if head.startswith(_ZIP):
        return _kind_of_zip(file)
    if head.startswith(_GZIP) or head[_TAR_AT:].startswith(_TAR):
        return ARCHIVE
    _refuse_of_others(file)
    if _PICKLE.match(head):
        raise InvalidModuleError(f"{file} is a pickle, as PyTorch writes: {_NEVER_OPENED}")
    if _SAFETENSORS.match(head):
        return SAFETENSORS
    by_name = _BY_SUFFIX.get(file.suffix.lower())
    if by_name is None and _ONNX.match(head):
        return ONNX
    if by_name is None and head.lstrip()[:1] == b"{":
        return JSON
    if by_name is None and head.startswith(_GRAPH_STARTS) and file.suffix.lower() in ("", ".model", ".bin", ".graph"):
        return GRAPH
    return by_name


def refuse_stand_in(file: Path) -> bytes | None:
    """Refuse what people have in a file's place without knowing.

    Returns:
        The file's first bytes, None where it cannot be read.

    Raises:
        InvalidModuleError: it is a Git LFS pointer, a web page, or a list of checkpoints.
    """
    head = first_bytes(file, _HEAD)
    if head is None:
        return None
    if head.startswith(_LFS):
        raise InvalidModuleError(
            f"{file} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull` in its repository, or "
            "download it from the repository's page"
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB) and not _OPENVINO.match(head):
        raise InvalidModuleError(
            f"{file} is a web page, saved in the place of the file: download the file itself (on GitHub: Raw)"
        )
    if head.startswith(_LIST_OF_CHECKPOINTS):
        raise InvalidModuleError(
            f"{file} only says which checkpoint beside it is the newest: give the folder, {file.parent}, or the "
            "checkpoint's name without .index"
        )
    return head


def _refuse_of_others(file: Path) -> None:
    if what := _OF_OTHERS.get(file.suffix.lower()):
        raise InvalidModuleError(f"{file} is {what}, which is not read: {CONVERT_ITS_ORIGIN}")


def _kind_of_zip(file: Path) -> str:
    try:
        with file.open("rb") as stream, zip_of(stream, file) as archive:
            names = set(archive.namelist()[:2000])
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return _BY_SUFFIX.get(file.suffix.lower(), ARCHIVE)
    if names >= _KERAS_PARTS:
        return KERAS
    if any(name.endswith("/data.pkl") for name in names):
        raise InvalidModuleError(f"{file} is a PyTorch file with a pickle inside: {_NEVER_OPENED}")
    _refuse_of_others(file)
    return ARCHIVE
