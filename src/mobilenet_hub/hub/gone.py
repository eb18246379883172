"""Names of tensorflow_hub, up to its version 0.16.1, that are not here, and what to do in their place."""

_GRAPH = "it wrote or read graphs of TensorFlow 1"
_SHARE = "to give a module to others use hub.export(module, format, path) or `mobilenet export`"
_COLUMN = "Keras 3 has no feature columns: call hub.KerasLayer on the images, and keras.layers on the other inputs"
_TEXT = "this package is of MobileNets; text modules are read by tensorflow_hub with tf_keras"
_FETCH = "hub.resolve(handle) returns a module's path, hub.pull(handle) fetches it"

_INSTEAD: dict[str, str] = {
    "ImageModuleInfo": "hub.get_expected_image_size and hub.get_num_image_channels say what it held",
    "LatestModuleExporter": f"{_GRAPH}; {_SHARE}",
    "ModuleAttachment": f"{_GRAPH}; hub.get_expected_image_size says what image modules had attached",
    "add_signature": f"{_GRAPH}; {_SHARE}",
    "attach_image_module_info": f"{_GRAPH}; {_SHARE}",
    "attach_message": f"{_GRAPH}; {_SHARE}",
    "compressed_module_resolver": _FETCH,
    "config": "a local path, a TF Hub or Kaggle address and a short name go wherever a handle goes",
    "create_module_spec": f"{_GRAPH}; {_SHARE}",
    "create_module_spec_from_saved_model": "hub.convert(folder, output) makes a module of a SavedModel",
    "estimator": "Estimators are gone from TensorFlow: use hub.KerasLayer in a Keras model",
    "eval_function_for_module": "call hub.Module(handle) with values: it needs no session",
    "feature_column": _COLUMN,
    "file_utils": _FETCH,
    "get_attached_message": f"{_GRAPH}; hub.get_expected_image_size says what image modules had attached",
    "image_embedding_column": _COLUMN,
    "image_util": "its functions are hub.get_expected_image_size and hub.get_num_image_channels",
    "keras_layer": "its class is hub.KerasLayer",
    "module_v2": "its functions are hub.load and hub.resolve",
    "native_module": f"{_GRAPH}; use hub.Module, hub.load or hub.KerasLayer",
    "register_module_for_export": f"{_GRAPH}; {_SHARE}",
    "registry": "a local path, a TF Hub or Kaggle address and a short name go wherever a handle goes",
    "resolver": _FETCH,
    "saved_model_module": "hub.convert(folder, output) makes a module of a SavedModel",
    "sparse_text_embedding_column": _TEXT,
    "text_embedding_column": _TEXT,
    "text_embedding_column_v2": _TEXT,
    "tf_utils": "it is about TensorFlow's own files",
    "tf_v1": "use tf.compat.v1 where it is needed",
    "tools": _SHARE,
    "uncompressed_module_resolver": _FETCH,
}


def instead_of(name: str) -> str:
    """Return what to do in the place of a name of tensorflow_hub that is not here, or an empty text.

    Example:
        >>> instead_of("keras_layer")
        'its class is hub.KerasLayer'
    """
    return _INSTEAD.get(name, "")
