"""Keras's files: .keras, .weights.h5, and .h5 of weights or of a whole model.

Nothing of a file is run: configurations are read as text, arrays as numbers; there is no pickle in these formats. HDF5
links to other files and data sets that announce more than the file holds are refused.
"""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.architecture import BATCH_NORM_LEAVES, Variant, architecture
from mobilenet_hub.errors import MissingExtraError
from mobilenet_hub.module_folder import CONFIG_FILE as MODULE_FILE
from mobilenet_hub.weights.archive import zip_of
from mobilenet_hub.weights.exported import STATED, read_carried
from mobilenet_hub.weights.identify import Source, assumed_of_weights, to_source
from mobilenet_hub.weights.keras_graph import CONTAINERS
from mobilenet_hub.weights.keras_network import read_network
from mobilenet_hub.weights.keras_weights import Arrays
from mobilenet_hub.weights.reading import Unusable, as_float32, from_bfloat16, reading

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".keras", ".h5", ".hdf5")
EXTRA = "keras-files"
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_OWN = "mobilenet_hub>MobileNet"  # as Keras knows our network
_CONFIGS = ("model.json", _CONFIG, "architecture.json")  # beside a file of weights alone, where no name says whose
_MAX_CONFIG = 16 << 20
_MAX_UNZIPPED = 1 << 30
_MAX_DEPTH = 12
_MAX_GROUPS = 10_000
_NO_LAYERS = ("optimizer", "seed_generator", "loss_tracker", "metrics", "_metrics", "compile_metrics", "_loss_tracker")
_NUMBERED = re.compile(r"(conv2d|depthwise_conv2d|batch_normalization|dense)(?:_(\d+))?")
# mobilenet_7_5_224_tf.h5, mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5
_PUBLISHED_NAME = re.compile(
    r"mobilenet_(?:\d_\d|v2_weights_tf_dim_ordering_tf_kernels_\d\.\d+)_(\d+)(?:_tf)?(?:_no_top)?"
)


def read_keras_file(file: Path, size: tuple[int, int] | None = None) -> Source:
    """Read a MobileNet of keras.applications from any of Keras's files.

    Args:
        file: .keras, .weights.h5, .h5 or .hdf5. Beside weights alone, the model's to_json() says what they are.
        size: (height, width) that the caller gives, for files that do not say it.

    Raises:
        CorruptFileError: the file is damaged, or the model is no MobileNet; says which layer.
        MissingExtraError: h5py is not installed.
    """
    named = _PUBLISHED_NAME.fullmatch(file.name.removesuffix(file.suffix))
    size = size or ((int(named[1]), int(named[1])) if named else None)
    with reading(file, "a Keras file of a MobileNet"):
        try:
            if zipfile.is_zipfile(file) and (own := _read_own(file, size)):
                return own
            if zipfile.is_zipfile(file):
                config, layers = _read_zip(file)
            else:
                config, layers = _read_h5(file, file.stat().st_size, _config_beside(file))
        except (RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        assumed = assumed_of_weights("that of keras.applications") if config is None else ()
        return to_source(file, "Keras file", read_network(layers, config, size), assumed=assumed)


def _read_own(file: Path, size: tuple[int, int] | None) -> Source | None:
    """Read a file of our own `keras.mobilenet.MobileNet`, exported or saved by Keras; None where it is of another."""
    with file.open("rb") as stream, zip_of(stream, file) as archive:
        config = json.loads(_member(archive, file, _CONFIG))
        if not isinstance(config, dict) or config.get("registered_name") != _OWN:
            return None
        data = _member(archive, file, _WEIGHTS)
        stated = _member(archive, file, MODULE_FILE) if MODULE_FILE in archive.namelist() else None
    fields = config["config"]["network"]
    network = architecture(fields["name"], fields["depth_multiplier"], fields["num_classes"])
    network = replace(network, variant=Variant.of(fields))
    weights, left = {}, _Budget(len(data))
    with _opened(io.BytesIO(data)) as root:
        for at, unit in enumerate(network.units):
            place = f"layers/conv_batch_norm_{at}" if at else "layers/conv_batch_norm"
            weights[unit.kernel.name] = left.read(_inner(root, f"{place}/vars/0"))
            for number, variable in enumerate(unit.batch_norm):
                weights[variable.name] = left.read(_inner(root, f"{place}/batch_norm/vars/{number}"))
        places = [f"hidden_{at}" if at else "hidden" for at in range(len(network.hidden))] + ["classifier"]
        for place, layer in zip(places, network.dense, strict=False):
            weights |= {one.name: left.read(_inner(root, f"{place}/vars/{at}")) for at, one in enumerate(layer)}
    weights = {name: as_float32(array, name) for name, array in weights.items()}
    carried = read_carried({STATED: str(stated, "utf-8")}, file) if stated is not None else None
    return Source(file, "Keras file", weights, size, variant=network.variant, carried=carried)


def _member(archive: zipfile.ZipFile, file: Path, name: str) -> bytes:
    if archive.namelist().count(name) != 1:
        raise ValueError(f"it has {archive.namelist().count(name)} members called {name}")
    info = archive.getinfo(name)
    if info.file_size > min(_MAX_CONFIG if name == _CONFIG else _MAX_UNZIPPED, 32 * file.stat().st_size):
        raise ValueError(f"{name} announces {info.file_size} bytes")
    return archive.read(name)


def is_keras_config(file: Path) -> bool:
    """Tell whether a file is what a Keras model's to_json() says."""
    try:
        value = json.loads(file.read_text("utf-8")) if file.stat().st_size <= _MAX_CONFIG else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("class_name") in CONTAINERS and "config" in value


def _config_beside(file: Path) -> Any:
    """Return the model's configuration that lies beside its weights as JSON, None where there is none."""
    stem = file.name.partition(".")[0]
    for name in (f"{stem}.json", f"{stem.removesuffix('_weights')}.json", *_CONFIGS):
        if is_keras_config(file.with_name(name)):
            return json.loads(file.with_name(name).read_text("utf-8"))
    return None


def _read_zip(file: Path) -> tuple[Any, Mapping[str, Arrays]]:
    with file.open("rb") as stream, zip_of(stream, file) as archive:
        config = json.loads(_member(archive, file, _CONFIG))
        data = _member(archive, file, _WEIGHTS)
    _, layers = _read_h5(io.BytesIO(data), len(data), config)
    return config, layers


def _read_h5(file: Path | io.BytesIO, size: int, config: Any = None) -> tuple[Any, Mapping[str, Arrays]]:
    with _opened(file) as root:
        config = json.loads(root.attrs["model_config"]) if "model_config" in root.attrs else config
        left = _Budget(size)
        whole = root.get("model_weights", getlink=True) is not None
        group = _inner(root, "model_weights") if whole else root
        if "layer_names" in group.attrs:
            return config, _named_layers(group, left)
        return config, _numbered_layers(root, left) if config is None else dict(_described_layers(config, root, left))


def _opened(file: Path | io.BytesIO) -> "h5py.File":
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", EXTRA, "reading Keras files") from None
    return h5py.File(file, "r")


class _Budget:
    """How many bytes of arrays a file may still give: as many as it has."""

    def __init__(self, size: int):
        self._left = size

    def read(self, dataset: "h5py.Dataset") -> np.ndarray:
        self._left -= dataset.nbytes
        if self._left < 0 or dataset.is_virtual or dataset.external:
            raise ValueError(f"{dataset.name} announces {dataset.nbytes} bytes that the file does not have")
        array = np.asarray(dataset[()])
        if array.dtype.kind != "V":
            return array
        if array.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16":
            return from_bfloat16(array.view("<u2"))
        raise Unusable(f"{dataset.name} is stored as no number that HDF5 knows, as bfloat16 is; save it as float32")


def _inner(group: "h5py.Group", path: str) -> Any:
    """Return a member of a group by a path of hard links; other links may lead out of the file."""
    import h5py

    found: Any = group
    for part in path.split("/"):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} is missing or a link to elsewhere")
        found = found[part]
    return found


def _texts(value: Any) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else str(one) for one in value]


def _named_layers(group: "h5py.Group", budget: _Budget) -> Mapping[str, Arrays]:
    """Read the older format: lists of the layers' and their weights' names, in the model's order."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for layer in _texts(group.attrs["layer_names"]):
        stored = _inner(group, layer)
        for name in _texts(stored.attrs["weight_names"]):
            scope, _, leaf = name.partition(":")[0].rpartition("/")
            arrays = layers.setdefault(f"{layer}/{scope}".rstrip("/"), {})
            if leaf in arrays:
                raise ValueError(f"{name} occurs twice in {layer}")
            arrays[leaf] = budget.read(_inner(stored, name))
    return layers


def _described_layers(
    config: Any, group: "h5py.Group", budget: _Budget, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, Arrays]]:
    """Yield each layer of a model by its path: Keras 3 numbers a model's layers within their class, in order.

    Source: keras/src/saving/saving_lib.py, `_save_container_state`, and naming.py, `to_snake_case`.
    """
    if len(path) > _MAX_DEPTH:
        raise ValueError("its models nest too deep")
    inner = config["config"]
    counts: dict[str, int] = {}
    layers = inner.get("layers") if isinstance(inner, dict) else inner
    for layer in layers if isinstance(layers, list) else ():  # what is no list is refused with the configuration
        kind = _snake_case(layer["class_name"])
        number = counts[kind] = counts.get(kind, -1) + 1
        place = f"layers/{kind}_{number}" if number else f"layers/{kind}"
        name = layer.get("name") or layer["config"].get("name")
        if layer["class_name"] in CONTAINERS:
            yield from _described_layers(layer, _inner(group, place), budget, (*path, name))
        elif layer["class_name"] == "KerasLayer":  # tensorflow_hub's: variables in the order of its module
            stored = _inner(group, f"{place}/vars")
            arrays = {str(at): budget.read(_inner(stored, str(at))) for at in range(len(stored))}
            yield "/".join((*path, name)), arrays
        elif leaves := _leaves(layer):
            stored = _inner(group, f"{place}/vars")
            if "Quantized" in str(layer["config"].get("dtype")):
                raise Unusable(f"its layer {name} is quantized; save the model before it is")
            if len(stored) != len(leaves):
                raise ValueError(f"its layer {name} has {len(stored)} weights, not {', '.join(leaves)}")
            arrays = {leaf: budget.read(_inner(stored, str(at))) for at, leaf in enumerate(leaves)}
            yield "/".join((*path, name)), arrays


def _leaves(layer: dict[str, Any]) -> list[str]:
    """Return the names of a layer's weights, in Keras's order."""
    kind, config = layer["class_name"], layer["config"]
    if kind == "BatchNormalization":
        absent = {"gamma": config.get("scale", True), "beta": config.get("center", True)}
        return [leaf for leaf in BATCH_NORM_LEAVES if absent.get(leaf, True)]
    if kind == "Normalization" and config.get("mean") is None:
        return ["mean", "variance", "count"]
    if kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
        return ["kernel", *(["bias"] if config.get("use_bias", True) else [])]
    return []


def _snake_case(name: str) -> str:
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _numbered_layers(root: "h5py.Group", budget: _Budget) -> dict[str, Arrays]:
    """Read Keras 3's weights without a configuration: layers numbered within their class, weights within the layer."""
    found = sorted(_numbered(root, set()), key=lambda one: one[:3])
    models = {parent for parent, kind, _, _ in found if "conv2d" in kind}
    if len(models) != 1:
        raise Unusable(
            f"it has convolutions in {len(models)} models, and weights alone do not say how they connect; use "
            "the whole model's file"
        )
    layers: dict[str, Arrays] = {}
    for parent, kind, number, group in found:
        arrays = [budget.read(_inner(group, f"vars/{at}")) for at in range(len(_inner(group, "vars")))]
        leaves = BATCH_NORM_LEAVES if kind == "batch_normalization" else ("kernel", "bias")
        if len(arrays) > len(leaves):
            raise Unusable(f"its {kind}_{number} has {len(arrays)} weights, as of a quantized layer, not {len(leaves)}")
        layers[f"{parent}/{kind}_{number}"] = dict(zip(leaves, arrays, strict=kind == "batch_normalization"))
    return layers


def _numbered(group: "h5py.Group", seen: set[int]) -> Iterator[tuple[str, str, int, "h5py.Group"]]:
    import h5py

    for name in group:
        inner = _inner(group, name)
        if not isinstance(inner, h5py.Group):
            continue
        if (place := h5py.h5o.get_info(inner.id).addr) in seen or len(seen) > _MAX_GROUPS:
            raise ValueError(f"its group {inner.name} is in itself or in several places, or one of too many")
        seen.add(place)
        if (numbered := _NUMBERED.fullmatch(name)) and isinstance(inner.get("vars", getlink=True), h5py.HardLink):
            yield str(group.name), numbered[1], int(numbered[2] or 0), inner
        elif name == "vars" and len(inner):
            raise Unusable(
                f"it holds weights of {str(group.name).rpartition('/')[2] or 'the model itself'}, which no network of "
                "keras.applications has, and weights alone do not say where it stands; use the whole model's file"
            )
        elif name not in _NO_LAYERS:
            yield from _numbered(inner, seen)
