"""Models of tf_keras (Keras 2) are told that our layer is one of Keras 3, wherever they meet it, and what to change."""

import sys
from types import FrameType
from typing import Any

from mobilenet_hub.errors import InputError

_KERAS_2 = "tf_keras"
_WHAT_TO_CHANGE = (
    "hub.KerasLayer is a layer of Keras 3, and the model is one of tf_keras (Keras 2). Build the model with `keras`: "
    "keras.Sequential in place of tf_keras.Sequential, or of tf.keras.Sequential while TF_USE_LEGACY_KERAS is set; "
    "take that setting away where it is not needed. For tf_keras itself `mobilenet export --format tf-hub` writes what "
    "tensorflow_hub's layer loads"
)


def refuse_its_tensors(images: Any) -> None:
    """Raise InputError for a symbolic tensor of tf_keras."""
    if type(images).__module__.startswith(_KERAS_2):
        raise InputError(_WHAT_TO_CHANGE)


def refuse_its_code(caller: FrameType) -> None:
    """Raise InputError where a function was called by tf_keras."""
    if caller.f_globals.get("__name__", "").startswith(_KERAS_2):
        raise InputError(_WHAT_TO_CHANGE)


def refuse_inside_its_layers() -> None:
    """Raise InputError inside the call of a layer or model of tf_keras: whether it trains is not told to ours."""
    its_layers = sys.modules.get(f"{_KERAS_2}.src.engine.base_layer_utils")
    if its_layers is not None and its_layers.call_context().in_call:
        raise InputError(_WHAT_TO_CHANGE)
