"""What is looked at in images before a network sees them: shape, dtype, and once the range of their values.

Images in [0, 255] or [-1, 1] instead of [0, 1] are the classic mistake; they give answers that look almost right. They
are told once for each layer or loaded module, with the fix. Keras compiles `fit` and `predict` on TensorFlow and JAX,
where values cannot be looked at; there the compiled function itself looks: TensorFlow's at its first batch and then
never again, JAX's at the first image of each batch.
"""

import sys
import warnings
from typing import Any

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
import numpy as np
from keras import ops  # noqa: TID253

from mobilenet_hub.architecture import INPUT_CHANNELS
from mobilenet_hub.errors import InputError
from mobilenet_hub.hub.contract import Contract
from mobilenet_hub.hub.keras_2 import refuse_its_tensors
from mobilenet_hub.keras.kernels import Tensor
from mobilenet_hub.keras.tracing import apart, refuse_tensorflow1_graphs

MODES = ("warn", "error")


class ImageCheck:
    """The check of one layer's or loaded module's images.

    Args:
        contract: what the module takes.
        mode: "warn" once, or raise an "error" for every batch, where the values are not those of [0, 1].

    Raises:
        InputError: another mode.
    """

    def __init__(self, contract: Contract, mode: str = "warn"):
        if mode not in MODES:
            raise InputError(f"check_range is {mode!r}; use {' or '.join(map(repr, MODES))}")
        self.contract = contract
        self.mode = mode
        self._warned = False

    def __call__(self, images: Any) -> Tensor:
        """Return images as a tensor of the backend.

        Raises:
            InputError: names what was received and what is allowed; or in a graph of TensorFlow 1.
        """
        refuse_tensorflow1_graphs("a module")
        refuse_its_tensors(images)
        name = self.contract.name
        if not hasattr(images, "shape") or not hasattr(images, "dtype"):
            images = np.asarray(images)
        try:
            shape = tuple(images.shape)
        except ValueError:  # TensorFlow knows not even how many axes there are
            raise InputError(
                f"{name} was given images of unknown rank; state their shape, as tf.ensure_shape does"
            ) from None
        self.contract.check_shape(shape)
        self.contract.check_dtype(keras.backend.standardize_dtype(images.dtype) if images.dtype != object else "object")
        if isinstance(images, keras.KerasTensor):
            return images
        tensor = ops.convert_to_tensor(images)
        if self.contract.size and keras.backend.backend() == "tensorflow" and None in tensor.shape[1:3]:
            import tensorflow as tf

            tensor = tf.ensure_shape(tensor, (None, *self.contract.size, INPUT_CHANNELS))  # looked at when it runs
        if self._warned or tensor.shape[0] == 0:
            return tensor
        if has_values(tensor):
            self._judge(ops.convert_to_numpy(ops.min(tensor)), ops.convert_to_numpy(ops.max(tensor)))
        elif (trainer := _tracing_trainer()) is not None:
            self._look_when_run(tensor, trainer)
        return tensor

    def _judge(self, low: np.ndarray, high: np.ndarray) -> None:
        problem = self.contract.range_problem(float(low), float(high))
        if problem and self.mode == "error":
            raise InputError(problem)
        if problem and not self._warned:
            self._warned = True
            warnings.warn(f"{problem} (said once; check_range='error' makes it an error)", stacklevel=2)

    def _look_when_run(self, images: Tensor, trainer: Any) -> None:
        if keras.backend.backend() == "jax":
            import jax

            jax.debug.callback(self._judge, images[:1].min(), images[:1].max())
        elif keras.backend.backend() == "tensorflow" and trainer.jit_compile is not True:  # XLA calls no Python
            import tensorflow as tf

            unseen = apart(lambda: tf.Variable(tf.constant(True), trainable=False))

            def look() -> Any:
                tf.numpy_function(self._judge, [tf.reduce_min(images), tf.reduce_max(images)], [])
                return unseen.assign(False)

            tf.cond(unseen, look, lambda: tf.identity(unseen))


def _tracing_trainer() -> Any:
    """Return the model whose fit, evaluate or predict is being compiled; None where something else is.

    Only what they compile stays in this process. A call back to Python would break a function that is exported.
    """
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("keras.src.backend.") and name.endswith(".trainer") and "self" in frame.f_locals:
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


def has_values(tensor: Tensor) -> bool:
    """Tell whether a tensor's values can be looked at now, on this CPU: not while a graph is traced."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return hasattr(tensor, "numpy")
    if backend == "torch":
        import torch

        return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
    from jax.core import Tracer

    return not isinstance(tensor, Tracer)
