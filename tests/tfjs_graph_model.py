"""Graph models of TensorFlow.js, as its converter makes them: TensorFlow's optimizer, then JSON and a file of bytes.

After tensorflowjs/converters/tf_saved_model_conversion_v2.py, which cannot be installed beside today's TensorFlow: the
same optimizers in the same order, batch norm folded and depthwise convolutions fused as there.
"""

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
    config.graph_options.rewrite_options.meta_optimizer_iterations = 1
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
