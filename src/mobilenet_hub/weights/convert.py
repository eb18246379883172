"""Any supported file or folder into a module.

`load_source` finds out what a path is by what is there: a module folder, a TF1 hub module, a TF2 SavedModel, a TF-Slim
checkpoint, a frozen graph, a peer's file, or an archive or folder of one of them. docs/formats.md has the list.
"""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.errors import InputError, InvalidModuleError, MobileNetHubError
from mobilenet_hub.host.files import FILE_ADDRESS, exists, is_file, is_folder, local_path
from mobilenet_hub.host.stores import demand_local
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import CONFIG_FILE, WEIGHTS_FILE, read_module, write_module
from mobilenet_hub.weights.archive import unpack
from mobilenet_hub.weights.exported import from_export, with_knowledge
from mobilenet_hub.weights.hugging_face import CONFIG_FILE as HF_CONFIG
from mobilenet_hub.weights.hugging_face import (
    PICKLE_FILE,
    is_hugging_face,
    read_hugging_face,
    refuse_weights_alone,
)
from mobilenet_hub.weights.hugging_face import WEIGHTS_FILE as HF_WEIGHTS
from mobilenet_hub.weights.identify import ASSUMED, Source, Wanted, to_module, without_assumed
from mobilenet_hub.weights.keras_file import is_keras_config, read_keras_file
from mobilenet_hub.weights.kinds import (
    ARCHIVE,
    GRAPH,
    JSON,
    KERAS,
    LITERT,
    ONNX,
    OPENVINO,
    OPENVINO_WEIGHTS,
    SAFETENSORS,
    kind_of,
)
from mobilenet_hub.weights.labels import labels_beside
from mobilenet_hub.weights.litert import read_litert
from mobilenet_hub.weights.onnx_file import read_onnx
from mobilenet_hub.weights.openvino_file import read_openvino
from mobilenet_hub.weights.pixels import with_pixels
from mobilenet_hub.weights.tensorflow.checkpoint import read_checkpoint
from mobilenet_hub.weights.tensorflow.frozen_graph import read_frozen_graph
from mobilenet_hub.weights.tensorflow.saved_model import HUB1_FILE, MODEL_FILE, VARIABLES_FILE, read_saved_model
from mobilenet_hub.weights.tensorflow.tensor_bundle import find_prefix
from mobilenet_hub.weights.tfjs import MODEL_FILE as TFJS_FILE
from mobilenet_hub.weights.tfjs import is_tfjs, read_tfjs

_HF_FILES = (HF_CONFIG, HF_WEIGHTS, PICKLE_FILE)  # each stands for its folder
# Which of a folder's files is meant, where it has several forms of one network.
_ORDER = (GRAPH, KERAS, LITERT, ONNX, OPENVINO, SAFETENSORS)
_ARCHIVE_SUFFIX = re.compile(r"\.(tgz|tar|tar\.gz|zip)$", re.IGNORECASE)
_EDGE_TPU = "_edgetpu."  # compiled from the file beside it
_TFJS_WEIGHTS = ".bin"  # a TensorFlow.js model's, beside its model.json
_NOT_THEIRS = ("__MACOSX", ".")  # what macOS adds to archives
_MAX_NESTING = 3  # folders that hold nothing but a folder, around the one with the files
FORMATS = (
    "a module folder, a TF-Slim checkpoint (prefix, folder or .tgz), a frozen graph (.pb), a TF1 hub module, a TF2 "
    "SavedModel, a Keras file (.keras, .h5), a TensorFlow.js model (model.json), a Hugging Face folder, a "
    "LiteRT file (.tflite), an ONNX or OpenVINO file that mobilenet-hub exported (.onnx, .xml), or a zip or tar "
    "archive of one of them"
)


def load_source(
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    depth_multiplier: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    handle: str | None = None,
    pixels: str | None = None,
) -> Module:
    """Read a MobileNet from any supported file, folder or archive; what it is, is found out.

    Args:
        path: the file, folder, archive, or prefix of a checkpoint.
        architecture: "mobilenet_v1" or "mobilenet_v2", to demand one; otherwise the tensors say it.
        depth_multiplier: to demand or record one; otherwise the tensors say it.
        image_size: side or (height, width) in pixels that the network was trained at, for files that do not say it.
        num_classes: to demand a number; 0 leaves the classifier out.
        handle: the published module that the file is said to be; gives all of the above, which are then demanded.
        pixels: what the model was trained on, for files that do not say it: pixels x of 0 to 255 as "x/127.5-1" (taken
            where nothing is said), "x/255" or "x".

    Returns:
        The module, its weights float32 by TF-Slim name, exactly those of its architecture. Labels are the file's own,
        or those of ImageNet where there are 1001 classes.

    Raises:
        InputError: the path is none of the formats, or does not say the image size.
        CorruptFileError: a file is damaged, cut off, or not of its format; names it and the tensor.
        InvalidModuleError: the tensors are not exactly one MobileNet, or not the one asked for.
        UnknownModuleError: no module of that handle was published.

    Example:
        >>> load_source("mobilenet_v1_0.25_128.tgz").config.image_size  # doctest: +SKIP
        (128, 128)
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    wanted = Wanted(architecture, depth_multiplier, size, num_classes, handle, pixels)
    if handle is not None:
        wanted = _of_handle(handle, wanted)
    demand_local(path, "a file or folder of weights")
    source = local_path(path) if os.fspath(path).startswith(FILE_ADDRESS) else Path(path)
    if _is_archive(source):
        return _load_archive(source, wanted)
    return _load(source, wanted)


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    depth_multiplier: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    handle: str | None = None,
    pixels: str | None = None,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Turn any supported file, folder or archive into a module folder.

    Args:
        source: see `load_source`.
        output: the folder to make.
        architecture: see `load_source`.
        depth_multiplier: see `load_source`.
        image_size: see `load_source`.
        num_classes: see `load_source`.
        handle: see `load_source`.
        pixels: see `load_source`.
        labels: one for each class, in place of those that the file has.
        overwrite: replace a module folder that is there already.

    Returns:
        The module folder's path.

    Raises:
        MobileNetHubError: what `load_source` raises; OutputError where the folder exists or cannot be written.

    Example:
        >>> convert("mobilenet_v1_0.25_128.tgz", "my-module")  # doctest: +SKIP
        PosixPath('my-module')
    """
    module = load_source(
        source,
        architecture=architecture,
        depth_multiplier=depth_multiplier,
        image_size=image_size,
        num_classes=num_classes,
        handle=handle,
        pixels=pixels,
    )
    if labels is not None:
        if len(labels) != module.config.num_classes:
            raise InputError(f"{len(labels)} labels were given for {module.config.num_classes} classes")
        module = replace(module, config=replace(module.config, labels=tuple(labels)))
    return write_module(output, module, overwrite=overwrite)


def _of_handle(handle: str, wanted: Wanted) -> Wanted:
    published = find_module(handle)
    implied = Wanted(
        published.architecture,
        published.depth_multiplier,
        published.image_size,
        published.num_classes,
        published.handle,
        wanted.pixels,
    )
    for key, value in vars(implied).items():
        given = getattr(wanted, key)
        if key != "handle" and given not in (None, value):
            raise InputError(f"{key} {given} was given, but {published.handle} has {value}")
    return implied


def _is_archive(path: Path) -> bool:
    return is_file(path) and kind_of(path) == ARCHIVE


def _load_archive(archive: Path, wanted: Wanted) -> Module:
    with tempfile.TemporaryDirectory(prefix="mobilenet-hub-") as scratch:
        # The archive's name may say what the network is, so the folder keeps it.
        folder = Path(scratch) / _ARCHIVE_SUFFIX.sub("", archive.name)
        unpack(archive, folder)
        try:
            module = _load(folder, wanted)
        except MobileNetHubError as error:
            if str(folder) not in str(error):
                raise
            raise type(error)(str(error).replace(str(folder), str(archive))) from None
    origin = {**module.config.source, "archive": archive.name} if isinstance(module.config.source, dict) else None
    return replace(module, config=replace(module.config, source=origin), path=None)


def _load(path: Path, wanted: Wanted) -> Module:
    found = _as_module_folder(path)
    if found is not None:
        return _adjusted(read_module(found), wanted)
    source = _read(path, wanted.image_size)
    if source.carried is not None:
        return from_export(source, source.carried, wanted)
    module = to_module(source, wanted)
    if source.labels is None and module.config.num_classes:
        found = labels_beside(source.path, module.config.num_classes)
        module = replace(module, config=replace(module.config, labels=found or module.config.labels))
    return module


def _as_module_folder(path: Path) -> Path | None:
    folder = path.parent if path.name in (CONFIG_FILE, WEIGHTS_FILE) else path
    return folder if is_file(folder / CONFIG_FILE) else None


def _adjusted(module: Module, wanted: Wanted) -> Module:
    """Demand what is wanted of a module folder; the classifier may be left out, the handle set anew."""
    config = module.config
    if config.model is not None:
        return _kept(module, wanted)
    extra, assumed = without_assumed(config.extra)
    source = Source(
        module.path or Path(),
        "module folder",
        module.weights,
        config.image_size,
        config.labels,
        config.variant,
        config.batch_norm_folded,
        extra,
        assumed=assumed,
        module=True,
    )
    adjusted = to_module(source, replace(wanted, depth_multiplier=wanted.depth_multiplier or config.depth_multiplier))
    return replace(with_knowledge(adjusted, config, wanted), path=module.path)


def _kept(module: Module, wanted: Wanted) -> Module:
    """Demand what is wanted of a module that keeps a quantized file."""
    config = module.config
    for key in ("architecture", "depth_multiplier", "image_size", "num_classes"):
        if getattr(wanted, key) not in (None, getattr(config, key)):
            raise InvalidModuleError(f"{module.path} has {key} {getattr(config, key)}, not {getattr(wanted, key)}")
    extra, assumed = without_assumed(config.extra)
    variant, assumed = with_pixels(config.variant, assumed, wanted.pixels, module.path)
    extra |= {ASSUMED: list(assumed)} if assumed else {}
    config = replace(config, handle=wanted.handle or config.handle, variant=variant, extra=extra)
    return replace(module, config=config)


def _read(path: Path, size: tuple[int, int] | None) -> Source:
    if is_folder(path):
        return _read_folder(path, size)
    if is_file(path) and (source := _read_file(path, size)):
        return source
    for prefix in (path, path.with_suffix("")):
        if is_file(prefix.with_name(f"{prefix.name}.index")):
            return read_checkpoint(prefix)
    if not exists(path):
        raise InputError(f"{path} does not exist, or one may not look there")
    raise InputError(f"{path} is none of the files that can be converted: {FORMATS}")


def _read_file(file: Path, size: tuple[int, int] | None) -> Source | None:  # noqa: PLR0911 (one for each kind)
    """Read a file that by its content, or its name, is one that can be read; None where it is not."""
    if file.name == MODEL_FILE:
        return read_saved_model(file.parent, size)
    if file.name in _HF_FILES and not is_keras_config(file):
        return read_hugging_face(file.parent)
    kind = kind_of(file)
    if kind is None and file.suffix == _TFJS_WEIGHTS and is_tfjs(file.with_name(TFJS_FILE)):
        file, kind = file.with_name(TFJS_FILE), JSON
    if kind == JSON and is_keras_config(file) and kind_of(weights := _only_file(file.parent) or file) == KERAS:
        file, kind = weights, KERAS
    if kind == JSON and (file.name == TFJS_FILE or is_tfjs(file)):
        return read_tfjs(file, size)
    if kind == KERAS:
        return read_keras_file(file, size)
    if kind == SAFETENSORS:
        refuse_weights_alone(file)
    if kind in (OPENVINO, OPENVINO_WEIGHTS):
        return read_openvino(file.with_suffix(".xml"))
    if kind in (LITERT, ONNX):
        return read_litert(file, size) if kind == LITERT else read_onnx(file)
    return read_frozen_graph(file, size) if kind == GRAPH else None


def _read_folder(folder: Path, size: tuple[int, int] | None) -> Source:
    """Read what a folder holds; TF-Slim's have several forms of one network, of which the checkpoint is the first."""
    for _ in range(_MAX_NESTING):
        if (folder / MODEL_FILE).is_file():
            return read_saved_model(folder, size)
        if prefix := find_prefix(folder):
            return read_checkpoint(prefix)
        if is_file(folder / VARIABLES_FILE) or is_file(folder / HUB1_FILE):
            raise InvalidModuleError(f"{folder / MODEL_FILE} is missing, and the files beside it belong to one")
        if (folder / TFJS_FILE).is_file() and not is_keras_config(folder / TFJS_FILE):
            return read_tfjs(folder / TFJS_FILE, size)
        if is_hugging_face(folder):
            return read_hugging_face(folder)
        if file := _only_file(folder):
            return _read(file, size)
        inner = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(_NOT_THEIRS)]
        if len(inner) != 1:
            break
        folder = inner[0]
    raise InputError(f"{folder} holds nothing that can be converted: {FORMATS}")


def _only_file(folder: Path) -> Path | None:
    """Return the file of a folder that holds a network; TF-Slim's archives hold a quantized one beside it."""
    kinds: dict[str | None, list[Path]] = {}
    refused: InvalidModuleError | None = None
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            try:
                kinds.setdefault(kind_of(file), []).append(file)
            except InvalidModuleError as error:  # a web page, say: it matters where there is nothing else
                refused = refused or error
    for kind in _ORDER:
        files = kinds.get(kind, [])
        files = [file for file in files if _EDGE_TPU not in file.name] or files
        float_files = [file for file in files if "quant" not in file.name.replace("unquant", "")] or files
        if len(float_files) > 1:
            names = ", ".join(file.name for file in float_files)
            raise InvalidModuleError(f"{folder} holds several files that could be meant: {names}; name one")
        if float_files:
            return float_files[0]
    if refused is not None:
        raise refused
    return None
