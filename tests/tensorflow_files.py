"""Writes small TensorFlow files for the readers' tests: checkpoints, graphs, SavedModels, in any state of disorder.

An encoder of its own, so that the tests need neither TensorFlow nor the reference data. Imports the checksum that the
files carry, which test_weights_tensorflow_sstable.py checks against published values.
"""

import struct

import numpy as np

from mobilenet_hub.architecture import mobilenet_v1, mobilenet_v2
from mobilenet_hub.weights.tensorflow.sstable import masked_crc32c

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19, "uint16": 14}  # uint16: as bfloat16
STRING = 7
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def blob(field, value):
    data = value.encode() if isinstance(value, str) else bytes(value)
    return varint(field << 3 | 2) + varint(len(data)) + data


def fixed32(field, value):
    return varint(field << 3 | 5) + struct.pack("<I", value)


def mapping(field, entries):
    return b"".join(blob(field, blob(1, key) + blob(2, value)) for key, value in entries.items())


def shape(sizes):
    return b"".join(blob(2, number(1, size)) for size in sizes)


# Checkpoints


def block(contents, compress=None):
    kind = b"\0" if compress is None else b"\1"
    contents = contents if compress is None else compress(contents)
    return contents + kind + struct.pack("<I", masked_crc32c(contents + kind))


def entries(pairs):
    """A block's contents: keys that share their beginning with the one before."""
    out, last = bytearray(), b""
    for key, value in pairs:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(out) + struct.pack("<II", 0, 1)


def table(pairs, per_block=5, compress=None):
    pairs = sorted(pairs.items())
    body, index = bytearray(), []
    for at in range(0, len(pairs), per_block):
        some = pairs[at : at + per_block]
        data = block(entries(some), compress)
        index.append((some[-1][0], varint(len(body)) + varint(len(data) - 5)))
        body += data
    handles = b""
    for contents in (entries([]), entries(index)):
        handles += varint(len(body)) + varint(len(contents))
        body += block(contents)
    return bytes(body) + handles.ljust(40, b"\0") + MAGIC


def string_tensor(strings):
    lengths = b"".join(struct.pack("<I", len(s)) for s in strings)
    check = struct.pack("<I", masked_crc32c(lengths))
    data = b"".join(varint(len(s)) for s in strings) + check + b"".join(strings)
    return data, masked_crc32c(lengths + check + b"".join(strings))


def write_bundle(prefix, tensors, compress=None, gap=0):
    """Write a checkpoint; a bytes value becomes a scalar string."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    data = bytearray()
    rows = {b"": number(1, 1) + blob(3, number(1, 1))}
    for name, value in tensors.items():
        if isinstance(value, bytes):
            (raw, crc), dtype, sizes = string_tensor([value]), STRING, ()
        else:
            raw, dtype, sizes = value.tobytes(), DTYPES[value.dtype.name], value.shape
            crc = masked_crc32c(raw)
        rows[name.encode()] = (
            number(1, dtype) + blob(2, shape(sizes)) + number(4, len(data)) + number(5, len(raw)) + fixed32(6, crc)
        )
        data += raw + bytes(gap)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(rows, compress=compress))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(bytes(data))
    return prefix


# Graphs


def node(name, op, inputs=(), **attributes):
    return blob(1, name) + blob(2, op) + b"".join(blob(3, one) for one in inputs) + mapping(5, attributes)


def tensor(array):
    return number(1, DTYPES[array.dtype.name]) + blob(2, shape(array.shape)) + blob(4, array.tobytes())


def constant(name, array):
    return node(name, "Const", value=blob(8, tensor(array)), dtype=number(6, DTYPES[array.dtype.name]))


def placeholder(sizes, name="input"):
    return node(name, "Placeholder", shape=blob(7, shape(sizes)))


def variable(name, sizes):
    return node(name, "VarHandleOp", shape=blob(7, shape(sizes)))


def graph(nodes):
    versions = blob(4, number(1, 1882))
    return b"".join(blob(1, one) for one in nodes) + versions


def frozen_graph(weights, image_size=(128, 128), scope=""):
    return graph(frozen_graph_nodes(weights, image_size, scope))


def integers(*values):
    return blob(1, blob(3, bytes(values)))


def read(name, array):
    """A frozen variable."""
    return [constant(name, array), node(f"{name}/read", "Identity", [name])]


def convolution(name, inputs, stride=1, depthwise=False, padding="SAME"):
    op = "DepthwiseConv2dNative" if depthwise else "Conv2D"
    return node(name, op, inputs, padding=blob(2, padding), strides=integers(1, stride, stride, 1))


def frozen_graph_nodes(weights, image_size=(128, 128), scope=""):
    """TF-Slim's network as TensorFlow freezes it, whichever the weights belong to, of multiplier 0.25 or 0.35."""
    v1 = any(name.startswith("MobilenetV1") for name in weights)
    base = (mobilenet_v1 if v1 else mobilenet_v2)(0.25 if v1 else 0.35, 0)
    nodes, x, made = [placeholder((1, *image_size, 3))], "input", []
    for unit in base.units:
        kernel, norm = unit.kernel.name, [one.name for one in unit.batch_norm]
        for name in (kernel, *norm):
            nodes += read(scope + name, weights[name])
        at = f"{scope}{base.scope}/{unit.scope}"
        nodes.append(convolution(f"{at}/conv", [x, f"{scope}{kernel}/read:0", "^input"], unit.stride, unit.depthwise))
        arguments = [f"{at}/conv", *(f"{scope}{name}/read" for name in norm)]
        epsilon = fixed32(4, struct.unpack("<I", struct.pack("<f", 0.001))[0])
        nodes.append(node(f"{at}/norm", "FusedBatchNorm", arguments, epsilon=epsilon, is_training=number(5, 0)))
        x = f"{at}/norm"
        if unit.relu6:
            nodes.append(node(f"{at}/Relu6", "Relu6", [x]))
            x = f"{at}/Relu6"
        if unit.adds is not None:
            nodes.append(node(f"{at}/add", "Add", [x, made[unit.adds]]))
            x = f"{at}/add"
        made.append(x)
    height, width = base.output_sizes(*image_size)[-1]
    nodes.append(node(f"{scope}pool", "AvgPool", [x], ksize=integers(1, height, width, 1), padding=blob(2, "VALID")))
    kernel, bias = (f"{base.scope}/Logits/Conv2d_1c_1x1/{leaf}" for leaf in ("weights", "biases"))
    if kernel not in weights:
        return nodes
    nodes += [*read(scope + kernel, weights[kernel]), *read(scope + bias, weights[bias])]
    nodes.append(convolution(f"{scope}logits", [f"{scope}pool", f"{scope}{kernel}/read"]))
    return [*nodes, node(f"{scope}biased", "BiasAdd", [f"{scope}logits", f"{scope}{bias}/read"])]


def meta_graph(nodes, signatures=b"", objects=b"", collections=b""):
    return blob(2, graph(nodes)) + collections + signatures + (blob(7, objects) if objects else b"")


def image_module_info(height, width):
    info = blob(1, number(1, height) + number(2, width))
    return mapping(4, {"hub_module_attachments": blob(2, blob(1, blob(1, "image_module_info") + blob(2, info)))})


def signature(sizes):
    return mapping(5, {"serving_default": mapping(1, {"inputs": blob(3, shape(sizes))})})


def saved_model(*graphs):
    return number(1, 1) + b"".join(blob(2, one) for one in graphs)


# Object graphs: (name, array, trainable) in the order of `variables`


def child(node_id, name):
    return blob(1, number(1, node_id) + blob(2, name))


def checkpoint_objects(variables):
    root = child(1, "variables")
    listed = b"".join(child(2 + at, str(at)) for at in range(len(variables)))
    leaves = [
        blob(2, blob(1, "VARIABLE_VALUE") + blob(2, name) + blob(3, f"variables/{at}/.ATTRIBUTES/VARIABLE_VALUE"))
        for at, (name, _, _) in enumerate(variables)
    ]
    return b"".join(blob(1, one) for one in (root, listed, *leaves))


def saved_objects(variables):
    root = child(1, "variables")
    listed = b"".join(child(2 + at, str(at)) for at in range(len(variables)))
    leaves = [
        blob(7, number(1, 1) + blob(2, shape(array.shape)) + number(3, int(trainable)) + blob(6, name))
        for name, array, trainable in variables
    ]
    return b"".join(blob(1, one) for one in (root, listed, *leaves))


def write_saved_model(folder, variables, signatures=b""):
    """Write a TF2 SavedModel of (name, array, trainable) triples."""
    tensors = {f"variables/{at}/.ATTRIBUTES/VARIABLE_VALUE": array for at, (_, array, _) in enumerate(variables)}
    tensors["_CHECKPOINTABLE_OBJECT_GRAPH"] = checkpoint_objects(variables)
    tensors["save_counter/.ATTRIBUTES/VARIABLE_VALUE"] = np.int64(1)[()] * np.ones((), np.int64)
    write_bundle(folder / "variables" / "variables", tensors)
    model = saved_model(meta_graph([], signatures, saved_objects(variables)))
    (folder / "saved_model.pb").write_bytes(model)
    return folder


def write_hub1(folder, weights, image_size=(128, 128)):
    """Write a TF1 hub module with both its graphs."""
    write_bundle(folder / "variables" / "variables", weights)
    nodes = [placeholder((-1, -1, -1, 3)), *(variable(name, array.shape) for name, array in weights.items())]
    one = meta_graph(nodes, collections=image_module_info(*image_size))
    (folder / "saved_model.pb").write_bytes(saved_model(one, one))
    (folder / "tfhub_module.pb").write_bytes(number(1, 3))
    return folder


def some_weights(network, seed=0):
    """Return weights of a network as training might leave them, by TF-Slim name."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, one in network.variables.items():
        values = random.normal(0, 0.3, one.shape)
        if name.endswith(("gamma", "moving_variance")):
            values = 0.5 + np.abs(values)
        weights[name] = values.astype(np.float32)
    return weights
