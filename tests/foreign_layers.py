"""MobileNets in TensorFlow's own operations with something in them that no module has, or has elsewhere.

`FOREIGN` has, for each place of a network, what other people's programs do there. A reader either refuses such a file
with the reason, or makes a module of it that computes the same.
"""

import numpy as np
from tensorflow_files import some_weights

from mobilenet_hub.architecture import architecture

SIZE = 64
V1, V2 = architecture("mobilenet_v1", 0.25, 5), architecture("mobilenet_v2", 0.35, 5)


class Plain:
    """TF-Slim's network; what is foreign overrides a part of it."""

    network = V2
    softmax = True

    def __init__(self, tf, weights=None):
        self.tf = tf
        self.values = weights or self.weights()
        self.variables = {}

    def weights(self):
        weights = some_weights(self.network)
        kernel = self.network.classifier[0].name
        return {**weights, kernel: weights[kernel] * np.float32(0.1)}  # so that softmax says something

    def get(self, name):
        """A weight: a constant, or what a subclass keeps it in."""
        return self.variables.get(name, self.values.get(name))

    def before(self, x):
        return x

    def strides(self, at, unit):
        return unit.stride

    def padding(self, at, unit):
        return "SAME"

    def dilation(self, at, unit):
        return 1

    def convolve(self, x, at, unit):
        tf, kernel = self.tf, self.get(unit.kernel.name)
        conv = tf.nn.depthwise_conv2d if unit.depthwise else tf.nn.conv2d
        stride, dilation = self.strides(at, unit), self.dilation(at, unit)
        return conv(x, kernel, [1, stride, stride, 1], self.padding(at, unit), dilations=[dilation] * 2)

    def epsilon(self, at):
        return 0.001

    def normalize(self, x, at, unit):
        gamma, beta, mean, variance = (self.get(one.name) for one in unit.batch_norm)
        return self.tf.compat.v1.nn.fused_batch_norm(
            x, gamma, beta, mean, variance, epsilon=self.epsilon(at), is_training=False
        )[0]

    def activate(self, x, at, unit):
        return self.tf.nn.relu6(x) if unit.relu6 else x

    def add(self, x, other, at):
        return x + other

    def between(self, x, at):
        """Behind a unit."""
        return x

    def pool(self, x):
        return self.tf.reduce_mean(x, [1, 2])

    def behind(self, x):
        """Behind the features."""
        return x

    def head(self, x):
        kernel, bias = (self.get(one.name) for one in self.network.classifier)
        return self.tf.matmul(x, self.tf.reshape(kernel, kernel.shape[-2:])) + bias

    def logits(self, x):
        """Behind the classifier."""
        return x

    def end(self, x):
        return self.tf.nn.softmax(x) if self.softmax else x

    def __call__(self, images):
        x, made = self.before(images), []
        for at, unit in enumerate(self.network.units):
            x = self.normalize(self.convolve(x, at, unit), at, unit)
            x = self.activate(x, at, unit)
            x = x if unit.adds is None else self.add(x, made[unit.adds], at)
            x = self.between(x, at)
            made.append(x)
        return self.end(self.logits(self.head(self.behind(self.pool(x)))))


def variant(base=Plain, **methods):
    """A network with some of its parts replaced."""
    return type("Foreign", (base,), methods)


def at_unit(place, what):
    """Do something behind one unit, and nothing behind the others."""
    return lambda self, x, at: what(self.tf, x) if at == place else x


ADDS = next(at for at, unit in enumerate(V2.units) if unit.adds is not None)
LINEAR = next(at for at, unit in enumerate(V2.units) if not unit.relu6)
CHANNELS = [unit.out_channels for unit in V2.units]
FEATURES = CHANNELS[-1]


def vector(*size, low=0.5, high=1.5):
    """Numbers that are the same whenever a network is built."""
    return np.random.default_rng(size).uniform(low, high, size).astype(np.float32)


def only(place, value, other):
    return lambda self, at, *unit: value if at == place else other(self, at, *unit)


def activation(place, what):
    return lambda self, x, at, unit: what(self.tf, x) if at == place else Plain.activate(self, x, at, unit)


def second_dense(function=None):
    kernel, bias = vector(5, 4, low=-0.5, high=0.5), vector(4)

    def logits(self, x):
        x = x if function is None else function(self.tf, x)
        return self.tf.matmul(x, kernel) + bias

    return logits


def hidden(function):
    kernel, bias = vector(FEATURES, FEATURES, low=-0.05, high=0.05), vector(FEATURES, low=-0.5, high=0.5)
    return lambda self, x: function(self.tf, self.tf.matmul(x, kernel) + bias)


def transposed(self):
    weights = Plain.weights(self)
    name = self.network.units[0].kernel.name
    return {**weights, name: np.ascontiguousarray(weights[name].transpose(1, 0, 2, 3))}


def pool_of(what):
    return lambda self, x: what(self.tf, x)


FOREIGN = {
    "nothing": Plain,
    "v1": variant(network=V1),
    # before
    "before_factor": variant(before=lambda s, x: x * 0.7),
    "before_summand": variant(before=lambda s, x: x + 0.2),
    "before_twice": variant(before=lambda s, x: x * 2.0),
    "before_small": variant(before=lambda s, x: x * 0.05),
    "before_negative": variant(before=lambda s, x: x * -1.0),
    "before_one_minus": variant(before=lambda s, x: 1.0 - x),
    "before_channels": variant(before=lambda s, x: x * np.array([1, 0.9, 1.1], np.float32)),
    "before_reversed": variant(before=lambda s, x: s.tf.reverse(x, [3])),
    "before_transposed": variant(before=lambda s, x: s.tf.transpose(x, [0, 2, 1, 3])),
    "before_relu": variant(before=lambda s, x: s.tf.nn.relu(x)),
    "before_rounded": variant(before=lambda s, x: s.tf.cast(s.tf.cast(x * 3, s.tf.int32), s.tf.float32)),
    "before_map": variant(before=lambda s, x: x * vector(1, SIZE, SIZE, 1)),
    "before_padded": variant(before=lambda s, x: s.tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])[:, 1:-1, 1:-1]),
    # within a unit
    "stride": variant(strides=only(0, 1, lambda s, at, u: u.stride)),
    "stride_moved": variant(
        strides=lambda s, at, u: {0: 1, 1: 2}.get(at, u.stride), network=V1
    ),
    "padding": variant(padding=only(4, "VALID", Plain.padding)),
    "dilation": variant(dilation=only(1, 2, Plain.dilation)),
    "epsilon_of_one": variant(epsilon=lambda s, at: 0.1 if at == 3 else 0.001),
    "epsilon_of_all": variant(epsilon=lambda s, at: 0.01),
    "norm_missing": variant(normalize=lambda s, x, at, u: x if at == 2 else Plain.normalize(s, x, at, u)),
    "norm_twice": variant(
        normalize=lambda s, x, at, u: Plain.normalize(s, Plain.normalize(s, x, at, u), at, u)
        if at == 2
        else Plain.normalize(s, x, at, u)
    ),
    "norm_decomposed": variant(
        normalize=lambda s, x, at, u: s.tf.nn.batch_normalization(
            x, *(s.get(u.batch_norm[i].name) for i in (2, 3, 1, 0)), 0.001
        )
    ),
    "factor_after_convolution": variant(
        normalize=lambda s, x, at, u: Plain.normalize(s, x * 1.3 if at == 3 else x, at, u)
    ),
    "vector_after_convolution": variant(
        normalize=lambda s, x, at, u: Plain.normalize(s, x * vector(x.shape[-1]) if at == 4 else x, at, u)
    ),
    "map_after_convolution": variant(
        normalize=lambda s, x, at, u: Plain.normalize(
            s, x * vector(1, *x.shape[1:3], 1) if at == 4 else x, at, u
        )
    ),
    "bias_after_convolution": variant(
        normalize=lambda s, x, at, u: Plain.normalize(s, s.tf.nn.bias_add(x, vector(x.shape[-1])), at, u)
    ),
    "factor_after_norm": variant(
        normalize=lambda s, x, at, u: Plain.normalize(s, x, at, u) * (1.2 if at == 5 else 1.0)
    ),
    "relu": variant(activate=activation(0, lambda tf, x: tf.nn.relu(x))),
    "relu_everywhere": variant(activate=lambda s, x, at, u: s.tf.nn.relu(x) if u.relu6 else x),
    "leaky": variant(activate=activation(0, lambda tf, x: tf.nn.leaky_relu(x, 0.1))),
    "swish": variant(activate=activation(0, lambda tf, x: x * tf.nn.sigmoid(x))),
    "hard_swish": variant(activate=activation(0, lambda tf, x: x * tf.nn.relu6(x + 3) / 6)),
    "relu_of_5": variant(activate=activation(0, lambda tf, x: tf.minimum(tf.nn.relu(x), 5.0))),
    "elu": variant(activate=activation(0, lambda tf, x: tf.nn.elu(x))),
    "activation_missing": variant(activate=activation(3, lambda tf, x: x)),
    "activation_of_linear": variant(activate=activation(LINEAR, lambda tf, x: tf.nn.relu6(x))),
    # between units
    "between_factor": variant(between=at_unit(2, lambda tf, x: x * 1.1)),
    "between_summand": variant(between=at_unit(3, lambda tf, x: x + 0.3)),
    "between_vector": variant(between=at_unit(3, lambda tf, x: x * vector(x.shape[-1]))),
    "between_clip": variant(between=at_unit(3, lambda tf, x: tf.minimum(x, 2.0))),
    "between_softmax": variant(between=at_unit(3, lambda tf, x: tf.nn.softmax(x))),
    "between_pooling": variant(between=at_unit(3, lambda tf, x: tf.nn.max_pool2d(x, 3, 1, "SAME"))),
    "between_average": variant(between=at_unit(3, lambda tf, x: tf.nn.avg_pool2d(x, 3, 1, "SAME"))),
    "between_attention": variant(
        between=at_unit(3, lambda tf, x: x * tf.nn.sigmoid(tf.reduce_mean(x, [1, 2], keepdims=True)))
    ),
    "between_transposed": variant(between=at_unit(3, lambda tf, x: tf.transpose(x, [0, 2, 1, 3]))),
    "between_reversed": variant(between=at_unit(3, lambda tf, x: tf.reverse(x, [3]))),
    "between_norm": variant(between=at_unit(3, lambda tf, x: tf.nn.l2_normalize(x, 3))),
    "between_mean": variant(between=at_unit(3, lambda tf, x: x - tf.reduce_mean(x, [1, 2, 3], keepdims=True))),
    "between_convolution": variant(
        between=at_unit(3, lambda tf, x: tf.nn.conv2d(x, vector(1, 1, x.shape[-1], x.shape[-1]), 1, "SAME"))
    ),
    # beside
    "residual_missing": variant(add=lambda s, x, other, at: x if at == ADDS else x + other),
    "residual_scaled": variant(add=lambda s, x, other, at: x + other * 0.5 if at == ADDS else x + other),
    "residual_difference": variant(add=lambda s, x, other, at: other - x if at == ADDS else x + other),
    "residual_product": variant(add=lambda s, x, other, at: other * x if at == ADDS else x + other),
    "residual_activated": variant(
        add=lambda s, x, other, at: s.tf.nn.relu6(x + other) if at == ADDS else x + other
    ),
    "residual_more": variant(between=at_unit(3, lambda tf, x: x + x)),
    "residual_twice": variant(add=lambda s, x, other, at: x + other + other if at == ADDS else x + other),
    # in the head
    "max_pooling": variant(pool=pool_of(lambda tf, x: tf.reduce_max(x, [1, 2]))),
    "sum_pooling": variant(pool=pool_of(lambda tf, x: tf.reduce_sum(x, [1, 2]))),
    "part_pooling": variant(pool=pool_of(lambda tf, x: tf.reduce_mean(x[:, :1, :1], [1, 2]))),
    "average_pooling": variant(
        pool=pool_of(lambda tf, x: tf.squeeze(tf.nn.avg_pool2d(x, x.shape[1:3], 1, "VALID"), [1, 2]))
    ),
    "pooled_twice": variant(
        pool=pool_of(lambda tf, x: tf.reduce_mean(tf.reduce_mean(x, [1, 2], keepdims=True), [1, 2]))
    ),
    "pooled_at_each_place": variant(
        pool=pool_of(lambda tf, x: tf.reduce_mean(tf.nn.avg_pool2d(x, 2, 1, "SAME"), [1, 2]))
    ),
    "channel_pooling": variant(
        pool=pool_of(lambda tf, x: tf.tile(tf.reduce_mean(x, [1, 2, 3])[:, None], [1, FEATURES]))
    ),
    "flattened": variant(pool=pool_of(lambda tf, x: tf.reshape(x, [-1, 4 * FEATURES])[:, :FEATURES])),
    "features_factor": variant(behind=lambda s, x: x * 1.5),
    "features_vector": variant(behind=lambda s, x: x * vector(FEATURES) + vector(FEATURES)),
    "features_normalized": variant(behind=lambda s, x: s.tf.nn.l2_normalize(x, 1)),
    "features_reversed": variant(behind=lambda s, x: s.tf.reverse(x, [1])),
    "features_swapped": variant(behind=lambda s, x: s.tf.reshape(
        s.tf.transpose(s.tf.reshape(x, [-1, 2, FEATURES // 2]), [0, 2, 1]), [-1, FEATURES])),
    "features_activated": variant(behind=lambda s, x: s.tf.nn.relu(x - 0.4)),
    "features_relu": variant(behind=lambda s, x: s.tf.nn.relu(x)),
    "hidden": variant(behind=hidden(lambda tf, x: tf.nn.relu(x))),
    "hidden_linear": variant(behind=hidden(lambda tf, x: x)),
    "hidden_relu6": variant(behind=hidden(lambda tf, x: tf.nn.relu6(x))),
    "hidden_tanh": variant(behind=hidden(lambda tf, x: tf.nn.tanh(x))),
    "hidden_residual": variant(
        behind=lambda s, x: x + s.tf.nn.relu(s.tf.matmul(x, np.eye(FEATURES, dtype=np.float32)))
    ),
    "second_dense": variant(logits=second_dense()),
    "second_dense_relu": variant(logits=second_dense(lambda tf, x: tf.nn.relu(x))),
    "second_dense_of_probabilities": variant(logits=second_dense(lambda tf, x: tf.nn.softmax(x))),
    "logits_factor": variant(logits=lambda s, x: x * 0.3),
    "logits_vector": variant(logits=lambda s, x: x * vector(5) - vector(5, low=-1)),
    "logits_reversed": variant(logits=lambda s, x: s.tf.reverse(x, [1])),
    "logits_sliced": variant(logits=lambda s, x: x[:, 1:]),
    "logits_gathered": variant(logits=lambda s, x: s.tf.gather(x, [4, 2, 0, 1, 3], axis=1)),
    "logits_only": variant(softmax=False),
    "softmax_of_another_axis": variant(end=lambda s, x: s.tf.nn.softmax(x[:, :, None], axis=2)[:, :, 0]),
    "softmax_of_groups": variant(
        end=lambda s, x: s.tf.reshape(s.tf.nn.softmax(s.tf.reshape(x[:, :4], [-1, 2, 2])), [-1, 4])
    ),
    "softmax_in_two_axes": variant(
        logits=second_dense(), end=lambda s, x: s.tf.nn.softmax(s.tf.reshape(x, [-1, 2, 2]))
    ),
    "softmax_then_factor": variant(end=lambda s, x: s.tf.nn.softmax(x) * 2),
    "softmax_then_logarithm": variant(end=lambda s, x: s.tf.math.log(s.tf.nn.softmax(x))),
    "log_softmax": variant(end=lambda s, x: s.tf.nn.log_softmax(x)),
    "sigmoids": variant(end=lambda s, x: s.tf.nn.sigmoid(x)),
    "one_minus": variant(end=lambda s, x: 1 - s.tf.nn.softmax(x)),
    "arg_max": variant(end=lambda s, x: s.tf.cast(s.tf.argmax(x, 1), s.tf.float32)[:, None]),
    "rounded": variant(end=lambda s, x: s.tf.cast(s.tf.cast(s.tf.nn.softmax(x) * 9, s.tf.int32), s.tf.float32)),
    # weights in another order: nothing but the numbers says so, and the numbers are taken as they are
    "kernel_transposed": variant(weights=transposed),
}  # fmt: skip
