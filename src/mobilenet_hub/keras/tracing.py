"""Functions that a backend traces: how to make variables that outlive them, and that TensorFlow 1's graphs get none."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)

from mobilenet_hub.errors import InputError

_Made = TypeVar("_Made")
_Function = TypeVar("_Function", bound=Callable)


def apart(make: Callable[[], _Made]) -> _Made:
    """Call a function outside of whatever is being traced, as `Lambda(lambda x: hub.KerasLayer(h)(x))` needs it.

    What is traced, in TensorFlow, JAX and Keras alike, is traced in one thread: another one is free of it.

    Raises:
        What the function raises.
    """
    if not _is_tracing():
        return make()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(make).result()


def _is_tracing() -> bool:
    from keras.src.backend.common.stateless_scope import in_stateless_scope

    if in_stateless_scope():
        return True
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def as_it_stands(function: _Function) -> _Function:
    """Keep TensorFlow's AutoGraph, which rewrites what a `tf.function` calls, away from a function."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def refuse_tensorflow1_graphs(what: str) -> None:
    """Raise where a graph of TensorFlow 1 is being built: its sessions know nothing of Keras 3's variables.

    Raises:
        InputError: says what to do instead.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if not tf.compat.v1.executing_eagerly_outside_functions():
        raise InputError(
            f"{what} cannot be made or called in a graph of TensorFlow 1 (tf.Graph, tf.compat.v1.Session, "
            "disable_v2_behavior): its session would not know the weights. Take the graph and the session away: "
            "hub.Module and hub.KerasLayer are called with tensors and return tensors. For TensorFlow 1 itself, "
            "`mobilenet export --format tf-hub` writes a SavedModel"
        )
