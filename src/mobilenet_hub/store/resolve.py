"""From any name of a module to its folder."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.catalog.published import Kind
from mobilenet_hub.errors import InputError, InvalidModuleError, ModuleUnavailableError, UnknownModuleError
from mobilenet_hub.host.files import FILE_ADDRESS, exists, is_file, is_folder, local_path, sha256_of
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import CONFIG_FILE, read_module, weights_file
from mobilenet_hub.store.address import own_address
from mobilenet_hub.store.cache import damage_of, entry_folder, tidy
from mobilenet_hub.store.places import module_named_by

_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_PUBLISHED_FILES = ("saved_model.pb", "tfhub_module.pb")
_NEAR = 3  # names that an error proposes at most
STARTER = Path(__file__).resolve().parents[1] / "starter"


def resolve(handle: str | os.PathLike[str], *, fetch: bool = True, kind: Kind | None = None) -> Path:
    """Return the module folder that a name stands for, fetching a published module where it is not here yet.

    Args:
        handle: a module folder's path, "starter", any name of a published module, or the http address of one of
            somebody's own; a folder of that name that holds a module comes first.
        fetch: whether to fetch a module that is not here; False: only look.
        kind: which of a network's two modules is meant by the network's name alone, "mobilenet_v2_130_224".

    Raises:
        UnknownModuleError: it is neither a folder nor a module that was ever published.
        InvalidModuleError: it is a folder without a module, or a cached module is damaged and cannot be repaired.
        OfflineError: the module is not here, and MOBILENET_HUB_OFFLINE=1 forbids to fetch it; says what to put where.
        DownloadError: no source could deliver it; says why.

    Example:
        >>> resolve("starter").name
        'starter'
    """
    if handle == "starter":
        if not (STARTER / CONFIG_FILE).is_file():
            raise ModuleUnavailableError(f"this installation has no starter module: {STARTER} is missing; reinstall")
        return _ModuleFolder(STARTER)
    folder = local_path(handle)
    if is_file(folder / CONFIG_FILE) or _holds_another_format(folder):
        return _ModuleFolder(folder)
    if isinstance(handle, os.PathLike) or handle.startswith(FILE_ADDRESS):
        raise _not_a_module(folder)
    try:
        address = own_address(handle)
        cached_as = address.handle if address else find_module(handle, kind).handle
    except UnknownModuleError:
        if exists(folder) or handle.startswith((".", "~", os.sep)):
            raise _not_a_module(folder) from None
        if near := _near_folders(folder):
            raise UnknownModuleError(
                f"no folder {handle} here, and no published module of that name; did you mean {near}?"
            ) from None
        raise
    entry = entry_folder(cached_as)
    if damage_of(entry) is None:
        tidy(cached_as)
        return _ModuleFolder(entry)
    if not fetch:
        raise ModuleUnavailableError(f"{cached_as} is not on this machine: {entry} holds no module")
    from mobilenet_hub.store.pull import pull  # a module that is here needs none of what fetches

    return _ModuleFolder(pull(address.url if address else cached_as))


class _ModuleFolder(type(Path())):
    """A path that old code may treat as the string that tensorflow_hub gave: `hub.resolve(handle) + "/assets"`."""

    def __add__(self, other: str) -> str:
        return str(self) + other

    def __getattr__(self, name: str) -> Any:
        """Return a string's method that no path has, as `split` or `endswith`."""
        if name.startswith("_") or not hasattr(str, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        return getattr(str(self), name)


def _holds_another_format(path: Path) -> bool:
    """Tell whether a folder or archive may hold a module in the format that it was published in."""
    if is_file(path):
        return path.name.lower().endswith(_ARCHIVES)
    return is_folder(path) and any(is_file(path / name) for name in _PUBLISHED_FILES)


def is_local(name: str) -> bool:
    """Tell whether a name stands for the starter or a folder of this machine, and not for a published module.

    Example:
        >>> is_local("starter"), is_local("mobilenet_v2_130_224/feature_vector")
        (True, False)
    """
    return name == "starter" or name.startswith(FILE_ADDRESS) or is_folder(name) or _holds_another_format(Path(name))


def is_name_of_module(name: str) -> bool:
    """Tell whether a name stands for a module: a published one, or a folder or archive that holds one.

    Example:
        >>> is_name_of_module("mobilenet_v2_130_224/feature_vector"), is_name_of_module(".")
        (True, False)
    """
    try:
        with suppress(ModuleUnavailableError):  # published, and not on this machine
            resolve(name, fetch=False, kind="classification")
    except (UnknownModuleError, InvalidModuleError):
        return False
    return True


def open_module(
    name: str | os.PathLike[str],
    *,
    fetch: bool = True,
    usual_size: int | tuple[int, int] | None = None,
    kind: Kind | None = None,
) -> Module:
    """Return a module with its weights, by any of its names.

    A folder or archive that holds it in the format it was published in is read into memory; nothing is written. The
    arguments are those of `locate`.

    Raises:
        The errors of `resolve`, and
        InvalidModuleError: the folder is damaged; names the file and the tensor.

    Example:
        >>> open_module("starter").config.num_classes > 0
        True
    """
    found = locate(name, fetch=fetch, usual_size=usual_size, kind=kind)
    return found if isinstance(found, Module) else read_module(found)


def locate(
    name: str | os.PathLike[str],
    *,
    fetch: bool = True,
    usual_size: int | tuple[int, int] | None = None,
    kind: Kind | None = None,
) -> Path | Module:
    """Return the module folder of a name, or the module itself where it is in the format that it was published in.

    Args:
        name: any name of a module, or a folder or archive of it; file:// addresses too.
        fetch: as for `resolve`.
        usual_size: what to say of a file that does not tell its image size, for callers to whom any will do; the
            module's `extra` has "image_size_unknown" then.
        kind: as for `resolve`.

    Raises:
        The errors of `resolve` and of `load_source`.

    Example:
        >>> locate("starter").name
        'starter'
    """
    path = resolve(name, fetch=fetch, kind=kind)
    if is_file(path / CONFIG_FILE):
        return path
    from mobilenet_hub.weights.convert import load_source

    published = module_named_by(path)
    try:
        module = load_source(path)
    except InputError as error:
        if published is None and usual_size is None:
            raise InputError(
                f"{error}; `mobilenet convert {path} --image-size S -o DIR` makes a module folder that says it"
            ) from None
        module = load_source(path, image_size=published.image_size if published else usual_size)
        if published is None:
            unknown = {**module.config.extra, "image_size_unknown": True}
            module = replace(module, config=replace(module.config, extra=unknown))
    config = module.config
    if published and (config.architecture, config.depth_multiplier, config.image_size, config.num_classes) == (
        published.architecture,
        published.depth_multiplier,
        published.image_size,
        published.num_classes,
    ):
        config = replace(config, handle=published.handle)
    return replace(module, config=config)


def weights_sha256(found: Path | Module) -> str:
    """Return the SHA-256 of the weights file of what `locate` found: of one in memory, that which it would have.

    Example:
        >>> len(weights_sha256(locate("starter")))
        64
    """
    if isinstance(found, Path):
        return sha256_of(weights_file(found))
    import hashlib

    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(found.weights[name], np.float32) for name in found.config.network.variables}
    return hashlib.sha256(save(weights)).hexdigest()


def _not_a_module(path: Path) -> InvalidModuleError | ModuleUnavailableError:
    if exists(path):
        if inner := _modules_in(path):
            return InvalidModuleError(f"{path} is not a module folder, but holds such; did you mean {inner}?")
        return InvalidModuleError(
            f"{path} is not a module folder: it has no {CONFIG_FILE}; `mobilenet convert {path} -o DIR` makes one of "
            "any supported file or folder"
        )
    near = _near_folders(path)
    return ModuleUnavailableError(f"{path} does not exist" + (f"; did you mean {near}?" if near else ""))


def _modules_in(path: Path) -> str:
    """Return the module folders in a folder, as Kaggle keeps one for each version; "" where there is none."""
    try:
        there = [one for one in sorted(path.iterdir()) if is_file(one / CONFIG_FILE) or _holds_another_format(one)]
    except OSError:
        return ""
    return " or ".join(map(str, there[:_NEAR]))


def _near_folders(path: Path) -> str:
    """Return the module folders beside it whose names are like it, as one types them; "" where there is none."""
    from difflib import get_close_matches

    try:
        there = {folder.name: folder for folder in path.parent.iterdir() if is_file(folder / CONFIG_FILE)}
    except OSError:
        return ""
    near = [there[name] for name in get_close_matches(path.name, there, n=_NEAR, cutoff=0.7)]
    return " or ".join(f"{'' if folder.is_absolute() else './'}{folder}" for folder in near)
