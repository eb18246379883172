"""The Keras networks on the backend that is set, held against what TF-Slim computes with the golden weights."""

import re

import numpy as np
import pytest
from reference_network import forward, random_weights

from mobilenet_hub.architecture import WEIGHT_DECAY, Variant, architecture, mobilenet_v1, mobilenet_v2
from mobilenet_hub.errors import InvalidModuleError

pytestmark = pytest.mark.keras_backend

RTOL = 1e-4  # what independent float32 implementations agree to, relative to the largest value (golden.py)
CONFIGURATIONS = [f"mobilenet_v1_{m}_{s}" for m in ("025", "050", "075", "100") for s in (128, 160, 192, 224)] + [
    *(f"mobilenet_v2_{m}_{s}" for m in ("035", "050", "075", "100") for s in (96, 128, 160, 192, 224)),
    *(f"mobilenet_v2_{m}_224" for m in ("130", "140")),
]


def numpy(tensor) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))


def assert_close(got, want, rtol=RTOL, what=""):
    got = numpy(got)
    assert got.shape == want.shape, what
    assert np.abs(got - want).max() <= rtol * np.abs(want).max(), what


def configuration(name, num_classes=1001):
    version, multiplier, size = re.fullmatch(r"(mobilenet_v\d)_(\d+)_(\d+)", name).groups()
    return architecture(version, int(multiplier) / 100, num_classes), int(size)


def build(network, weights=None, **arguments):
    from mobilenet_hub.keras.mobilenet import MobileNet

    return MobileNet(network, **arguments).load_slim_weights(weights or random_weights(network))


def golden_model(golden, name, num_classes=1001, **arguments):
    network, size = configuration(name, num_classes)
    weights = {variable: golden.golden_array(variable, v.shape) for variable, v in network.variables.items()}
    return build(network, weights, **arguments), size


def compiled(model, **call_arguments):
    """The model's call as one program, and not operation by operation: what JAX needs to be quick."""
    import keras

    if keras.backend.backend() != "jax":
        return lambda images: model(images, **call_arguments)
    import jax

    call = jax.jit(lambda trainable, rest, images: model.stateless_call(trainable, rest, images, **call_arguments)[0])
    values = [[v.value for v in variables] for variables in (model.trainable_variables, model.non_trainable_variables)]
    return lambda images: call(*values, images)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_inference_equals_tf_slim(name, golden, published):
    model, size = golden_model(golden, name)
    outputs = compiled(model, return_endpoints=True)(golden.golden_images(2, size, size))
    scope = model.network.scope
    assert_close(outputs["default"], published[f"{name}/logits"])
    assert_close(outputs[f"{scope}/global_pool"][:, 0, 0], published[f"{name}/features"])
    for endpoint in model.network.endpoints:
        key = f"{name}/endpoint/{endpoint}"
        if f"{key}/shape" in published:
            value = numpy(outputs[f"{scope}/{endpoint}"])
            # TF-Slim keeps [1, 1, features] for the pooled map; both name the same numbers.
            assert value.size == np.prod(published[f"{key}/shape"]), endpoint
            first, mean = published[f"{key}/first8"], published[f"{key}/mean"]
            assert np.abs(value.ravel()[:8] - first.ravel()).max() <= RTOL * np.abs(value).max(), endpoint
            assert abs(value.mean() - mean) <= RTOL * np.abs(value).max(), endpoint


def train_step(model, direction):
    """A function of images and momentum: one pass forward and backward in training mode.

    It returns features, loss and gradients by slim name.

    The moving statistics are updated; nothing else is.
    """
    import keras

    names = [name for name, variable in model.slim_variables.items() if variable.trainable]
    variables = [model.slim_variables[name] for name in names]
    step = {"tensorflow": tensorflow_step, "torch": torch_step, "jax": jax_step}[keras.backend.backend()]
    run = step(model, variables, direction)

    def named(images, momentum):
        features, loss, gradients = run(images, momentum)
        return numpy(features), float(numpy(loss)), {n: numpy(g) for n, g in zip(names, gradients, strict=True)}

    return named


def tensorflow_step(model, variables, direction):
    import tensorflow as tf

    def run(images, momentum):
        with tf.GradientTape() as tape:
            features = model(images, training=True, batch_norm_momentum=momentum)
            loss = tf.reduce_sum(features * direction) / 4
        return features, loss, tape.gradient(loss, [variable.value for variable in variables])

    return run


def torch_step(model, variables, direction):
    import torch

    def run(images, momentum):
        features = model(images, training=True, batch_norm_momentum=momentum)
        loss = (features * torch.from_numpy(direction)).sum() / 4
        return features, loss, torch.autograd.grad(loss, [variable.value for variable in variables])

    return run


def jax_step(model, variables, direction):
    import jax

    assert [variable.path for variable in model.trainable_variables] == [variable.path for variable in variables]

    def loss_of(trainable, rest, images, momentum):
        arguments = {"training": True, "batch_norm_momentum": momentum}
        features, rest = model.stateless_call(trainable, rest, images, **arguments)
        return (features * direction).sum() / 4, (features, rest)

    gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))

    def run(images, momentum):
        rest = [variable.value for variable in model.non_trainable_variables]
        (loss, (features, rest)), gradients = gradient(
            [variable.value for variable in variables], rest, images, momentum
        )
        for variable, value in zip(model.non_trainable_variables, rest, strict=True):
            variable.assign(value)
        return features, loss, gradients

    return run


@pytest.mark.parametrize("name", ["mobilenet_v1_025_128", "mobilenet_v2_035_96"])
def test_training_equals_tf_slim(name, golden, shared):
    model, size = golden_model(golden, name, num_classes=0)
    weights = model.slim_weights()
    images = golden.golden_images(4, size, size)
    width = model.network.num_features
    direction = golden.uniform(f"direction/{width}", 4 * width).astype(np.float32).reshape(4, width)
    step = train_step(model, direction)
    for momentum in (0.99, 0.9):
        prefix = f"{name}/momentum_{momentum}/"
        with np.load(shared("golden/train_step.npz")) as arrays:
            want = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
        model.load_slim_weights(weights)
        features, loss, gradients = step(images, momentum)
        assert_close(features, want["features"])
        assert loss == pytest.approx(float(want["loss"]), rel=RTOL)
        golden_gradients = {key.removeprefix("grad/"): v for key, v in want.items() if key.startswith("grad/")}
        assert_gradients(gradients, golden_gradients)
        assert_statistics(model, want, "updated")
        step(images, momentum)
        assert_statistics(model, want, "updated_twice")
    classifier, _ = golden_model(golden, name)
    losses = [float(numpy(loss())) for loss in classifier.regularization_losses]
    assert len(losses) == len(classifier.losses) == want["n_reg"]
    assert sum(losses) == pytest.approx(float(want["reg_sum"]), rel=1e-5)
    assert sum(float(numpy(loss)) for loss in classifier.losses) == pytest.approx(float(want["reg_sum"]), rel=1e-5)


def assert_gradients(gradients, want):
    """Compare each gradient's norm and first value.

    A gradient's error comes down all 27 or 52 layers, each a difference of nearly equal sums in batch norm's backward
    pass: 1e-3 of its norm, ten times the tolerance of outputs, is what most must keep. Where rounding opens or shuts
    one ReLU6 gate of a million, all gradients below it jump by about 1e-2: float64 on PyTorch shows that this happens
    to float32 in one element of V1's Conv2d_4_pointwise, with errors of 5e-4 above it and 1e-2 below. The gradient of
    a shift that the next batch norm takes away (beta of V2's projections) is zero but for rounding: hence the floor.
    """
    assert set(gradients) == set(want)
    floor = 1e-5 * max(norm for norm, _ in want.values())
    errors = []
    for variable, gradient in gradients.items():
        norm, first = want[variable]
        off = max(abs(np.linalg.norm(gradient) - norm), abs(gradient.ravel()[0] - first))
        errors.append(max(off - floor, 0) / norm)
        assert errors[-1] <= 2e-2, variable
    assert np.median(errors) <= 1e-3


def assert_statistics(model, want, when):
    names = [name for name, variable in model.slim_variables.items() if not variable.trainable]
    assert len(names) == 2 * len(model.network.units)
    for name in names:
        assert_close(numpy(model.slim_variables[name]).ravel()[:8], want[f"{when}/{name}"], what=name)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (100, 75)], ids=str)
@pytest.mark.parametrize(
    "network",
    [mobilenet_v1(0.25, num_classes=5), mobilenet_v2(0.35, num_classes=5)],
    ids=lambda network: network.name,
)
def test_any_image_size(network, size):
    weights = random_weights(network)
    images = np.random.default_rng(0).random((2, *size, 3), np.float32)
    assert_close(compiled(build(network, weights))(images), forward(network, weights, images)["logits"])


@pytest.mark.parametrize("padding", ["symmetric", "bottom_right"])
def test_networks_that_compute_differently(padding):
    from dataclasses import replace

    network = replace(mobilenet_v2(0.35, num_classes=4), variant=Variant(1e-5, padding, 1.7, -0.7, (7, 6)))
    weights = random_weights(network)
    images = np.random.default_rng(1).random((2, 64, 64, 3), np.float32)
    want = forward(network, weights, images)["logits"]
    assert_close(compiled(build(network, weights))(images), want)
    plain = forward(replace(network, variant=replace(network.variant, padding="same")), weights, images)["logits"]
    assert np.abs(plain - want).max() > 100 * RTOL * np.abs(want).max() or padding == "bottom_right"  # even sizes


def test_a_graph_of_unknown_size_takes_every_size():
    import keras

    network = mobilenet_v1(0.25, num_classes=0)
    images = keras.Input((None, None, 3))
    backbone = build(network)
    model = keras.Model(images, backbone(images))
    assert model.output_shape == (None, 256)
    for size in (32, 45):
        batch = np.random.default_rng(2).random((2, size, size, 3), np.float32)
        assert_close(model.predict(batch, verbose=0), forward(network, random_weights(network), batch)["features"])


def small(classes=3, **arguments):
    """A network for the tests that need no particular one, small enough to train in a blink."""
    return build(mobilenet_v1(0.25, num_classes=classes), **arguments)


def photos(count=8, size=32):
    return np.random.default_rng(3).random((count, size, size, 3), np.float32)


def test_fit_learns_and_moves_every_statistic():
    import keras

    model = small()
    before = model.slim_weights()
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(photos(), np.arange(8) % 3, batch_size=4, epochs=1, verbose=0)
    after = model.slim_weights()
    assert [name for name in before if (before[name] == after[name]).all()] == []
    model.evaluate(photos(), np.arange(8) % 3, verbose=0)
    model.predict(photos(), verbose=0)
    assert all((array == after[name]).all() for name, array in model.slim_weights().items())


def test_frozen_in_fit_changes_nothing():
    import keras

    backbone = small(classes=0)
    backbone.trainable = False
    model = keras.Sequential([backbone, keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before, features = backbone.slim_weights(), numpy(compiled(backbone)(photos()))
    model.fit(photos(), np.arange(8) % 3, batch_size=4, verbose=0)
    assert all((array == before[name]).all() for name, array in backbone.slim_weights().items())
    assert (numpy(compiled(backbone, training=True)(photos())) == features).all()
    assert model.losses == []
    backbone.trainable = True
    assert len(model.losses) == len(backbone.regularization_losses) == 14
    assert np.abs(numpy(compiled(backbone, training=True)(photos())) - features).max() > 0.01


def test_weight_decay_is_slims_half_sum_of_squares():
    model = small(weight_decay=0.5)
    weights = model.slim_weights()
    regularized = [name for name, variable in model.network.variables.items() if variable.regularized]
    want = [0.25 * np.square(weights[name]).sum() for name in regularized]
    np.testing.assert_allclose([numpy(loss()) for loss in model.regularization_losses], want, rtol=1e-5)
    assert small(weight_decay=0).regularization_losses == []
    assert WEIGHT_DECAY == 4e-5


@pytest.mark.parametrize("training", [False, True])
def test_dropout_acts_before_the_classifier_in_training_only(training):
    never, often = (
        compiled(small(dropout_rate=rate), training=training, return_endpoints=True)(photos()) for rate in (0.0, 0.5)
    )
    assert_close(often["MobilenetV1/global_pool"], numpy(never["MobilenetV1/global_pool"]))  # features keep all
    difference = np.abs(numpy(often["default"]) - numpy(never["default"])).max()
    assert bool(difference > 0.01) is training


def test_endpoints_have_slims_names_and_shapes():
    model = build(mobilenet_v2(0.35, num_classes=5))
    outputs = compiled(model, return_endpoints=True)(photos(2, 64))
    assert set(outputs) == {"default", *(f"MobilenetV2/{name}" for name in model.network.endpoints)}
    for name, shape in model.network.endpoint_shapes(64, 64).items():
        assert tuple(outputs[f"MobilenetV2/{name}"].shape) == (2, *shape), name
    np.testing.assert_allclose(numpy(outputs["MobilenetV2/Predictions"]).sum(axis=1), 1, rtol=1e-5)


def test_mixed_precision_trains_and_stays_near():
    import keras

    full = small()
    model = small(dtype="mixed_bfloat16")
    # bfloat16 rounds to 1 in 256; 28 layers of it, not all in one direction.
    assert_close(keras.ops.cast(compiled(model)(photos()), "float32"), numpy(compiled(full)(photos())), rtol=0.1)
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.slim_weights()
    model.fit(photos(), np.arange(8) % 3, batch_size=8, verbose=0)
    after = model.slim_weights()
    assert all(np.isfinite(array).all() for array in after.values())
    assert [name for name in before if (before[name] == after[name]).all()] == []
    assert {str(variable.dtype) for variable in model.slim_variables.values()} == {"float32"}


def test_the_config_makes_the_same_network_again():
    from dataclasses import replace

    from mobilenet_hub.keras.mobilenet import MobileNet

    network = replace(
        mobilenet_v1(0.3, num_classes=4), variant=Variant(padding="symmetric", hidden_units=(5,), input_scale=1.9)
    )
    model = MobileNet(network, 0.9, 1e-3, 0.25, name="backbone", trainable=False, dtype="mixed_bfloat16")
    again = MobileNet.from_config(model.get_config())
    assert again.network == network
    assert again.get_config() == model.get_config()
    assert (again.name, again.trainable, again.compute_dtype) == ("backbone", False, "bfloat16")


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_saving_is_bit_exact(tmp_path, ending):
    import keras

    inputs = keras.Input((32, 32, 3))
    first, second = small(classes=0), build(mobilenet_v2(0.35, num_classes=0))
    twin = build(mobilenet_v1(0.25, num_classes=0), random_weights(mobilenet_v1(0.25, num_classes=0), seed=1))
    model = keras.Model(inputs, keras.layers.Concatenate()([first(inputs), second(inputs), twin(inputs)]))
    paths = [variable.path for variable in model.variables]
    assert len(set(paths)) == len(paths) == 135 + 260 + 135
    want = model.predict(photos(2), verbose=0)
    if ending == ".keras":
        model.save(tmp_path / f"model{ending}")
        loaded = keras.saving.load_model(tmp_path / f"model{ending}")
    else:
        model.save_weights(tmp_path / f"model{ending}")
        loaded = keras.models.clone_model(model)
        loaded.load_weights(tmp_path / f"model{ending}")
    assert (loaded.predict(photos(2), verbose=0) == want).all()
    assert [variable.path for variable in loaded.variables] == paths or ending != ".keras"


def test_weights_that_do_not_fit_are_named_and_change_nothing():
    model = small()
    before = model.slim_weights()
    assert list(before) == list(model.network.variables)
    other = random_weights(model.network, seed=9)
    last = "MobilenetV1/Logits/Conv2d_1c_1x1/biases"
    with pytest.raises(InvalidModuleError, match=f"no '{last}'.*needs \\[3\\]"):
        model.load_slim_weights({name: array for name, array in other.items() if name != last})
    with pytest.raises(InvalidModuleError, match=f"'{last}' has shape \\[4\\]; this network needs \\[3\\]"):
        model.load_slim_weights({**other, last: np.zeros(4, np.float32)})
    assert all((array == before[name]).all() for name, array in model.slim_weights().items())


def test_a_persistent_tape_gives_two_gradients():
    """Version 5 of the modules fixed a bug with tf.GradientTape(persistent=True)."""
    tf = pytest.importorskip("tensorflow")
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("tapes are TensorFlow's")
    model = small()
    variable = model.slim_variables["MobilenetV1/Conv2d_0/weights"].value
    with tf.GradientTape(persistent=True) as tape:
        loss = tf.reduce_sum(model(photos(), training=True))
        double = 2 * loss
    np.testing.assert_allclose(
        tape.gradient(double, variable), 2 * tape.gradient(loss, variable).numpy(), rtol=1e-4, atol=1e-4
    )
