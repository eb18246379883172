"""TensorFlow.js graph models: what is fused is taken apart, and what is damaged or another network is refused."""

import copy
import json
import random

import numpy as np
import pytest
from reference_network import forward
from tensorflow_files import some_weights
from tfjs_graph_model import handmade

from mobilenet_hub.architecture import architecture
from mobilenet_hub.errors import InvalidModuleError, MobileNetHubError
from mobilenet_hub.weights.convert import load_source

SIZE = 64
V1, V2 = architecture("mobilenet_v1", 0.25, 5), architecture("mobilenet_v2", 0.35, 5)


@pytest.fixture(params=[V1, V2], ids=["v1", "v2"])
def network(request):
    return request.param


def test_a_graph_model_is_the_network_that_it_computes(network, tmp_path):
    weights = some_weights(network)
    handmade(network, weights, tmp_path, SIZE)
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    module = load_source(tmp_path / "weights.bin")
    assert (module.config.architecture, module.config.image_size) == (network.name, (SIZE, SIZE))
    assert module.config.labels == tuple("abcde")
    assert module.config.batch_norm_folded
    images = np.random.default_rng(0).random((1, SIZE, SIZE, 3), np.float32)
    wanted = forward(network, weights, images)["logits"]
    found = forward(module.config.network, module.weights, images)["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())  # kernels are rounded once more


def node_of(model, name):
    return next(one for one in model["modelTopology"]["node"] if one["name"] == name)


def two_outputs(model):
    model["signature"]["outputs"]["z"] = {"name": "mean:0"}


def another_activation(model):
    node_of(model, "unit3")["attr"]["fused_ops"]["list"]["s"][1] = "UmVsdQ=="  # Relu


def a_foreign_part(model):
    node_of(model, "unit3")["attr"]["fused_ops"]["list"]["s"].append("VGFuaA==")  # Tanh


def one_input_more(model):
    node_of(model, "unit3")["input"].append("bias0")


def no_bias(model):
    node_of(model, "unit3")["attr"]["fused_ops"]["list"]["s"].pop(0)


def a_call(model):
    model["modelTopology"]["node"].append({"name": "f", "op": "StatefulPartitionedCall"})


def no_constant(model):
    node_of(model, "kernel3")["name"] = "kernel"
    node_of(model, "unit3")["input"][1] = "kernel"


def one_name_twice(model):
    node_of(model, "kernel4")["name"] = "kernel3"


def a_circle(model):
    node_of(model, "unit2")["input"][0] = "unit3"


def other_strides(model):
    node_of(model, "unit1")["attr"]["strides"]["list"]["i"] = ["1", "2", "2", "1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (two_outputs, "2 outputs"),
        (another_activation, "is relu, where a MobileNet has ReLU6"),
        (a_foreign_part, "Tanh|tanh"),
        (one_input_more, "takes more than its parts"),
        (no_bias, "takes more than its parts"),
        (a_call, "calls a function"),
        (no_constant, "have no kernel"),
        (one_name_twice, "bear one name"),
        (a_circle, "depends on itself"),
        (other_strides, "stride"),
    ],
)
def test_another_graph_is_refused_with_the_reason(tmp_path, change, words):
    handmade(V1, some_weights(V1), tmp_path, SIZE)
    model = json.loads((tmp_path / "model.json").read_text())
    change(model)
    (tmp_path / "model.json").write_text(json.dumps(model))
    with pytest.raises(MobileNetHubError, match=words):
        load_source(tmp_path)


def test_without_a_signature_the_end_is_the_output(tmp_path):
    handmade(V1, some_weights(V1), tmp_path, SIZE)
    model = json.loads((tmp_path / "model.json").read_text())
    del model["signature"]
    (tmp_path / "model.json").write_text(json.dumps(model))
    assert load_source(tmp_path).config.num_classes == 5


STRANGE = [None, -1, 2**70, "", "AAAA", "x", [], {}, [None], {"list": None}, {"s": 7}, {"i": "x"}, True, 1e400]


def test_damaged_graph_models_raise_nothing_but_our_errors(tmp_path):
    handmade(V1, some_weights(V1), tmp_path, SIZE)
    text = (tmp_path / "model.json").read_text()
    for seed in range(150):
        chance, model = random.Random(seed), json.loads(text)
        for _ in range(chance.choice([1, 1, 3])):
            put_something_strange(model, chance)
        (tmp_path / "model.json").write_text(json.dumps(model))
        try:
            load_source(tmp_path, image_size=SIZE)
        except MobileNetHubError as error:
            assert str(tmp_path) in str(error)


def put_something_strange(value, chance):
    """Replace something within a JSON value, nearer to its leaves or to its root."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        if not keys:
            return
        key = chance.choice(list(keys))
        inner = value[key]
        if not isinstance(inner, (dict, list)) or not inner or chance.random() < 0.1:
            value[key] = copy.deepcopy(chance.choice(STRANGE))
            return
        value = inner


def test_a_depthwise_multiplier_is_another_network(tmp_path):
    weights = some_weights(V1)
    name = V1.units[1].kernel.name
    handmade(V1, {**weights, name: np.concatenate([weights[name]] * 2, 3)}, tmp_path, SIZE)
    with pytest.raises(InvalidModuleError):
        load_source(tmp_path)
