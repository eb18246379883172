"""From any name of a module to its folder. Imports errors, catalog, weights and the files of store above it."""

import os
from pathlib import Path

from mobilenet_hub.errors import ModuleUnavailableError
from mobilenet_hub.store.cache import cache_folder
from mobilenet_hub.weights.module_folder import CONFIG_FILE, Module, read_module

STARTER = Path(__file__).resolve().parents[1] / "starter"


def resolve(name: str | os.PathLike[str]) -> Path:
    """Return the module folder that a name stands for, fetching a published module where it is not here yet.

    Args:
        name: a module folder's path, "starter", or any name of a published module.

    Raises:
        ModuleUnavailableError: the module is not on this machine and could not be fetched.

    Example:
        >>> resolve("starter").name
        'starter'
    """
    if str(name) == "starter":
        if not (STARTER / CONFIG_FILE).is_file():
            raise ModuleUnavailableError(f"this installation has no starter module: {STARTER} is missing; reinstall")
        return STARTER
    path = Path(name)
    if path.is_dir():
        return path
    handle = str(name).removeprefix("https://tfhub.dev/")
    entry = cache_folder() / handle
    if not (entry / CONFIG_FILE).is_file():
        raise ModuleUnavailableError(f"{name} is not in the cache: {entry} does not exist")
    return entry


def open_module(name: str | os.PathLike[str]) -> Module:
    """Return a module with its weights, by any of its names.

    Raises:
        ModuleUnavailableError: the module is not on this machine and could not be fetched.
        InvalidModuleError: its folder is damaged and cannot be repaired; names the file.

    Example:
        >>> open_module("starter").config.num_classes > 0
        True
    """
    return read_module(resolve(name))
