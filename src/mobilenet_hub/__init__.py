"""Every MobileNet V1 and V2 of TensorFlow Hub: classify, embed, fine-tune and export.

    import mobilenet_hub as hub

Nothing heavy is imported here: each public name below is loaded from its file on first use.
"""

from importlib import import_module

__version__ = "0.1.0"

# Public name -> the file that owns it.
_OWNERS: dict[str, str] = {
    "MobileNetHubError": "errors",
}

__all__ = sorted([*_OWNERS, "__version__"])


def __getattr__(name: str) -> object:
    """Load a public name from its file on first use (PEP 562)."""
    if name not in _OWNERS:
        raise AttributeError(f"module 'mobilenet_hub' has no attribute {name!r}")
    return getattr(import_module(f"mobilenet_hub.{_OWNERS[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
