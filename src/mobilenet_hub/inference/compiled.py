"""Models made for this machine, and where they are kept, so that the next start is fast."""

import hashlib
import mmap
import os
from importlib import import_module
from pathlib import Path

from mobilenet_hub.host.files import replacing, sha256_of
from mobilenet_hub.inference.job import Job
from mobilenet_hub.module_folder import WEIGHTS_FILE
from mobilenet_hub.store.cache import cache_folder
from mobilenet_hub.version import __version__

# What is made depends on the code of these.
_MAKERS = (
    "architecture",
    "inference.bfloat16",
    "inference.graph",
    "inference.litert_graph",
    "inference.litert_model",
    "inference.openvino_hints",
)

_MAX_CACHE_BYTES = 1 << 30
_PIECE = 1 << 20
_CHECKSUM = hashlib.sha256().digest_size


def cache_key(job: Job, machine: object, *choices: object) -> str:
    """Name all that a model depends on: weights, network, what was asked for, our code, and the machine if need be."""
    try:
        digest = sha256_of(job.folder / WEIGHTS_FILE) if job.folder else "in memory"
    except OSError:
        digest = "unreadable"  # and so in no cache: reading the module will say what is wrong
    parts = (digest, job.config.network, job.image_size, job.outputs, choices, _code(), machine)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _code() -> list[bytes]:
    files = [import_module(f"mobilenet_hub.{name}").__file__ for name in _MAKERS]
    try:
        return [Path(file or "").read_bytes() for file in files]
    except OSError:  # a distribution without sources
        return [__version__.encode()]


def compiled_file(name: str) -> Path:
    """Return where a model of this name is kept."""
    return cache_folder() / "compiled" / name


def mapped(file: Path) -> memoryview | None:
    """Return the model that was kept, mapped into memory, or None where there is none that is whole.

    It may be written to, as OpenVINO demands of what it reads in place; nothing of that reaches the file.
    """
    if not is_whole(file):
        return None
    try:
        with file.open("rb") as stream:
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))[:-_CHECKSUM]
    except OSError:  # dropped from the cache meanwhile
        return None


def unload(model: memoryview) -> None:
    """Have the memory of a mapped model back; what is read again comes from the file. Not for what was written to."""
    if hasattr(mmap, "MADV_DONTNEED") and isinstance(model.obj, mmap.mmap):
        model.obj.madvise(mmap.MADV_DONTNEED)


def is_whole(file: Path) -> bool:
    """Tell whether a model was kept and is whole; it is read piece by piece, for it will be mapped into memory."""
    try:
        with file.open("rb") as stream:
            left = file.stat().st_size - _CHECKSUM
            digest = hashlib.sha256()
            while left > 0 and (piece := stream.read(min(left, _PIECE))):
                digest.update(piece)
                left -= len(piece)
            checksum = stream.read()
        os.utime(file)  # the cache drops what was not used for longest
    except OSError:
        return False
    return digest.digest() == checksum


def keep(file: Path, model: bytes | memoryview) -> bool:
    """Keep a model for the next start, its checksum behind it; tell whether that worked: one does without, too."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as stream:
            stream.write(model)
            stream.write(hashlib.sha256(model).digest())
        _prune(file.parent)
    except OSError:
        return False
    return True


def _prune(folder: Path) -> None:
    kept = [file for file in folder.iterdir() if file.suffix in (".blob", ".tflite", ".moved")]
    files = sorted(((f.stat().st_mtime, f.stat().st_size, f) for f in kept), reverse=True)
    total = 0
    for _, size, file in files:
        total += size
        if total > _MAX_CACHE_BYTES:
            file.unlink(missing_ok=True)
