"""A published module into the cache: found, downloaded, unpacked, converted, compared with the catalog, installed.

Imports errors, catalog, labels, weights and the files of store above it. One process works on a module at a time, in
the work folder of cache.py; the module appears in its place whole or not at all.
"""

import logging
import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mobilenet_hub.catalog import PublishedModule, find_module
from mobilenet_hub.errors import (
    CorruptFileError,
    DownloadError,
    InvalidModuleError,
    MobileNetHubError,
    ModuleUnavailableError,
    OfflineError,
)
from mobilenet_hub.store.cache import (
    Origin,
    damage_of,
    describe_file,
    entry_folder,
    install,
    lock_file,
    tidy,
    work_folder,
)
from mobilenet_hub.store.download import PATIENT, Downloaded, Policy, download
from mobilenet_hub.store.lock import locked
from mobilenet_hub.store.sources import MIRROR_VARIABLE, Candidate, candidates, mirror
from mobilenet_hub.weights.archive import unpack
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.module_folder import Module, write_module

OFFLINE_VARIABLE = "MOBILENET_HUB_OFFLINE"
_log = logging.getLogger("mobilenet_hub")


def is_offline() -> bool:
    """Tell whether MOBILENET_HUB_OFFLINE forbids connections.

    Example:
        >>> is_offline()
        True
    """
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false", "no")


def pull(name: str, *, force: bool = False, progress: bool | None = None, policy: Policy = PATIENT) -> Path:
    """Have a published module in the cache, sound, and return its folder.

    An entry that is there and sound is returned at once; one that is damaged is fetched anew.

    Args:
        name: any name of a published module.
        force: fetch it even where it is there.
        progress: show a bar for downloads of over two seconds; None: if standard error is a terminal.
        policy: timeouts, attempts and limits of the downloads.

    Raises:
        UnknownModuleError: no such module was published.
        OfflineError: it is not here, and MOBILENET_HUB_OFFLINE=1 forbids to fetch it; says which folder to fill.
        DownloadError: every source failed; says where and why.
        InvalidModuleError: the entry is damaged, and it could not be fetched anew.

    Example:
        >>> pull("mobilenet_v1_025_128/classification")  # doctest: +SKIP
        PosixPath('/home/me/.cache/mobilenet-hub/google/imagenet/mobilenet_v1_025_128/classification/5')
    """
    module = find_module(name)
    entry = entry_folder(module.handle)
    if force or damage_of(entry):
        shown = sys.stderr.isatty() if progress is None else progress
        with locked(lock_file(module.handle)):
            damage = damage_of(entry)
            if force or damage:  # else another process was faster
                _fetch_in_place_of(damage, module, shown, policy)
            shutil.rmtree(work_folder(module.handle), ignore_errors=True)
    tidy(module.handle)
    return entry


def _fetch_in_place_of(
    damage: InvalidModuleError | None, module: PublishedModule, progress: bool, policy: Policy
) -> None:
    """Fetch a module, holding its lock; a failure leaves the work folder empty, and a damaged entry as it was."""
    entry = entry_folder(module.handle)
    try:
        _fetch(module, progress, policy)
    except Exception as failure:
        shutil.rmtree(work_folder(module.handle), ignore_errors=True)
        if damage and entry.exists() and isinstance(failure, MobileNetHubError):
            raise InvalidModuleError(
                f"{damage}; it could not be repaired: {failure}; `mobilenet cache remove {module.handle}` removes it"
            ) from failure
        raise


def _fetch(module: PublishedModule, progress: bool, policy: Policy) -> None:
    """Try the sources in order; what one refuses, the next may have."""
    failures: list[str] = []
    offline = is_offline()
    for candidate in candidates(module):
        if offline and not candidate.is_local:
            continue
        try:
            _take(candidate, module, progress, policy)
            return
        except MobileNetHubError as error:
            shutil.rmtree(work_folder(module.handle), ignore_errors=True)
            if isinstance(error, CorruptFileError | InvalidModuleError):
                _log.warning("%s: %s refused: %s", module.handle, candidate.source, error)
            failures.append(f"{candidate.source}: {error}")
    reasons = "; ".join(failures)
    if offline:
        raise OfflineError(_how_to_fill(module) + (f" (tried {reasons})" if reasons else ""))
    if not failures:
        raise ModuleUnavailableError(f"{module.handle} is in none of the configured sources; {_how_to_fill(module)}")
    raise DownloadError(f"{module.handle} could not be fetched. {reasons}")


def _how_to_fill(module: PublishedModule) -> str:
    folder = mirror()
    archives = folder if isinstance(folder, Path) else f"a folder, set {MIRROR_VARIABLE} to it"
    return (
        f"{module.handle} is not on this machine, and {OFFLINE_VARIABLE}=1 forbids to fetch it. Put its module folder "
        "(module.json, weights.safetensors and, where there are classes, labels.txt) at "
        f"{entry_folder(module.handle)}, or its archive as {module.handle}.tar.gz into {archives}"
    )


def _take(candidate: Candidate, module: PublishedModule, progress: bool, policy: Policy) -> None:
    """Make the module from what lies at one place, and install it."""
    work = work_folder(module.handle)
    for leftover in ("unpacked", "module"):  # of a killed process; its part of a download is resumed
        shutil.rmtree(work / leftover, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    downloaded: Downloaded | None = None
    place = candidate.place
    if isinstance(place, str):
        downloaded = download(place, work / "archive", progress=progress, policy=policy)
        place = work / "archive"
    archive = None
    if place.is_file():
        archive = describe_file(place)
        place = _inner_folder(unpack(place, work / "unpacked"))
    converted = _as_asked(load_source(place, handle=module.handle), module, candidate)
    staged = write_module(work / "module", converted)
    origin = Origin(
        handle=module.handle,
        source=candidate.source,
        url=downloaded.url if downloaded else str(candidate.place),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        archive=archive,
        files={file.name: describe_file(file) for file in sorted(staged.iterdir())},
    )
    install(staged, origin)


def _inner_folder(folder: Path) -> Path:
    """Return the folder that holds the files, where an archive wraps them in one."""
    inside = list(folder.iterdir())
    while len(inside) == 1 and inside[0].is_dir():
        folder = inside[0]
        inside = list(folder.iterdir())
    return folder


def _as_asked(found: Module, module: PublishedModule, candidate: Candidate) -> Module:
    """Hold what was found against the catalog, and give it the catalog's name.

    Raises:
        InvalidModuleError: it is a different module than the one asked for.
    """
    config = found.config
    weights = dict(found.weights)
    if candidate.is_checkpoint and module.num_classes == 0 and config.num_classes:
        for variable in config.network.classifier:
            del weights[variable.name]
        config = replace(config, num_classes=0, labels=None)
    wanted = (module.architecture, module.depth_multiplier, module.num_classes, module.image_size)
    got = (config.architecture, config.depth_multiplier, config.num_classes, config.image_size)
    if got != wanted:
        raise InvalidModuleError(
            f"{candidate.place} holds a different module than asked for: {_described(*got)}, not {_described(*wanted)}"
        )
    return Module(replace(config, handle=module.handle), weights)


def _described(architecture: str, depth_multiplier: float, num_classes: int, image_size: tuple[int, int]) -> str:
    height, width = image_size
    return f"{architecture} {depth_multiplier:g} at {height}x{width} with {num_classes} classes"
