"""The module folder: module.json, weights.safetensors and, where there is a classifier, labels.txt; in and out.

Every source of weights becomes one and every command takes one.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.architecture import MAX_IMAGE_SIZE, VARIANT_KEYS, Variant, is_image_size
from mobilenet_hub.errors import InputError, InvalidModuleError, OutputError
from mobilenet_hub.host.files import exists, is_folder, replacing_folder
from mobilenet_hub.host.ownership import MARK
from mobilenet_hub.host.stores import demand_local
from mobilenet_hub.images.fit import FITS
from mobilenet_hub.module import MODEL_FILE, Module, ModuleConfig, check_labels, check_weights

FORMAT = 1
_MAX_CLASSES = 1_000_000  # a forged number must not fill the memory with labels
CONFIG_FILE, WEIGHTS_FILE, LABELS_FILE = "module.json", "weights.safetensors", "labels.txt"
REPORT_FILE = "report.html"  # beside them where it was trained here
_ALWAYS = ("architecture", "depth_multiplier", "image_size", "num_classes")
_WHERE_KNOWN = ("model", "handle", "source", "license", "trained_on", "metrics", "fit")
_FOLDED = "batch_norm_folded"
# What a module folder of ours may hold, and what tells that a file is ours: any of these, or the module.json beside it.
_OUR_FILES: dict[str, tuple[bytes, ...]] = {
    CONFIG_FILE: (),
    WEIGHTS_FILE: (),
    LABELS_FILE: (),
    "model.tflite": (),
    "origin.json": (b'"handle"',),
    "metrics.json": (b'"facts"',),
    "photos.csv": (b"photo,sha1,split,label,predicted,score",),
    REPORT_FILE: (f"<!-- {MARK} -->".encode(), b'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta'),
    "README.md": (f"<!-- {MARK} -->".encode(), b"mobilenet classify photo.jpg --module THIS_FOLDER"),
}
_KEYS = ("format", *_ALWAYS, "labels", *_WHERE_KNOWN, *VARIANT_KEYS, _FOLDED)


def read_module(path: str | os.PathLike[str]) -> Module:
    """Read a module folder and check it: exactly the expected tensors, finite, of the right shapes.

    Returns:
        The module; its weights are float32 (float16 is widened).

    Raises:
        InvalidModuleError: the folder, a file in it or a tensor is missing, damaged or does not fit; names it.

    Example:
        >>> from mobilenet_hub.store import resolve
        >>> read_module(resolve("starter")).config.num_classes > 0
        True
    """
    folder = Path(path)
    config = read_config(folder)
    if config.model is not None:
        return Module(config, {}, folder, _read_model(folder / config.model))
    weights = _read_weights(folder / WEIGHTS_FILE)
    check_weights(config.network, weights, str(folder / WEIGHTS_FILE))
    return Module(config, weights, folder)


def read_config(path: str | os.PathLike[str]) -> ModuleConfig:
    """Read module.json and the labels of a module folder, without the weights.

    Raises:
        InvalidModuleError: a file is missing or damaged, or a value does not fit; names it.
    """
    folder = Path(path)
    file = folder / CONFIG_FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidModuleError(f"{folder} is not a module folder: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModuleError(f"{file} cannot be read as JSON: {error}") from None
    known = _known(data, file)
    return _config(data, known, _read_labels(folder, data), file)


def stated(config: ModuleConfig) -> str:
    """Return module.json as one text that stands alone, the labels in it: what an export carries with it.

    Example:
        >>> read_stated(stated(ModuleConfig("mobilenet_v1", 0.25, (128, 128), 2, ("a", "b"))), Path("x.onnx")).labels
        ('a', 'b')
    """
    labels = list(config.labels) if config.labels is not None else None
    return json.dumps({**_config_json(config), "labels": labels})


def read_stated(text: str | bytes, file: Path) -> ModuleConfig:
    """Read what `stated` wrote.

    Args:
        text: the text.
        file: where it stands, for errors.

    Raises:
        InvalidModuleError: it is no such text, or a value does not fit; names it.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModuleError(f"{file} carries a module description that is no JSON: {error}") from None
    known = _known(data, file)
    labels = data.get("labels")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
        raise InvalidModuleError(f"{file}: labels must be a list of texts")
    config = _config(data, known, None if labels is None else tuple(labels), file)
    check_labels(config)
    return config


def _known(data: Any, file: Path) -> dict[str, Any]:
    """Return what a module's description says that this version knows, each value checked."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InvalidModuleError(f"{file} is not a module description of format {FORMAT}")
    if missing := [key for key in _ALWAYS if key not in data]:
        raise InvalidModuleError(f"{file} lacks {', '.join(missing)}")
    known = {key: data[key] for key in (*_ALWAYS, *_WHERE_KNOWN, _FOLDED) if key in data}
    _check_values(known, file)
    known["image_size"] = tuple(known["image_size"])
    return known


def _config(data: dict[str, Any], known: dict[str, Any], labels: tuple[str, ...] | None, file: Path) -> ModuleConfig:
    extra = {key: value for key, value in data.items() if key not in _KEYS}
    try:
        config = ModuleConfig(**known, labels=labels, variant=Variant.of(data), extra=extra)
        _ = config.network
    except (InputError, OverflowError) as error:
        raise InvalidModuleError(f"{file}: {error}") from None
    return config


def write_module(path: str | os.PathLike[str], module: Module, *, overwrite: bool = False) -> Path:
    """Write a module folder whole or not at all: to a temporary name beside it, flushed to disk, then renamed.

    Args:
        path: the folder to make.
        module: what to write; its weights are checked first.
        overwrite: replace a module folder that is there already; never a folder of anything else.

    Returns:
        The folder's path.

    Raises:
        InvalidModuleError: the weights or the labels do not fit the configuration.
        OutputError: the folder exists, or cannot be written.

    Example:
        >>> from mobilenet_hub.store import resolve
        >>> module = read_module(resolve("starter"))
        >>> write_module("my-module", module)  # doctest: +SKIP
        PosixPath('my-module')
    """
    from safetensors import SafetensorError

    folder = Path(path).absolute()
    if module.config.model is None:
        check_weights(module.config.network, module.weights, "the module to be written")
    elif module.model is None:
        raise InvalidModuleError(f"the module to be written lacks its quantized file {module.config.model}")
    check_labels(module.config)
    check_place(folder, overwrite)
    try:
        with replacing_folder(folder, keep=lambda entry: not is_ours(entry)) as new:
            write_files(new, module)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder} cannot be written: {error}") from None
    return Path(path)


def weights_file(folder: Path) -> Path:
    """Return the file of a module folder that holds its weights: a quantized module's is the file that it keeps."""
    kept = folder / MODEL_FILE
    return kept if kept.is_file() and not (folder / WEIGHTS_FILE).is_file() else folder / WEIGHTS_FILE


def _read_model(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise InvalidModuleError(f"{file.parent} has no {file.name}, which its {CONFIG_FILE} names") from None
    except OSError as error:
        raise InvalidModuleError(f"{file} cannot be read: {error}") from None


def _read_weights(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(file)
    except FileNotFoundError:
        raise InvalidModuleError(f"{file.parent} has no {WEIGHTS_FILE}") from None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidModuleError(f"{file} is damaged or not a safetensors file: {error}") from None
    for name, array in arrays.items():
        if array.dtype not in (np.float32, np.float16):
            raise InvalidModuleError(f"{file}: {name} is {array.dtype}; only float32 and float16 are allowed")
    return {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}


def _read_labels(folder: Path, data: dict[str, Any]) -> tuple[str, ...] | None:
    name = data.get("labels")
    if name is None:
        return None
    if name != LABELS_FILE:
        raise InvalidModuleError(f'{folder / CONFIG_FILE}: labels must be "{LABELS_FILE}" or null, not {name!r}')
    try:
        text = (folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModuleError(f"{folder / name} cannot be read: {error}") from None
    lines = text.removesuffix("\n").split("\n") if text else []
    if len(lines) != data["num_classes"]:
        raise InvalidModuleError(f"{folder / name} has {len(lines)} lines for {data['num_classes']} classes")
    return tuple(lines)


def check_place(folder: Path, overwrite: bool) -> None:
    """Refuse to write over anything but an empty folder or, where that is asked for, another module folder.

    Raises:
        OutputError: something else is there, or in the module folder under a name that a module needs; or the path
            names no folder of its own (".", "..", "/"), which could not be replaced as a whole.
    """
    demand_local(folder, "a module folder")
    if folder.name in ("", ".."):
        raise OutputError(f"{folder} is not a new folder; name the one to make, such as {folder / 'my-module'}")
    if not exists(folder):
        return
    if not is_folder(folder):
        raise OutputError(f"{folder} is a file, not a folder")
    if any(folder.iterdir()):
        if not _is_config(folder / CONFIG_FILE):
            raise OutputError(f"{folder} holds something else than a module; choose another folder")
        if not overwrite:
            raise OutputError(f"{folder} exists; choose another folder, or replace it with overwrite=True")
        if theirs := [name for name in _OUR_FILES if exists(folder / name) and not is_ours(folder / name)]:
            raise OutputError(
                f"{folder / theirs[0]} was not written by this program, and the module needs that name; move it, or "
                "choose another folder"
            )


def is_ours(entry: Path) -> bool:
    """Tell whether a module folder's entry was written here; what was not is kept where the module is replaced."""
    if not entry.is_file() or entry.name not in _OUR_FILES:
        return False
    signs = _OUR_FILES[entry.name]
    if not signs:
        return _is_config(entry.with_name(CONFIG_FILE))
    try:
        content = entry.read_bytes()
    except OSError:
        return False
    return any(sign in content for sign in signs)


def _is_config(file: Path) -> bool:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and isinstance(data.get("format"), int) and "architecture" in data


def _check_values(known: dict[str, Any], file: Path) -> None:
    def count(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_CLASSES

    def number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")

    size = known["image_size"]
    rules = {
        "architecture": (lambda v: isinstance(v, str), "a name"),
        "depth_multiplier": (number, "a number above 0"),
        "image_size": (
            is_image_size,
            f"[height, width], each 1 to {MAX_IMAGE_SIZE} pixels",
        ),
        "num_classes": (count, f"0 or a number of classes, up to {_MAX_CLASSES}"),
        _FOLDED: (lambda v: isinstance(v, bool), "true or false"),
        "fit": (lambda v: v is None or v in FITS, f"one of {', '.join(FITS)}"),
        "model": (lambda v: v in (None, MODEL_FILE), f'"{MODEL_FILE}" or null'),
        "handle": (lambda v: v is None or isinstance(v, str), "a string"),
    }
    for key, (fits, wanted) in rules.items():
        if key in known and not fits(known[key]):
            raise InvalidModuleError(
                f"{file}: {key} must be {wanted}, not {size if key == 'image_size' else known[key]!r}"
            )


def _config_json(config: ModuleConfig) -> dict[str, Any]:
    data: dict[str, Any] = {"format": FORMAT}
    data.update({key: getattr(config, key) for key in _ALWAYS})
    data["image_size"] = list(config.image_size)
    data["labels"] = LABELS_FILE if config.labels is not None else None
    data.update({key: getattr(config, key) for key in _WHERE_KNOWN if getattr(config, key) is not None})
    data.update(config.variant.stated())
    if config.batch_norm_folded:
        data[_FOLDED] = True
    return {**config.extra, **data}


def write_files(folder: Path, module: Module) -> None:
    """Write a module's files into a folder that is being made."""
    from safetensors.numpy import save_file

    if module.model is not None and module.config.model is not None:
        (folder / module.config.model).write_bytes(module.model)
    else:
        names = module.config.network.variables
        save_file(
            {name: np.ascontiguousarray(module.weights[name], np.float32) for name in names}, folder / WEIGHTS_FILE
        )
    (folder / CONFIG_FILE).write_text(
        json.dumps(_config_json(module.config), indent=2, ensure_ascii=False) + "\n", "utf-8", "backslashreplace"
    )
    if module.config.labels is not None:
        (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in module.config.labels), "utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors makes its files for their owner alone
