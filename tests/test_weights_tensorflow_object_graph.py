"""Variables without names: every known order is recognized, and an unknown one refused."""

import numpy as np
import pytest
from tensorflow_files import some_weights, write_saved_model

from mobilenet_hub.architecture import mobilenet_v1, mobilenet_v2
from mobilenet_hub.errors import CorruptFileError, InvalidModuleError
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.variable_order import _ORDERS

NETWORKS = {
    "v1": mobilenet_v1(0.25, 3),
    "v1_features": mobilenet_v1(0.5, 0),
    "v2": mobilenet_v2(0.35, 3),
    "v2_features": mobilenet_v2(1.0, 0),
}


def saved(folder, network, order, name_of, trainable=True):
    weights = some_weights(network)
    variables = [(name_of(one.name), weights[one.name], trainable and one.trainable) for one in order(network)]
    return write_saved_model(folder, variables), weights


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("order", _ORDERS)
@pytest.mark.parametrize("name_of", [lambda _: "", lambda _: "Variable"], ids=["missing", "duplicated"])
def test_every_order_is_recognized(tmp_path, network, order, name_of):
    folder, weights = saved(tmp_path, network, order, name_of)
    module = load_source(folder, image_size=128)
    assert module.config.depth_multiplier == network.depth_multiplier
    for name, array in weights.items():
        np.testing.assert_array_equal(module.weights[name], array, err_msg=name)


@pytest.mark.parametrize("order", _ORDERS)
def test_orders_are_recognized_by_shapes_alone(tmp_path, order):
    folder, weights = saved(tmp_path, NETWORKS["v1"], order, lambda _: "", trainable=False)
    module = load_source(folder, image_size=128)
    for name, array in weights.items():
        np.testing.assert_array_equal(module.weights[name], array, err_msg=name)


def test_names_win_over_any_order(tmp_path):
    network = NETWORKS["v1"]

    def shuffled(network):
        return [list(network.variables.values())[at] for at in np.random.default_rng(1).permutation(137)]

    folder, weights = saved(tmp_path, network, shuffled, lambda name: f"{name}:0")
    module = load_source(folder, image_size=128)
    for name, array in weights.items():
        np.testing.assert_array_equal(module.weights[name], array, err_msg=name)


def test_an_unknown_order_is_refused(tmp_path):
    folder, _ = saved(tmp_path, NETWORKS["v1"], lambda n: list(n.variables.values())[::-1], lambda _: "")
    with pytest.raises(InvalidModuleError, match="137 variables have no TF-Slim names and are in no known order"):
        load_source(folder, image_size=128)


def test_gammas_that_cannot_be_told_from_betas_are_refused(tmp_path):
    network = NETWORKS["v1"]
    weights = {name: np.abs(array) for name, array in some_weights(network).items()}
    variables = [("", weights[name], one.trainable) for name, one in network.variables.items()]
    with pytest.raises(InvalidModuleError, match="nothing tells batch norm's gammas from its betas"):
        load_source(write_saved_model(tmp_path, variables), image_size=128)


def test_a_variable_that_is_not_in_the_checkpoint_is_named(tmp_path):
    network = NETWORKS["v1"]
    folder, _ = saved(tmp_path, network, _ORDERS[0], lambda name: name)
    weights = some_weights(network)
    order = [(one.name, weights[one.name], one.trainable) for one in _ORDERS[0](network)]
    from tensorflow_files import checkpoint_objects, write_bundle

    write_bundle(folder / "variables/variables", {"_CHECKPOINTABLE_OBJECT_GRAPH": checkpoint_objects(order)})
    with pytest.raises(CorruptFileError, match=r"Conv2d_0/BatchNorm/beta \(variables/0/"):
        load_source(folder, image_size=128)


def test_a_model_without_a_list_of_variables_is_refused(tmp_path):
    with pytest.raises(InvalidModuleError, match="no list of `variables`"):
        load_source(write_saved_model(tmp_path, []), image_size=128)
