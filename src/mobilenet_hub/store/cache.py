"""The folder of this machine that keeps fetched modules. Imports nothing of the package yet."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache's folder: MOBILENET_HUB_CACHE, or the platform's place for caches.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    if chosen := os.environ.get("MOBILENET_HUB_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mobilenet-hub"
