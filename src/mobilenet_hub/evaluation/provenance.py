"""What a result was made with: versions, machine, photos."""

import hashlib
import platform
from collections.abc import Sequence
from contextlib import suppress

from mobilenet_hub.evaluation.dataset import Example
from mobilenet_hub.host.cpu import available_cores, cpu_name
from mobilenet_hub.images.resample import resampler
from mobilenet_hub.version import __version__


def environment() -> dict[str, str]:
    """Return the versions that a result depends on, and the machine's kind.

    Example:
        >>> "numpy" in environment()
        True
    """
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for name in ("ai-edge-litert", "numpy", "openvino", "pillow", "simplejpeg", resampler()):
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    machine = f"{cpu_name()}, {available_cores()} cores"
    return {"mobilenet-hub": __version__, "Python": platform.python_version(), **packages, "machine": machine}


def fingerprint(examples: Sequence[Example]) -> str:
    """Return one hash over the bytes of all photos and their labels.

    Example:
        >>> len(fingerprint([]))
        64
    """
    lines = sorted(f"{example.digest} {example.label}" for example in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
