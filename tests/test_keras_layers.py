"""Our batch norm and convolutions on the backend that is set, held against plain NumPy in float64."""

import numpy as np
import pytest
from reference_network import PADDINGS, convolve

pytestmark = pytest.mark.keras_backend

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # sums of at most a thousand float32 products of values near one


def numpy(tensor) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))


def build_batch_norm(channels, **arguments):
    from mobilenet_hub.keras.layers import BatchNorm

    layer = BatchNorm(**arguments)
    layer.build((None, None, None, channels))
    return layer


def expected(x, epsilon):
    """The output for gamma 1, beta 0, and the statistics that TensorFlow's fused kernel reports."""
    count = x.size // x.shape[-1]
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + epsilon), mean, variance * count / max(count - 1, 1)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (4, 1, 1, 8), (1, 1, 1, 3)])
def test_training_takes_over_the_corrected_variance(shape):
    x = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    layer = build_batch_norm(shape[-1], epsilon=1e-3, momentum=0.9)
    output = numpy(layer(x, training=True))
    want, mean, variance = expected(x.astype(np.float64), 1e-3)
    np.testing.assert_allclose(output, want, rtol=1e-4, atol=1e-4)  # a difference of nearly equal values, divided
    np.testing.assert_allclose(numpy(layer.moving_mean), 0.1 * mean, **CLOSE)
    np.testing.assert_allclose(numpy(layer.moving_variance), 0.9 + 0.1 * variance, **CLOSE)


@pytest.mark.parametrize("momentum", [0.8, 1.0, 0.0])
def test_a_call_may_give_the_momentum(momentum):
    import keras

    x = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype(np.float32)
    layer = build_batch_norm(3)
    layer(x, training=True, momentum=keras.ops.convert_to_tensor(momentum, "float32"))
    other = build_batch_norm(3)
    other(x, training=True, momentum=momentum)
    want = (1 - momentum) * expected(x, 1e-3)[1]
    np.testing.assert_allclose(numpy(layer.moving_mean), want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(numpy(other.moving_mean), want, rtol=1e-5, atol=1e-7)
    if momentum == 1.0:
        assert not numpy(other.moving_mean).any()
        assert (numpy(other.moving_variance) == 1).all()


def test_statistics_move_only_where_training_and_trainable():
    x = np.random.default_rng(2).normal(5, 3, (2, 4, 4, 3)).astype(np.float32)
    layer = build_batch_norm(3)
    for training, trainable in ((False, True), (False, False), (True, False)):
        layer.trainable = trainable
        output = numpy(layer(x, training=training))
        np.testing.assert_allclose(output, x / np.sqrt(1 + 1e-3), **CLOSE)
        assert not numpy(layer.moving_mean).any(), (training, trainable)
    layer.trainable = True
    layer(x, training=True)
    assert numpy(layer.moving_mean).all()


def test_constant_batches_are_learnt_geometrically():
    """The retraining example of TensorFlow Hub's own tests: x = 11, 12, 13 has mean 12."""
    x = np.array([11.0, 12.0, 13.0], np.float32).reshape(3, 1, 1, 1)
    layer = build_batch_norm(1, momentum=0.8)
    for step in range(1, 31):
        layer(x, training=True)
        np.testing.assert_allclose(numpy(layer.moving_mean), 12 * (1 - 0.8**step), rtol=1e-5)
        np.testing.assert_allclose(numpy(layer.moving_variance), 1.0, rtol=1e-5)  # corrected: 2 / 3 * 3 / 2


def test_half_precision_keeps_the_statistics_in_float32():
    x = np.random.default_rng(3).normal(100, 1, (4, 8, 8, 2)).astype(np.float32)  # 100 +- 1: bfloat16 has 8 bits
    layer = build_batch_norm(2, momentum=0.0, dtype="mixed_bfloat16")
    output = layer(x, training=True)
    assert "bfloat16" in str(output.dtype)
    import keras

    rounded = numpy(keras.ops.cast(keras.ops.cast(x, "bfloat16"), "float32"))
    np.testing.assert_allclose(numpy(layer.moving_mean), rounded.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(numpy(layer.moving_variance), rounded.var((0, 1, 2), ddof=1), rtol=1e-3)
    assert all("float32" in str(variable.dtype) for variable in layer.variables)


def test_batch_norm_is_made_again_from_its_config():
    import keras

    layer = build_batch_norm(2, epsilon=1e-5, momentum=0.7, name="BatchNorm")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (again.epsilon, again.momentum, again.name) == (1e-5, 0.7, "BatchNorm")


@pytest.mark.parametrize("depthwise", [False, True], ids=["full", "depthwise"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 2), (1, 1), (1, 6), (33, 12)], ids=str)
@pytest.mark.parametrize("kernel_size, stride", [(3, 1), (3, 2), (1, 1)])
def test_convolution_pads_as_the_rule_says(kernel_size, stride, size, padding, depthwise):
    from mobilenet_hub.keras.convolution import convolve as convolve_here

    random = np.random.default_rng(4)
    x = random.normal(size=(2, *size, 6)).astype(np.float32)
    kernel = random.normal(size=(kernel_size, kernel_size, 6, 1 if depthwise else 5)).astype(np.float32)
    try:
        want = convolve(x.astype(np.float64), kernel.astype(np.float64), stride, depthwise, PADDINGS[padding])
    except ValueError:
        want = None
    if want is None or 0 in want.shape:
        pytest.skip("no output of that size")
    got = numpy(convolve_here(x_tensor(x), x_tensor(kernel), stride, padding, depthwise))
    np.testing.assert_allclose(got, want, **CLOSE)


def test_wide_pointwise_convolutions_are_right():
    from mobilenet_hub.keras.convolution import convolve as convolve_here

    random = np.random.default_rng(5)
    x = random.normal(size=(2, 4, 3, 96)).astype(np.float32)
    kernel = random.normal(size=(1, 1, 96, 128)).astype(np.float32)
    got = numpy(convolve_here(x_tensor(x), x_tensor(kernel), 1, "same", False))
    np.testing.assert_allclose(got, x @ kernel[0, 0], rtol=1e-4, atol=1e-4)


def gradients(x, kernel, upstream, *geometry):
    """The gradients of sum(convolve(x, kernel) * upstream), as training computes them."""
    import keras

    from mobilenet_hub.keras.convolution import convolve as convolve_here

    backend = keras.backend.backend()
    x, kernel, upstream = map(x_tensor, (x, kernel, upstream))
    if backend == "torch":
        import torch

        x, kernel = x.clone().requires_grad_(), kernel.clone().requires_grad_()
        loss = (convolve_here(x, kernel, *geometry, training=True) * upstream).sum()
        return [numpy(gradient) for gradient in torch.autograd.grad(loss, (x, kernel))]
    if backend == "jax":
        import jax

        def loss_of(x, kernel):
            return (convolve_here(x, kernel, *geometry, training=True) * upstream).sum()

        return [numpy(gradient) for gradient in jax.grad(loss_of, (0, 1))(x, kernel)]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        loss = tf.reduce_sum(convolve_here(x, kernel, *geometry, training=True) * upstream)
    return [numpy(gradient) for gradient in tape.gradient(loss, [x, kernel])]


@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-10), ("float32", 1e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 5), (33, 12)], ids=str)
@pytest.mark.parametrize("kernel_size, stride, depthwise", [(3, 1, True), (3, 2, True), (1, 1, False), (3, 2, False)])
def test_gradients_are_those_of_the_convolution(kernel_size, stride, depthwise, size, padding, dtype, rtol):
    """A convolution is linear in both: a gradient times any change is the exact change of the sum."""
    import keras

    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless asked")
    random = np.random.default_rng(6)
    shapes = (2, *size, 6), (kernel_size, kernel_size, 6, 1 if depthwise else 5)
    # Rounded first, so that only the arithmetic can differ.
    x, kernel = (numpy(keras.ops.cast(random.normal(size=shape), dtype)).astype(np.float64) for shape in shapes)
    outputs = convolve(x, kernel, stride, depthwise, PADDINGS[padding])
    upstream = numpy(keras.ops.cast(random.normal(size=outputs.shape), dtype)).astype(np.float64)
    given = [keras.ops.cast(array, dtype) for array in (x, kernel, upstream)]
    of_x, of_kernel = (one.astype(np.float64) for one in gradients(*given, stride, padding, depthwise))
    for step in range(4):
        change = random.normal(size=x.shape)
        want = (convolve(change, kernel, stride, depthwise, PADDINGS[padding]) * upstream).sum()
        noise = float(np.linalg.norm(of_x)) * rtol
        assert (of_x * change).sum() == pytest.approx(want, rel=rtol, abs=3 * noise), step
    for index in np.ndindex(kernel.shape):
        one = np.zeros(kernel.shape)
        one[index] = 1
        want = (convolve(x, one, stride, depthwise, PADDINGS[padding]) * upstream).sum()
        assert of_kernel[index] == pytest.approx(want, rel=rtol, abs=rtol * float(np.abs(of_kernel).max())), index


@pytest.mark.parametrize("kernel_size, stride, depthwise", [(3, 1, True), (3, 2, True), (1, 1, False)])
def test_second_derivatives_are_right(kernel_size, stride, depthwise):
    """Of sum(convolve(x, kernel) ** 2) / 2, by x and then by the kernel, against differences of the first."""
    import keras

    from mobilenet_hub.keras.convolution import convolve as convolve_here

    random = np.random.default_rng(7)
    x, direction = random.normal(size=(2, 2, 6, 5, 4))
    kernel, change = random.normal(size=(2, kernel_size, kernel_size, 4, 1 if depthwise else 3))
    if keras.backend.backend() == "torch":
        import torch

        def function(x, kernel):
            return convolve_here(x, kernel, stride, "same", depthwise, training=True)

        inputs = [torch.tensor(one, requires_grad=True) for one in (x, kernel)]
        assert torch.autograd.gradcheck(function, inputs) and torch.autograd.gradgradcheck(function, inputs)
        return
    if keras.backend.backend() == "jax":
        pytest.skip("JAX's own gradients")
    import tensorflow as tf

    def slope(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(convolve_here(x, kernel, stride, "same", depthwise, training=True) ** 2) / 2
        return tf.reduce_sum(tape.gradient(loss, x) * direction)

    x, kernel = tf.constant(x), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        first = slope(x, kernel)
    got = float(tf.reduce_sum(tape.gradient(first, kernel) * change))
    step = 1e-4  # the function is of second degree in the kernel: central differences of its slope are exact
    want = float(slope(x, kernel + step * change) - slope(x, kernel - step * change)) / (2 * step)
    assert got == pytest.approx(want, rel=1e-6)


def test_initial_weights_are_truncated_and_seeded():
    import keras

    from mobilenet_hub.architecture import WEIGHT_STDDEV
    from mobilenet_hub.keras.layers import truncated_normal

    keras.utils.set_random_seed(3)
    values = truncated_normal((100, 1000))
    keras.utils.set_random_seed(3)
    assert (truncated_normal((100, 1000)) == values).all()
    assert values.dtype == np.float32
    assert np.abs(values).max() <= 2 * WEIGHT_STDDEV
    # A unit normal cut at two deviations has the standard deviation 0.8796; 1e5 draws give it within 0.5 %.
    assert values.std() == pytest.approx(0.8796 * WEIGHT_STDDEV, rel=5e-3)


def x_tensor(array):
    import keras

    return keras.ops.convert_to_tensor(array)
