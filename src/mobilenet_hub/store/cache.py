"""The folder of this machine that keeps fetched modules: where it is, what is in it, whether it is sound.

An entry is a module folder under the module's handle, google/imagenet/mobilenet_v2_130_224/feature_vector/4 say, with
origin.json beside its files: where they came from, when, and the SHA-256 of each. A plain module folder put there by
hand is an entry too. Work in progress lies in .incoming.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobilenet_hub.errors import DownloadError, InvalidModuleError, OutputError
from mobilenet_hub.host.environment import setting
from mobilenet_hub.host.files import carry_over, is_file, sha256_of, swap_folder
from mobilenet_hub.host.locks import is_locked, locked
from mobilenet_hub.module_folder import CONFIG_FILE, LABELS_FILE, WEIGHTS_FILE, is_ours, read_module

ORIGIN_FILE = "origin.json"
_INCOMING = ".incoming"
_LOCK_SUFFIX = ".lock"
_BRIEFLY_S = 0.5


@dataclass(frozen=True)
class Origin:
    """Where an entry came from, as origin.json keeps it."""

    handle: str
    source: str  # one of sources.SOURCES
    url: str  # the address that answered in the end, or the path of what was read
    date: str  # ISO 8601, UTC
    archive: dict[str, Any] | None  # {"bytes": ..., "sha256": ...} of what was downloaded; None where nothing was
    files: dict[str, dict[str, Any]]  # by name: {"bytes": ..., "sha256": ...}


@dataclass(frozen=True)
class Entry:
    """One module of the cache."""

    handle: str
    path: Path

    @property
    def size(self) -> int:
        """Its bytes on disk."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())

    @property
    def origin(self) -> Origin | None:
        """Where it came from; None where it was put there by hand.

        Raises:
            InvalidModuleError: origin.json is damaged.
        """
        return read_origin(self.path)


def cache_folder() -> Path:
    """Return the cache's folder: MOBILENET_HUB_CACHE, or the platform's place for caches.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    if chosen := setting("MOBILENET_HUB_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(setting("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(setting("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mobilenet-hub"


def entry_folder(handle: str) -> Path:
    """Return the folder of a handle's entry, which need not exist.

    Example:
        >>> entry_folder("google/tf2-preview/mobilenet_v2/classification/4").name
        '4'
    """
    return cache_folder().joinpath(*handle.split("/"))


def work_folder(handle: str) -> Path:
    """Return the folder that a pull of a handle works in; its lock lies beside it."""
    return cache_folder() / _INCOMING / handle.replace("/", "--")


def lock_file(handle: str) -> Path:
    """Return the file whose lock a change of a handle's entry holds."""
    work = work_folder(handle)
    return work.with_name(work.name + _LOCK_SUFFIX)


def is_cached(handle: str) -> bool:
    """Tell whether the cache has an entry for a handle, without checking it.

    Example:
        >>> is_cached("google/tf2-preview/mobilenet_v2/classification/4")
        False
    """
    return is_file(entry_folder(handle) / CONFIG_FILE)


def entries() -> Iterator[Entry]:
    """Yield the cache's entries by handle.

    Example:
        >>> list(entries())
        []
    """
    root = cache_folder()
    for config in sorted(root.rglob(CONFIG_FILE)):
        parts = config.relative_to(root).parts[:-1]
        if parts and not any(part.startswith(".") for part in parts):
            yield Entry("/".join(parts), config.parent)


def check(folder: Path) -> None:
    """Hold a module folder of the cache against its record or, where it has none, read it whole.

    Raises:
        InvalidModuleError: a file is missing, or is not what it was when it was written; names it.

    Example:
        >>> check(entry_folder("google/tf2-preview/mobilenet_v2/classification/4"))  # doctest: +SKIP
    """
    origin = read_origin(folder)
    if origin is None:
        read_module(folder)
        return
    if missing := {CONFIG_FILE, WEIGHTS_FILE} - origin.files.keys():
        raise InvalidModuleError(f"{folder / ORIGIN_FILE} is damaged: it does not list {' and '.join(sorted(missing))}")
    for name, stated in origin.files.items():
        file = folder / name
        try:
            found = describe_file(file)
        except OSError as error:
            raise InvalidModuleError(f"{file} cannot be read: {error.strerror or error}") from None
        if found != stated:
            raise InvalidModuleError(
                f"{file} is damaged: {found['bytes']} bytes with SHA-256 {found['sha256']}, but it was written with "
                f"{stated.get('bytes')} bytes and {stated.get('sha256')}"
            )


def damage_of(folder: Path) -> InvalidModuleError | None:
    """Return what is wrong with a module folder of the cache, its absence included; None where it is sound.

    Example:
        >>> str(damage_of(Path("nowhere")))
        'nowhere is not a module folder: it has no module.json'
    """
    try:
        check(folder)
    except InvalidModuleError as error:
        return error
    return None


def read_origin(folder: Path) -> Origin | None:
    """Return a module folder's record of where it came from; None where it has none.

    Raises:
        InvalidModuleError: origin.json is damaged.
    """
    file = folder / ORIGIN_FILE
    try:
        data = json.loads(file.read_text("utf-8"))
        origin = Origin(**data)
        named = isinstance(origin.files, dict) and all(
            isinstance(stated, dict) and Path(name).name == name for name, stated in origin.files.items()
        )
        if not named:
            raise ValueError("its list of files is not one")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InvalidModuleError(f"{file} is damaged: {error}") from None
    return origin


def describe_file(file: Path) -> dict[str, Any]:
    """Return a file's size and SHA-256, as records keep them."""
    return {"bytes": file.stat().st_size, "sha256": sha256_of(file)}


def install(staged: Path, origin: Origin) -> Path:
    """Move a finished module folder to its place in the cache, with its record; the caller holds the entry's lock.

    Returns:
        The entry's folder: the new one whole, or the old one, at any moment and after a crash. What somebody else has
        put into the old one is in the new one, too.
    """
    (staged / ORIGIN_FILE).write_text(json.dumps(asdict(origin), indent=2) + "\n", "utf-8")
    entry = entry_folder(origin.handle)
    entry.parent.mkdir(parents=True, exist_ok=True)
    for file in _strangers(entry):
        if not os.path.lexists(staged / file.name):
            carry_over(file, staged / file.name)
    swap_folder(staged, entry, Path(tempfile.mkdtemp(prefix="old.", dir=staged.parent)) / entry.name)
    return entry


def _strangers(entry: Path) -> list[Path]:
    """Return what lies in an entry's folder and does not belong to its module."""
    if not entry.is_dir():
        return []
    try:
        origin = read_origin(entry)
    except InvalidModuleError:
        origin = None
    own = {CONFIG_FILE, WEIGHTS_FILE, LABELS_FILE, ORIGIN_FILE, *(origin.files if origin else ())}
    return [file for file in sorted(entry.iterdir()) if file.name not in own and not is_ours(file)]


def remove(handle: str) -> bool:
    """Remove a handle's entry, waiting for a pull of it that is under way; tell whether there was one.

    What somebody else has put into its folder stays.

    Example:
        >>> remove("google/tf2-preview/mobilenet_v2/classification/4")
        False
    """
    entry = entry_folder(handle)
    if not entry.is_dir():
        return False
    with locked(lock_file(handle)):
        work = work_folder(handle)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            strangers = _strangers(entry)
            if strangers:
                own = set(entry.iterdir()) - set(strangers)
                for file in sorted(own, key=lambda file: file.name != CONFIG_FILE):  # without it the rest is no module
                    file.rename(work / file.name)
            else:
                entry.rename(work / "removed")
        except OSError as error:
            raise OutputError(f"{entry} cannot be removed: {error}") from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
    tidy(handle)
    for parent in entry.parents:
        if parent == cache_folder():
            break
        with suppress(OSError):
            parent.rmdir()  # goes where it is empty
    return True


def tidy(handle: str) -> None:
    """Remove what a killed pull of a handle left, where none is under way.

    An owner of the lock is waited for briefly: one that is about to end, or about to be killed, leaves nothing then.
    """
    lock = lock_file(handle)
    if lock.exists() or work_folder(handle).exists():
        with suppress(DownloadError), locked(lock, _BRIEFLY_S, done=lambda: not lock.parent.exists()) as held:
            if held:
                shutil.rmtree(work_folder(handle), ignore_errors=True)
    with suppress(OSError):
        lock.parent.rmdir()  # empty: its last owner was killed after it had removed the lock


def abandoned() -> list[str]:
    """Return the handles whose pulls were killed and left something behind.

    Example:
        >>> abandoned()
        []
    """
    incoming = cache_folder() / _INCOMING
    names = {path.name.removesuffix(_LOCK_SUFFIX) for path in incoming.glob("*")} if incoming.is_dir() else set()
    handles = sorted(name.replace("--", "/") for name in names)
    return [handle for handle in handles if not is_locked(lock_file(handle))]
