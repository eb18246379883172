"""Every MobileNet V1 and V2 of TensorFlow Hub: classify, embed, fine-tune and export.

    import mobilenet_hub as hub

Nothing heavy is imported here: each public name below is loaded from its file on first use.
"""

from importlib import import_module

from mobilenet_hub.keras import hook
from mobilenet_hub.version import __version__ as __version__

# Public name -> the file that owns it.
_OWNERS: dict[str, str] = {
    "Classifier": "inference.classify",
    "Embedder": "inference.embed",
    "Evaluation": "evaluation.evaluate",
    "FrozenOptions": "training.frozen",
    "GradientOptions": "training.schedule",
    "KerasLayer": "hub.keras_layer",
    "LoadedModule": "hub.load",
    "MobileNetHubError": "errors",
    "Module": "hub.module",
    "Prediction": "inference.classify",
    "TrainResult": "training.train",
    "convert": "weights.convert",
    "evaluate": "evaluation.evaluate",
    "export": "exporting.export",
    "get_expected_image_size": "hub.module",
    "get_num_image_channels": "hub.module",
    "load": "hub.load",
    "resolve": "store",
    "train": "training.train",
}

__all__ = sorted([*_OWNERS, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):  # of any type; to name it would import typing
    """Load a public name from its file on first use (PEP 562)."""
    if name not in _OWNERS:
        raise AttributeError(f"module 'mobilenet_hub' has no attribute {name!r}")
    owner = _OWNERS[name]
    if owner.startswith("hub."):
        from mobilenet_hub.keras.backends import require_keras

        require_keras(f"hub.{name}")
    value = getattr(import_module(f"mobilenet_hub.{owner}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return __all__


hook.install()
