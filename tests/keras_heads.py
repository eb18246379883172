"""Models as people build them on keras.applications' MobileNets, for Keras 3 and tf_keras alike."""

import numpy as np

SIZE = 64


def body(keras, version, alpha=0.35, size=SIZE):
    """keras.applications' network without its top, its statistics away from where they begin."""
    make = keras.applications.MobileNetV2 if version == 2 else keras.applications.MobileNet
    network = make((size, size, 3), alpha=alpha if version == 2 else 0.25, include_top=False, weights=None)
    return randomized(network, version)


def randomized(network, seed=0):
    """Give a network weights and statistics as training leaves them: what images are reaches its end.

    With Keras's own first weights it does not: all images give nearly the same features, and a wrong scale would pass.
    """
    random = np.random.default_rng(seed)
    norms = [layer for layer in network.layers if "BatchNorm" in type(layer).__name__]
    for layer in network.layers:
        kind = type(layer).__name__
        if layer in norms:
            gamma, beta, *statistics = layer.get_weights()
            layer.set_weights([random.uniform(0.5, 1.5, gamma.shape), random.normal(0.2, 0.3, beta.shape), *statistics])
            layer.momentum, layer.before = 0, layer.momentum
        elif kind in ("Conv2D", "DepthwiseConv2D"):
            kernel, *bias = layer.get_weights()
            inputs = np.prod(kernel.shape[: 2 if "Depthwise" in kind else 3])
            layer.set_weights([random.normal(0, np.sqrt(2 / inputs), kernel.shape), *bias])
    network(
        some_images(8, network.input_shape[1:3]) * 2 - 1, training=True
    )  # so that the statistics are those of images
    for layer in norms:
        layer.momentum = layer.before
        del layer.before
    return network


def preprocess(keras, version):
    module = keras.applications.mobilenet_v2 if version == 2 else keras.applications.mobilenet
    return module.preprocess_input


# Name -> (what comes before the network, what comes behind it, how pixels are given to the model): functions of keras
# and the version, layers or functions of tensors.
PIXELS, UNIT, ONE = "0..255", "[0, 1]", "[-1, 1]"
BEFORE = {
    "nothing": (lambda k, v: [], ONE),
    "preprocess": (lambda k, v: [preprocess(k, v)], PIXELS),
    "rescaling": (lambda k, v: [k.layers.Rescaling(1 / 127.5, offset=-1)], PIXELS),
    "rescaling255": (lambda k, v: [k.layers.Rescaling(1 / 255)], PIXELS),
    "rescaling_both": (lambda k, v: [k.layers.Rescaling(1 / 255), k.layers.Rescaling(2.0, offset=-1)], PIXELS),
    "augmented": (
        lambda k, v: [
            k.layers.RandomFlip("horizontal"), k.layers.RandomRotation(0.1), k.layers.Rescaling(1 / 127.5, offset=-1),
        ],
        PIXELS,
    ),
}  # fmt: skip
MEAN = ("GlobalAveragePooling2D", {})


def layers(*made):
    return lambda keras: [getattr(keras.layers, name)(*arguments, **options) for name, arguments, options in made]


def dense(units, activation=None, **options):
    return ("Dense", (units,), {"activation": activation, **options})


GAP, DROP, NORM = ("GlobalAveragePooling2D", (), {}), ("Dropout", (0.3,), {}), ("BatchNormalization", (), {})
BEHIND = {
    "softmax": layers(GAP, DROP, dense(4, "softmax")),
    "logits": layers(GAP, dense(4)),
    "no_bias": layers(GAP, dense(4, "softmax", use_bias=False)),
    "sigmoid": layers(GAP, DROP, dense(1, "sigmoid")),
    "one_logit": layers(GAP, dense(1)),
    "hidden": layers(GAP, dense(9, "relu"), DROP, dense(4, "softmax")),
    "three_hidden": layers(GAP, dense(9, "relu"), dense(8, "relu"), DROP, dense(7, "relu"), dense(4, "softmax")),
    "hidden_sigmoid": layers(GAP, dense(9, "relu"), dense(1, "sigmoid")),
    "norm_before": layers(GAP, NORM, DROP, dense(4, "softmax")),
    "norm_between": layers(GAP, NORM, dense(9), NORM, ("ReLU", (), {}), NORM, dense(4), ("Softmax", (), {})),
    "activation_layers": layers(
        GAP, dense(9), ("Activation", ("relu",), {}), dense(4), ("Activation", ("softmax",), {})
    ),
    "linear_pair": layers(GAP, dense(9), dense(4, "softmax")),
    "average_pooling": layers(("AveragePooling2D", ((2, 2),), {}), ("Flatten", (), {}), dense(4, "softmax")),
    "keepdims": layers(("GlobalAveragePooling2D", (), {"keepdims": True}), ("Flatten", (), {}), dense(4, "softmax")),
    "convolution_1x1": layers(
        ("GlobalAveragePooling2D", (), {"keepdims": True}),
        DROP,
        ("Conv2D", (4, 1), {}),
        ("Reshape", ((4,),), {}),
        ("Activation", ("softmax",), {}),
    ),
    "hidden_norm_relu": layers(GAP, dense(9, use_bias=False), NORM, ("Activation", ("relu",), {}), dense(4, "softmax")),
    "noise": layers(GAP, ("GaussianNoise", (0.1,), {}), dense(4, "softmax", kernel_regularizer="l2")),
    "softmax_layer": layers(GAP, dense(4), ("Softmax", (), {})),
    "features": layers(GAP),
}
REFUSED = {
    "flatten": (layers(("Flatten", (), {}), dense(4, "softmax")), "flattens? the feature map"),
    "max_pooling": (layers(("GlobalMaxPooling2D", (), {}), dense(4, "softmax")), "global max pooling"),
    "relu6": (layers(GAP, dense(9, "relu6"), dense(4, "softmax")), "activation relu6"),
    "gelu": (layers(GAP, dense(9, "gelu"), dense(4, "softmax")), "(?i)gelu"),
    "elu_layer": (layers(GAP, dense(9), ("ELU", (), {}), dense(4, "softmax")), "(?i)elu"),
    "leaky": (layers(GAP, dense(9), ("LeakyReLU", (), {}), dense(4, "softmax")), "(?i)leaky.?relu"),
    "tanh": (layers(GAP, dense(9, "tanh"), dense(4, "softmax")), "activation tanh"),
    "many_sigmoids": (layers(GAP, dense(4, "sigmoid")), "4 classes are independent"),
    "one_softmax": (layers(GAP, dense(1, "softmax")), "softmax of one unit"),
    "behind_softmax": (layers(GAP, dense(4, "softmax"), dense(3)), "another layer follows its softmax"),
    "convolution": (layers(("Conv2D", (8, 3), {"padding": "same"}), GAP, dense(4)), "no part of a MobileNet"),
    "norm_of_map": (layers(NORM, GAP, dense(4)), "follows an activation"),
    "max_of_map": (layers(("MaxPooling2D", (2,), {}), GAP, dense(4)), "no part of a MobileNet"),
    "part_pooling": (layers(("AveragePooling2D", ((1, 1),), {}), GAP, dense(4)), "not all of it"),
}


def nested(keras, network, before, behind):
    """Functional, the network a layer of the model."""
    inputs = x = keras.Input(network.input_shape[1:])
    for one in before:
        x = one(x)
    x = network(x, training=False)
    for one in behind:
        x = one(x)
    return keras.Model(inputs, x)


def flat(keras, network, before, behind):
    """Functional, the network's own layers."""
    del before
    x = network.output
    for one in behind:
        x = one(x)
    return keras.Model(network.input, x)


def sequential(keras, network, before, behind):
    return keras.Sequential([*(one for one in before if hasattr(one, "name")), network, *behind])


FORMS = {"nested": nested, "flat": flat, "sequential": sequential}


def some_images(count=2, size=(SIZE, SIZE)):
    """Images in [0, 1] of different colours and shapes: of noise alone, a network's features are nearly the same."""
    random = np.random.default_rng(0)
    height, width = (-(-side // 4) if side else SIZE // 4 for side in size)
    coarse = random.random((count, 4, 4, 3)) * random.random((count, 1, 1, 3))
    images = np.kron(coarse, np.ones((1, height, width, 1)))[:, : size[0], : size[1]]
    return (0.8 * images + 0.2 * random.random(images.shape)).astype(np.float32)


def given(images, how):
    """Images in [0, 1] as a model takes them."""
    return {PIXELS: images * 255, UNIT: images, ONE: images * 2 - 1}[how]


def shaken(model, but=(), seed=0):
    """Give layers, but for some, weights that say something, and keep what they say away from 0 and 1."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        own = layer in but or (type(layer).__name__ == "Conv2D" and not layer.use_bias)
        if type(layer).__name__ in ("Dense", "Conv2D", "BatchNormalization") and not own:
            layer.set_weights([_some(random, one.shape) for one in layer.get_weights()])
    return model


def _some(random, shape):
    if len(shape) == 1:
        return random.uniform(0.1, 0.5, shape)
    return random.normal(0.1, 1, shape) / np.sqrt(np.prod(shape[:-1]))
