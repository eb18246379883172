"""What other people put before, into, beside and behind a network: refused with the reason, or carried over exactly.

The files are TensorFlow's own. A file that converts to a module of other answers is the worst thing that can happen.
"""

import numpy as np
import pytest
from foreign_layers import FOREIGN, SIZE, Plain
from tfjs_graph_model import write_graph_model

from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.operation import Operation
from mobilenet_hub.weights.operations import recognize
from mobilenet_hub.weights.reading import Unusable

IMAGES = np.random.default_rng(0).random((1, SIZE, SIZE, 3), np.float32)
# What a module can have. All else must be refused; a converter may still fold it into weights that a module can have.
CARRIED = {
    "nothing", "v1", "epsilon_of_all", "norm_missing", "norm_decomposed", "factor_after_convolution",
    "vector_after_convolution", "bias_after_convolution", "factor_after_norm", "between_factor", "average_pooling",
    "pooled_twice", "features_factor", "features_vector", "features_activated", "features_relu", "hidden",
    "hidden_linear", "second_dense", "second_dense_relu", "logits_factor", "logits_vector", "logits_only",
    "kernel_transposed",
}  # fmt: skip
FOLDED = CARRIED | {"before_factor", "before_twice", "before_small", "before_negative", "epsilon_of_one", "norm_twice"}
PLACES = (  # one or two for each place
    "nothing", "before_summand", "before_reversed", "stride", "relu", "between_vector", "residual_scaled",
    "features_vector", "softmax_in_two_axes", "second_dense", "softmax_then_factor",
)  # fmt: skip


def as_frozen_graph(tf, net, folder):
    graph = concrete(tf, net).graph.as_graph_def()
    (folder / "net.pb").write_bytes(graph.SerializeToString())
    return folder / "net.pb"


def as_litert(tf, net, folder):
    model = tf.lite.TFLiteConverter.from_concrete_functions([concrete(tf, net)]).convert()
    (folder / "net.tflite").write_bytes(model)
    return folder / "net.tflite"


def as_graph_model(tf, net, folder):
    return write_graph_model(concrete(tf, net), folder, signature=net.softmax)


def concrete(tf, net):
    images = tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32)
    return tf.function(net, input_signature=[images], autograph=False).get_concrete_function()


def saved_model(tf, net, folder, signatures):
    module = tf.Module()
    net.variables = {name: tf.Variable(value, name=name) for name, value in net.values.items()}
    module.kept = list(net.variables.values())
    module.__call__ = called = tf.function(net, autograph=False)
    traced = called.get_concrete_function(tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32))
    tf.saved_model.save(module, str(folder / "net"), signatures=dict.fromkeys(signatures, traced) or None)
    file = folder / "net" / "saved_model.pb"
    if not signatures:
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        model = SavedModel.FromString(file.read_bytes())
        model.meta_graphs[0].signature_def.clear()
        file.write_bytes(model.SerializeToString())
    return folder / "net"


def as_saved_model(tf, net, folder):
    return saved_model(tf, net, folder, ["serving_default"])


def as_saved_model_of_another_signature(tf, net, folder):
    return saved_model(tf, net, folder, ["classify"])


def as_saved_model_without_signature(tf, net, folder):
    return saved_model(tf, net, folder, [])


def as_checkpoint(tf, net, folder, training=False):
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        images = v1.placeholder(tf.float32, (None, SIZE, SIZE, 3), "input")
        net.variables = {
            name: v1.get_variable(name, initializer=tf.constant(value), use_resource=False)
            for name, value in net.values.items()
        }
        outputs = net(images)
        if training:
            v1.train.RMSPropOptimizer(0.1).minimize(tf.reduce_sum(outputs), v1.train.get_or_create_global_step())
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(folder / "net.ckpt"))
    net.variables = {}
    return folder


def as_training_checkpoint(tf, net, folder):
    return as_checkpoint(tf, net, folder, training=True)


def check(tf, kind, write, folder, carried):
    net = kind(tf)
    file = write(tf, net, folder)
    try:
        module = load_source(file, image_size=SIZE)
    except InvalidModuleError as error:
        assert not carried, str(error)
        assert "that can be used: " in str(error)
        return
    wanted = np.asarray(kind(tf)(tf.constant(IMAGES * 2 - 1)))
    engine = Engine(module, ["logits"], precision="f32")
    found = engine.run(IMAGES)["logits"]
    found = engine.scores(found) if kind.softmax else found
    # Of probabilities: what is folded is rounded once more in each layer.
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN)
def test_frozen_graphs(tf, tmp_path, name):
    check(tf, FOREIGN[name], as_frozen_graph, tmp_path, name in CARRIED)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*PLACES, "epsilon_of_one", "hidden", "flattened", "logits_factor", "pooled_at_each_place"]
)
def test_litert(tf, tmp_path, name):
    check(tf, FOREIGN[name], as_litert, tmp_path, name in FOLDED)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PLACES, "v1", "average_pooling", "hidden", "norm_missing"])
def test_graph_models(tf, tmp_path, name):
    """Operations that the converter fused are taken apart; what it folded stays in the weights."""
    check(tf, FOREIGN[name], as_graph_model, tmp_path, name in CARRIED)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("write", [as_saved_model_without_signature, as_checkpoint])
def test_files_of_variables(tf, tmp_path, name, write):
    """Names say which variable is which; what is computed with them is in the graph beside them."""
    check(tf, FOREIGN[name], write, tmp_path, name in CARRIED)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nothing", "between_vector", "softmax_then_factor"])
@pytest.mark.parametrize("write", [as_saved_model, as_saved_model_of_another_signature])
def test_signatures(tf, tmp_path, name, write):
    check(tf, FOREIGN[name], write, tmp_path, name in CARRIED)


IN_TRAINING = {
    "nothing": (Plain, None),
    "stride": (FOREIGN["stride"], "needs 2"),
    "relu": (FOREIGN["relu"], "is Relu, where"),
    "epsilon": (FOREIGN["epsilon_of_one"], "different epsilons"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_TRAINING)
def test_graphs_that_train(tf, tmp_path, name):
    """They cannot be followed; each convolution and activation of the network is looked at."""
    kind, words = IN_TRAINING[name]
    # The scope of TF-Slim's operations is that of its variables.
    scoped = type("Scoped", (kind,), {"__call__": lambda self, x: under_scope(tf, self, kind, x)})
    folder = as_training_checkpoint(tf, scoped(tf), tmp_path)
    if words is None:
        assert load_source(folder, image_size=SIZE).weights.keys() == Plain.network.variables.keys()
    else:
        with pytest.raises(InvalidModuleError, match=words):
            load_source(folder, image_size=SIZE)


def under_scope(tf, net, kind, x):
    with tf.name_scope(net.network.scope):
        return kind.__call__(net, x)


def test_a_compiled_program_is_refused_by_its_name():
    """As `model.export` writes under Keras on JAX: one operation from variables and images to the classes."""
    program = Operation("XlaCallModule", "jax2tf/XlaCallModule", ("images",), "classes")
    with pytest.raises(Unusable, match=r"compiled program \(XlaCallModule.* save the model as \.keras"):
        recognize([program], "images", "classes")
