"""TF-Slim checkpoints: which entries are the network, and what is refused."""

import numpy as np
import pytest
from tensorflow_files import meta_graph, node, placeholder, some_weights, variable, write_bundle

from mobilenet_hub.architecture import mobilenet_v1, mobilenet_v2
from mobilenet_hub.errors import CorruptFileError, InvalidModuleError
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.tensorflow.checkpoint import network_weights, read_checkpoint

V1, V2 = mobilenet_v1(0.25, 5), mobilenet_v2(0.35, 5)


def shadowed(network):
    """A training checkpoint: the averages hold the weights, the trained values are off by 0.01; slots and scalars."""
    weights = some_weights(network)
    tensors = {"global_step": np.array(7, np.int64), "beta1_power": np.array(0.5, np.float32)}
    for name, array in weights.items():
        tensors[name] = array
        if network.variables[name].trainable:
            tensors[name] = array + np.float32(0.01)
            tensors[f"{name}/ExponentialMovingAverage"] = array
            tensors[f"{name}/RMSProp"] = tensors[f"{name}/RMSProp_1"] = np.ones_like(array)
    return weights, tensors


def test_v2_takes_the_moving_averages(tmp_path):
    weights, tensors = shadowed(V2)
    read = read_checkpoint(write_bundle(tmp_path / "model.ckpt", tensors)).weights
    assert read.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)


@pytest.mark.parametrize(
    "name",
    [
        "layer_with_weights-0/layer_with_weights-3/kernel",
        "model/layer_with_weights-0/kernel",
        "model/_operations/2/_kernel",
    ],
)
def test_a_checkpoint_of_keras_says_what_to_do(tmp_path, name):
    """As save_weights, ModelCheckpoint and tf.train.Checkpoint(model=...) write: Keras 2 and 3."""
    write_bundle(tmp_path / "cp.ckpt", {f"{name}/.ATTRIBUTES/VARIABLE_VALUE": np.ones((3, 3, 3, 8), np.float32)})
    with pytest.raises(
        InvalidModuleError, match=r"weights of a Keras model .* save the whole model, as \.keras or \.h5"
    ):
        load_source(tmp_path)


def test_one_class_is_the_same_for_every_photo(tmp_path):
    write_bundle(tmp_path / "model.ckpt", some_weights(mobilenet_v1(0.25, 1)))
    with pytest.raises(InvalidModuleError, match="a classifier of one class, whose softmax is 1 for every photo"):
        load_source(tmp_path, image_size=96)
    assert load_source(tmp_path, image_size=96, num_classes=0).config.num_classes == 0


def test_v1_takes_the_variables_themselves(tmp_path):
    weights, tensors = shadowed(V1)
    read = read_checkpoint(write_bundle(tmp_path / "model.ckpt", tensors)).weights
    assert read.keys() == weights.keys()
    for name in weights:
        np.testing.assert_array_equal(read[name], tensors[name], err_msg=name)


def test_moving_averages_of_a_part_are_refused(tmp_path):
    _, tensors = shadowed(V2)
    del tensors["MobilenetV2/Conv/weights/ExponentialMovingAverage"]
    with pytest.raises(InvalidModuleError, match="but not of MobilenetV2/Conv/weights"):
        network_weights(tensors, tmp_path)


def test_scopes_before_the_network_are_taken_off(tmp_path):
    weights = some_weights(V1)
    found = network_weights({f"tower/{name}": array for name, array in weights.items()}, tmp_path)
    assert found.keys() == weights.keys()


def test_one_variable_twice_is_refused(tmp_path):
    weights = some_weights(V1)
    with pytest.raises(ValueError, match="Conv2d_0/weights occurs twice, also as copy/MobilenetV1/Conv2d_0/weights"):
        network_weights(weights | {"copy/MobilenetV1/Conv2d_0/weights": np.zeros(1)}, tmp_path)


def test_a_network_trained_for_quantization_is_refused(tmp_path):
    quantized = some_weights(V1) | {"MobilenetV1/MobilenetV1/Conv2d_0/act_quant/min": np.zeros((), np.float32)}
    with pytest.raises(InvalidModuleError, match="use the float checkpoint"):
        network_weights(quantized, tmp_path)


def test_integers_in_the_place_of_weights_are_refused(tmp_path):
    weights = some_weights(V1) | {"MobilenetV1/Conv2d_0/weights": np.zeros((3, 3, 3, 8), np.int32)}
    with pytest.raises(CorruptFileError, match="Conv2d_0/weights is int32"):
        read_checkpoint(write_bundle(tmp_path / "x", weights))


def test_foreign_tensors_are_kept_for_the_report(tmp_path):
    assert "decoder/kernel" in network_weights(some_weights(V1) | {"decoder/kernel": np.zeros((2, 2))}, tmp_path)


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("global_step", True), ("beta1_power", True), ("train/learning_rate", True), ("total_loss", True),
        ("MobilenetV1/Conv2d_0/weights/RMSProp_1", True), ("MobilenetV1/Conv2d_0/weights/Momentum", True),
        ("MobilenetV1/Conv2d_0/scale", False), ("temperature", False), ("MobilenetV1/Conv2d_0/weights/factor", False),
    ],
)  # fmt: skip
def test_only_what_belongs_to_training_is_left_out(tmp_path, name, left_out):
    """A number that may take part in the output is reported: names are all that a checkpoint alone says."""
    prefix = write_bundle(tmp_path / "x", some_weights(V1) | {name: np.array(0.5, np.float32)})
    if left_out:
        assert name not in load_source(prefix, image_size=96).weights
    else:
        with pytest.raises(InvalidModuleError, match=name):
            load_source(prefix, image_size=96)


def graph_of(weights, *more):
    return meta_graph([*more, *(variable(name, array.shape) for name, array in weights.items())])


def test_the_graph_beside_it_tells_the_image_size(tmp_path):
    weights = some_weights(V1)
    prefix = write_bundle(tmp_path / "x.ckpt", weights)
    (tmp_path / "x.ckpt.meta").write_bytes(graph_of(weights, placeholder((-1, 160, 192, 3))))
    assert read_checkpoint(prefix).image_size == (160, 192)


def test_the_graph_of_another_network_is_refused(tmp_path):
    prefix = write_bundle(tmp_path / "x.ckpt", some_weights(V1))
    (tmp_path / "x.ckpt.meta").write_bytes(graph_of(some_weights(mobilenet_v1(0.5, 5))))
    with pytest.raises(CorruptFileError, match=r"x.ckpt.meta does not belong to .* MobilenetV1/Conv2d_0/weights"):
        read_checkpoint(prefix)


def test_a_graph_that_is_cut_off_is_refused(tmp_path):
    weights = some_weights(V1)
    prefix = write_bundle(tmp_path / "x.ckpt", weights)
    graph = graph_of(weights, node("add", "Add"))
    for size in (0, 1, len(graph) // 2, len(graph) - 1):
        (tmp_path / "x.ckpt.meta").write_bytes(graph[:size])
        with pytest.raises(CorruptFileError, match=r"x\.ckpt\.meta is damaged"):
            read_checkpoint(prefix)
