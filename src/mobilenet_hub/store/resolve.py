"""From any name of a module to its folder."""

import os
from pathlib import Path

from mobilenet_hub.catalog.published import find_module
from mobilenet_hub.errors import InvalidModuleError, ModuleUnavailableError, UnknownModuleError
from mobilenet_hub.host.files import exists, is_file, is_folder
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import CONFIG_FILE, read_module
from mobilenet_hub.store.cache import damage_of, entry_folder, tidy

STARTER = Path(__file__).resolve().parents[1] / "starter"


def resolve(handle: str | os.PathLike[str], *, fetch: bool = True) -> Path:
    """Return the module folder that a name stands for, fetching a published module where it is not here yet.

    Args:
        handle: a module folder's path, "starter", or any name of a published module; a folder of that name that holds a
            module comes first.
        fetch: whether to fetch a module that is not here; False: only look.

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
        return STARTER
    folder = Path(handle).expanduser()
    if is_file(folder / CONFIG_FILE):
        return folder
    if isinstance(handle, os.PathLike):
        raise _not_a_module(folder)
    try:
        module = find_module(handle)
    except UnknownModuleError:
        if exists(folder) or handle.startswith((".", "~", os.sep)):
            raise _not_a_module(folder) from None
        raise
    entry = entry_folder(module.handle)
    if damage_of(entry) is None:
        tidy(module.handle)
        return entry
    if not fetch:
        raise ModuleUnavailableError(f"{module.handle} is not on this machine: {entry} holds no module")
    from mobilenet_hub.store.pull import pull  # a module that is here needs none of what fetches

    return pull(handle)


def is_local(name: str) -> bool:
    """Tell whether a name stands for the starter or a folder of this machine, and not for a published module.

    Example:
        >>> is_local("starter"), is_local("mobilenet_v2_130_224/feature_vector")
        (True, False)
    """
    return name == "starter" or is_folder(name)


def open_module(name: str | os.PathLike[str], *, fetch: bool = True) -> Module:
    """Return a module with its weights, by any of its names.

    Raises:
        The errors of `resolve`, and
        InvalidModuleError: the folder is damaged; names the file and the tensor.

    Example:
        >>> open_module("starter").config.num_classes > 0
        True
    """
    return read_module(resolve(name, fetch=fetch))


def _not_a_module(path: Path) -> InvalidModuleError | ModuleUnavailableError:
    if exists(path):
        return InvalidModuleError(
            f"{path} is not a module folder: it has no {CONFIG_FILE}; `mobilenet convert {path} -o DIR` makes one of "
            "any supported file or folder"
        )
    return ModuleUnavailableError(f"{path} does not exist")
