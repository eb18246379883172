"""What TensorFlow saves of a loaded module: `tf.saved_model.save(hub.load(handle), folder)`, as its guides have it.

Source: tensorflow/hub docs/reusable_saved_models.md. The functions are traced on the module's own variables, so that a
module inside a `tf.Module`, or one that a layer has fine-tuned, is saved as it is.
"""

from typing import Any

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)

from mobilenet_hub.architecture import INPUT_CHANNELS


def trackable() -> type:
    """Return the class whose objects TensorFlow saves; on other backends any object's."""
    if keras.backend.backend() != "tensorflow":
        return object
    import tensorflow as tf

    return tf.__internal__.tracking.AutoTrackable  # what Keras's own layers are there


def reusable(module: Any, save_type: str, **kwargs: Any) -> dict[str, Any]:
    """Return the interface of a reusable SavedModel by name: `__call__`, `variables`, losses, and a function to serve.

    Args:
        module: what `hub.load` returned.
        save_type: TensorFlow's word for what is being saved.
        kwargs: what else TensorFlow gives.
    """
    import tensorflow as tf

    network, contract = module.network, module.contract
    size = contract.size or (None, None)
    images = tf.TensorSpec([None, *size, INPUT_CHANNELS], tf.float32, name="inputs")
    momentum = tf.TensorSpec([], tf.float32, name="batch_norm_momentum")

    def call(
        inputs: Any,
        training: bool = False,
        batch_norm_momentum: Any = contract.batch_norm_momentum,
        return_endpoints: bool = False,
    ) -> Any:
        return network(
            inputs, training=training, batch_norm_momentum=batch_norm_momentum, return_endpoints=return_endpoints
        )

    interface = tf.train.Checkpoint()
    interface.__call__ = tf.function(call, autograph=False)
    frozen = not network.trainable
    network.trainable = True  # a frozen layer may have it: its batch norm would not be traced as training
    try:
        for training in (False, True):
            for endpoints in (False, True):
                interface.__call__.get_concrete_function(images, training, momentum, endpoints)
    finally:
        network.trainable = not frozen
    interface._default_save_signature = tf.function(
        lambda inputs: {contract.output_name: network(inputs)}, autograph=False, input_signature=[images]
    )
    interface.variables = [variable.value for variable in module.variables]
    interface.trainable_variables = [variable.value for variable in module.trainable_variables]
    interface.state = [variable.value for variable in network.variables]  # that of its dropout among them
    interface.regularization_losses = [
        tf.function(loss, autograph=False, input_signature=[]) for loss in module.regularization_losses
    ]
    return interface._trackable_children(save_type, **kwargs)
