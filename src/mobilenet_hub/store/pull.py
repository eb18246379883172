"""A published module into the cache: found, downloaded, unpacked, converted, compared with the catalog, installed.

One process works on a module at a time, in the work folder of cache.py; the module appears in its place whole or not at
all.
"""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mobilenet_hub.architecture import architecture
from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.catalog.labels import imagenet_labels
from mobilenet_hub.catalog.published import PublishedModule
from mobilenet_hub.errors import (
    DownloadError,
    InvalidModuleError,
    MobileNetHubError,
    ModuleUnavailableError,
    OfflineError,
)
from mobilenet_hub.host.environment import is_offline
from mobilenet_hub.host.locks import locked
from mobilenet_hub.host.progress import Bars, OnProgress
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import write_module
from mobilenet_hub.store.address import own_address
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
from mobilenet_hub.store.download import PATIENT, Policy, UnreachableError, download
from mobilenet_hub.store.places import Candidate, candidates, mirror
from mobilenet_hub.weights.archive import unpack
from mobilenet_hub.weights.convert import load_source

# What there is to say where an address of one's own does not answer.
_SERVE_IT = "Serve there what `mobilenet export --format site` wrote"
_log = logging.getLogger("mobilenet_hub")


@dataclass(frozen=True)
class _Wanted:
    """What is to come into the cache."""

    handle: str
    places: Callable[[], Iterable[Candidate]]
    made: Callable[[Path, Candidate], Module]  # of what was found at a place, held against what it should be
    advice: Callable[[], str]  # what to put where, for a person who cannot fetch it


def _wanted(name: str) -> _Wanted:
    if address := own_address(name):
        return _Wanted(
            address.handle,
            lambda: [Candidate("address", address.archive)],
            lambda source, place: load_source(source),
            lambda: f"{_SERVE_IT}, or put its module folder at {entry_folder(address.handle)}",
        )
    module = find_module(name)
    return _Wanted(
        module.handle,
        lambda: candidates(module),
        lambda source, place: _as_asked(source, module, place),
        lambda: _what_to_put_where(module),
    )


def pull(name: str, *, force: bool = False, progress: bool | None = None, policy: Policy = PATIENT) -> Path:
    """Have a published module in the cache, sound, and return its folder.

    An entry that is there and sound is returned at once; one that is damaged is fetched anew.

    Args:
        name: any name of a published module, or the http address of one of somebody's own (docs/export.md).
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
    wanted = _wanted(name)
    entry = entry_folder(wanted.handle)
    if force or damage_of(entry):
        shown = sys.stderr.isatty() if progress is None else progress
        arrived = None if force else lambda: damage_of(entry) is None
        with Bars(quiet=not shown) as bars, locked(lock_file(wanted.handle), done=arrived) as held:
            if held and ((damage := damage_of(entry)) or force):
                _fetch_in_place_of(damage, wanted, bars, policy)
    tidy(wanted.handle)
    return entry


def _fetch_in_place_of(
    damage: InvalidModuleError | None, wanted: _Wanted, on_progress: OnProgress, policy: Policy
) -> None:
    """Fetch a module, holding its lock; a failure leaves no work behind, and a damaged entry as it was."""
    work = work_folder(wanted.handle)
    is_repair = damage is not None and entry_folder(wanted.handle).exists()
    try:
        _fetch(wanted, on_progress, policy)
        shutil.rmtree(work, ignore_errors=True)
        if is_repair:
            _log.warning("%s; it was fetched anew", damage)
    except Exception as failure:  # not an interruption: what it had received is resumed
        shutil.rmtree(work, ignore_errors=True)
        if is_repair and isinstance(failure, MobileNetHubError):
            raise InvalidModuleError(
                f"{damage}; it could not be repaired: {failure}; `mobilenet cache remove {wanted.handle}` removes it"
            ) from failure
        raise


def _fetch(wanted: _Wanted, on_progress: OnProgress, policy: Policy) -> None:
    """Try the sources in order; what one refuses, the next may have."""
    failures: list[str] = []
    offline, unreachable = is_offline(), set()
    for candidate in wanted.places():
        if candidate.server and (offline or candidate.server in unreachable):
            continue
        try:
            _take(candidate, wanted, on_progress, policy)
            return
        except MobileNetHubError as error:
            work = work_folder(wanted.handle)
            shutil.rmtree(work, ignore_errors=True)
            reason = str(error).removeprefix(f"{candidate.place}: ").replace(f"{work}{os.sep}", "")
            failures.append(f"{candidate.source}, {candidate.place}: {reason}")
            if isinstance(error, UnreachableError):
                unreachable.add(candidate.server)
            if not isinstance(error, DownloadError):
                _log.warning("refused what %s", failures[-1])
    tried = "".join(f"\n  {failure}" for failure in failures)  # one line a source
    if offline:
        raise OfflineError(_how_to_fill(wanted) + (f"\ntried:{tried}" if tried else ""))
    if not failures:
        raise ModuleUnavailableError(f"{_how_to_fill(wanted)}; none of the configured sources has it")
    raise DownloadError(
        f"{wanted.handle} could not be fetched:{tried}\n{wanted.advice()}; weights that you have in another "
        "file become a module with `mobilenet convert`"
    )


def _how_to_fill(wanted: _Wanted) -> str:
    forbids = ", and MOBILENET_HUB_OFFLINE=1 forbids to fetch it" if is_offline() else ""
    return f"{wanted.handle} is not on this machine{forbids}. {wanted.advice()}"


def _what_to_put_where(module: PublishedModule) -> str:
    folder = mirror()
    archives = folder if isinstance(folder, Path) else "a folder that MOBILENET_HUB_MIRROR names"
    return (
        "Put its module folder (module.json, weights.safetensors and, where there are classes, labels.txt) at "
        f"{entry_folder(module.handle)}, or its archive as {module.handle}.tar.gz into {archives}"
    )


def _take(candidate: Candidate, wanted: _Wanted, on_progress: OnProgress, policy: Policy) -> None:
    """Make the module from what lies at one place, and install it."""
    work = work_folder(wanted.handle)
    for leftover in ("unpacked", "module"):  # of a killed process; its part of a download is resumed
        shutil.rmtree(work / leftover, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    if isinstance(candidate.place, str):
        source = work / "archive"
        download(candidate.place, source, on_progress=on_progress, policy=policy)
    else:
        source = candidate.place
    archive = None
    if source.is_file():
        archive = describe_file(source)
        source = _inner_folder(unpack(source, work / "unpacked"))
    staged = write_module(work / "module", wanted.made(source, candidate))
    origin = Origin(
        handle=wanted.handle,
        source=candidate.source,
        url=str(candidate.place),
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


def _as_asked(source: Path, module: PublishedModule, candidate: Candidate) -> Module:
    """Read what was found, hold it against the catalog, and give it the catalog's name.

    Raises:
        InvalidModuleError: it is a different module than the one asked for.
    """
    # A checkpoint holds the classifier also where only features are asked for; in any other format that is a
    # different module.
    leave_out_classifier = candidate.is_checkpoint and module.num_classes == 0
    found = load_source(source, image_size=module.image_size, num_classes=0 if leave_out_classifier else None)
    config = found.config
    is_plain = config.network == architecture(module.architecture, module.depth_multiplier, module.num_classes)
    if not is_plain or config.batch_norm_folded or not _is_named_as(module.checkpoint, config.source):
        has = f"{config.architecture} {config.depth_multiplier:g} with {config.num_classes} classes"
        raise InvalidModuleError(f"it is a different module than asked for: {has}, {config.source}")
    source_format = config.source.get("format") if isinstance(config.source, dict) else None
    config = replace(
        config,
        handle=module.handle,
        labels=imagenet_labels() if module.num_classes else None,
        source={"format": source_format or "module folder", "url": str(candidate.place)},
        license="Apache-2.0",
        trained_on=module.page["dataset"],
        metrics={"published": {"top1": module.published.top1, "top5": module.published.top5}},
    )
    return Module(config, found.weights)


def _is_named_as(checkpoint: str, source: object) -> bool:
    """Tell whether a file's name is that of a checkpoint, or none of TF-Slim's: those say size and multiplier."""
    file = source.get("file", "") if isinstance(source, dict) else ""
    return not file.endswith(".ckpt") or not file.startswith("mobilenet_v") or file == checkpoint.rpartition("/")[2]
