"""Graph models of TensorFlow.js, as its converter makes them: TensorFlow's optimizer, then JSON and a file of bytes.

After tensorflowjs/converters/tf_saved_model_conversion_v2.py, which cannot be installed beside today's TensorFlow: the
same optimizers in the same order, batch norm folded and depthwise convolutions fused as there.
"""

import base64
import json

import numpy as np

FIRST = ["pruning", "constfold", "arithmetic", "dependency"] * 2
SECOND = ["remap", "constfold", "arithmetic", "dependency"]


def write_graph_model(concrete, folder, signature=True):
    """Write a concrete function of constants as model.json and its weights; return the folder."""
    from google.protobuf.json_format import MessageToDict
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(concrete)
    start, end = frozen.inputs[0].name, frozen.outputs[0].name
    graph = _optimized(frozen.graph.as_graph_def(), start, end, FIRST)
    for node in graph.node:
        if node.op in ("Conv2D", "MatMul"):
            node.device = "/device:CPU:0"  # where they are fused
    graph = _with_fused_depthwise(_optimized(graph, start, end, SECOND))
    weights, data = [], []
    for node in graph.node:
        if node.op == "Const":
            value = _value(node)
            weights.append({"name": node.name, "shape": list(value.shape), "dtype": value.dtype.name})
            data.append(np.ascontiguousarray(value).tobytes())
            for field in ("tensor_content", "float_val", "int_val", "int64_val", "half_val", "double_val"):
                node.attr["value"].tensor.ClearField(field)
    (folder / "group1-shard1of1.bin").write_bytes(b"".join(data))
    ends = {"inputs": {"x": {"name": start}}, "outputs": {"y": {"name": end}}}
    about = {"format": "graph-model", "generatedBy": "2", "convertedBy": "TensorFlow.js Converter v4.22.0"}
    about |= {"signature": ends} if signature else {}
    manifest = [{"paths": ["group1-shard1of1.bin"], "weights": weights}]
    model = {**about, "modelTopology": MessageToDict(graph), "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(model))
    return folder


def _value(node):
    from tensorflow.python.framework import tensor_util

    value = tensor_util.MakeNdarray(node.attr["value"].tensor)
    return value.astype(np.int32) if value.dtype == np.int64 else value  # as its files have no others


def _optimized(graph, start, end, optimizers):
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.grappler import tf_optimizer

    with tf.Graph().as_default() as built:
        tf.import_graph_def(graph, name="")
        meta = tf.compat.v1.train.export_meta_graph(graph_def=graph, graph=built)
    collection = meta.collection_def["train_op"].node_list.value
    collection.extend([start, end])
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.optimizers[:] = optimizers
    config.graph_options.rewrite_options.meta_optimizer_iterations = 1  # pyright: ignore[reportAttributeAccessIssue]
    return tf_optimizer.OptimizeGraph(config, meta)


def _with_fused_depthwise(graph):
    """Fuse depthwise convolutions with their bias and ReLU6, as fuse_depthwise_conv2d.py does."""
    nodes = {node.name: node for node in graph.node}
    users = [name for node in graph.node for name in node.input]
    for node in [one for one in graph.node if one.op == "DepthwiseConv2dNative"]:
        chain, name = [], node.name
        for wanted in (("BiasAdd", "Add", "AddV2"), ("Relu6", "Relu")):
            found = [one for one in graph.node if name in one.input and one.op in wanted]
            if users.count(name) != 1 or not found:
                break
            chain.append(found[0])
            name = found[0].name
        if not chain:
            continue
        bias = next(one for one in chain[0].input if one != node.name)
        if nodes[bias].op != "Const":
            continue
        last = chain[-1]
        attributes = dict(node.attr.items())
        inputs = [*node.input, bias]
        fused = [b"BiasAdd", *(one.op.encode() for one in chain[1:])]
        for one in (node, *chain[:-1]):
            graph.node.remove(one)
        last.op = "FusedDepthwiseConv2dNative"
        del last.input[:]
        last.input.extend(inputs)
        for key, value in attributes.items():
            last.attr[key].CopyFrom(value)
        last.attr["fused_ops"].list.s.extend(fused)
        last.attr["num_args"].i = 1
    return graph


def handmade(network, weights, folder, size=64):
    """Write a network as the converter leaves it, batch norm folded and all fused; for where TensorFlow is absent."""
    nodes, stored, last, outputs = [_placeholder(size)], [], "x", []

    def constant(name, value):
        stored.append((name, value))
        kind = {"float32": "DT_FLOAT", "int32": "DT_INT32"}[value.dtype.name]
        nodes.append({"name": name, "op": "Const", "attr": {"dtype": {"type": kind}}})
        return name

    def add(name, op, inputs, **attributes):
        nodes.append({"name": name, "op": op, "input": inputs, "attr": attributes})
        return name

    for at, unit in enumerate(network.units):
        gamma, beta, mean, variance = (weights[one.name].astype(np.float64) for one in unit.batch_norm)
        scale = gamma / np.sqrt(variance + network.variant.batch_norm_epsilon)
        per_output = scale[:, None] if unit.depthwise else scale
        kernel = constant(f"kernel{at}", (weights[unit.kernel.name] * per_output).astype(np.float32))
        bias = constant(f"bias{at}", (beta - mean * scale).astype(np.float32))
        parts = ["BiasAdd", *(["Relu6"] if unit.relu6 else [])]
        op = "FusedDepthwiseConv2dNative" if unit.depthwise else "_FusedConv2D"
        strides = {"list": {"i": ["1", str(unit.stride), str(unit.stride), "1"]}}
        attributes = {"fused_ops": {"list": {"s": [_text(one) for one in parts]}}, "num_args": {"i": "1"}}
        attributes |= {"strides": strides, "padding": {"s": _text("SAME")}, "data_format": {"s": _text("NHWC")}}
        last = add(f"unit{at}", op, [last, kernel, bias], **attributes)
        if unit.adds is not None:
            last = add(f"sum{at}", "AddV2", [last, outputs[unit.adds]])
        outputs.append(last)
    last = add("mean", "Mean", [last, constant("axes", np.array([1, 2], np.int32))], keep_dims={"b": False})
    kernel, bias = (weights[one.name] for one in network.classifier)
    dense = [last, constant("dense/kernel", kernel[0, 0]), constant("dense/bias", bias)]
    last = add("dense", "_FusedMatMul", dense, fused_ops={"list": {"s": [_text("BiasAdd")]}})
    add("end", "Softmax", [last])
    (folder / "weights.bin").write_bytes(b"".join(np.ascontiguousarray(value).tobytes() for _, value in stored))
    entries = [{"name": name, "shape": list(value.shape), "dtype": value.dtype.name} for name, value in stored]
    signature = {"inputs": {"x": {"name": "x:0"}}, "outputs": {"y": {"name": "end:0"}}}
    model = {
        "format": "graph-model",
        "signature": signature,
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": ["weights.bin"], "weights": entries}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder


def _placeholder(size):
    sizes = [{"size": str(one)} for one in (-1, size, size, 3)]
    return {"name": "x", "op": "Placeholder", "attr": {"shape": {"shape": {"dim": sizes}}}}


def _text(value):
    return base64.b64encode(value.encode()).decode()
