"""The networks in float64 NumPy, one plain loop over kernel taps: what the compiled graph is held against.

For tests only. It shares the layer tables with the package, not the folding, the layouts or the padding code.
"""

import numpy as np


def same_padding(size, kernel, stride):
    """Zeros (before, after), by TensorFlow's formula."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def symmetric_padding(size, kernel, stride):
    return (kernel - 1) // 2, (kernel - 1) // 2


def bottom_right_padding(size, kernel, stride):
    """keras.applications' V1: ZeroPadding2D(((0, 1), (0, 1))) before a valid convolution of stride 2."""
    return (0, kernel - 1 - (kernel > 2)) if stride == 2 else same_padding(size, kernel, stride)


PADDINGS = {"same": same_padding, "symmetric": symmetric_padding, "bottom_right": bottom_right_padding}


def convolve(x, kernel, stride, depthwise, padding):
    """x [n, h, w, c]; kernel [k, k, in, out], or [k, k, c, 1] where depthwise."""
    size = kernel.shape[0]
    pads = [padding(n, size, stride) for n in x.shape[1:3]]
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
    total = 0.0
    for i in range(size):
        for j in range(size):
            tap = x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
            total = total + (tap * kernel[i, j, :, 0] if depthwise else tap @ kernel[i, j])
    return total


def forward(network, weights, images):
    """Every endpoint by slim's name, and "features" and "logits", in float64."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    padding = PADDINGS[network.variant.padding]
    x = images.astype(np.float64) * network.variant.input_scale + network.variant.input_offset
    ends, outputs = {}, []
    for unit in network.units:
        x = convolve(x, w[unit.kernel.name], unit.stride, unit.depthwise, padding)
        norm = {
            leaf: w[f"{unit.scope}/BatchNorm/{leaf}"] for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        }
        x = (x - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + network.variant.batch_norm_epsilon)
        x = x * norm["gamma"] + norm["beta"]
        if unit.relu6:
            x = np.clip(x, 0, 6)
        if unit.adds is not None:
            x = x + outputs[unit.adds]
        outputs.append(x)
        ends.update(dict.fromkeys(unit.endpoints, x))
    ends["global_pool"] = x.mean(axis=(1, 2), keepdims=True)
    ends["features"] = x = x.mean(axis=(1, 2))
    if network.num_classes:
        for kernel, bias in ((w[k.name], w[b.name]) for k, b in network.hidden):
            x = np.maximum(x @ kernel[0, 0] + bias, 0)
        kernel, bias = (w[variable.name] for variable in network.classifier)
        ends["logits"] = ends["Logits"] = x = x @ kernel[0, 0] + bias
        powers = np.exp(x - x.max(axis=1, keepdims=True))
        ends["Predictions"] = powers / powers.sum(axis=1, keepdims=True)
    return ends


def random_weights(network, seed=0):
    """Weights that keep activations alive and inside ReLU6's range, as in the golden ones."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, variable in network.variables.items():
        leaf = name.rsplit("/", 1)[-1]
        if leaf in ("gamma", "moving_variance"):
            value = random.uniform(0.5, 1.5, variable.shape)
        elif leaf in ("weights", "depthwise_weights"):
            fan_in = 9 if leaf == "depthwise_weights" else np.prod(variable.shape[:-1])
            value = random.standard_normal(variable.shape) * np.sqrt(2 / fan_in)
        else:
            value = random.uniform(-0.25, 0.25, variable.shape)
        weights[name] = value.astype(np.float32)
    return weights
