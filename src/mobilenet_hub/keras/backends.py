"""Which Keras backend runs here: found without importing it, and the install line where there is none."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

from mobilenet_hub.errors import InputError, MissingExtraError
from mobilenet_hub.host.environment import set_variable, setting

BACKENDS = ("tensorflow", "torch", "jax")  # each is also the name of the extra that installs it


def installed_backends() -> tuple[str, ...]:
    """Return the Keras backends that are installed here; none of them is imported.

    Example:
        >>> set(installed_backends()) <= set(BACKENDS)
        True
    """
    return tuple(name for name in BACKENDS if _is_installed(name))


def require_keras(purpose: str) -> str:
    """Make sure that Keras can be imported with a backend that is installed, and return the backend's name.

    KERAS_BACKEND comes first, then Keras' own configuration file, if the backend in it is installed: Keras writes
    "tensorflow" there whatever it runs on. Where neither names one, an installed one is chosen.

    Args:
        purpose: what needs Keras, for the error, e.g. "hub.KerasLayer".

    Raises:
        MissingExtraError: Keras or a backend is not installed; the text has the install line.
        InputError: KERAS_BACKEND names something else than a backend.
    """
    if (keras := sys.modules.get("keras")) is not None and hasattr(keras, "backend"):
        return keras.backend.backend()
    installed = installed_backends()
    backend = setting("KERAS_BACKEND")
    if not backend:
        configured = _configured_backend()
        usable = configured in installed or configured not in (None, *BACKENDS)  # what nobody knows is refused below
        backend = configured if configured and usable else (*installed, BACKENDS[0])[0]
        set_variable("KERAS_BACKEND", backend)
    if backend not in BACKENDS:
        raise InputError(f"KERAS_BACKEND is {backend!r}; use one of {', '.join(BACKENDS)}")
    for package in ("keras", backend):
        if not _is_installed(package):
            others = f" (installed backends: {', '.join(installed)}; set KERAS_BACKEND)" if installed else ""
            raise MissingExtraError(package, backend, purpose + others)
    return backend


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # something stands in its place that hides it
        return False


def _configured_backend() -> str | None:
    home = Path(setting("KERAS_HOME") or Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
