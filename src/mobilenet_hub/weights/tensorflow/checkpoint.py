"""TF-Slim checkpoints: which of their entries are the network.

Training checkpoints hold more than the network: the step, optimizer slots (`<variable>/RMSProp`, ...) and, for V2,
`<variable>/ExponentialMovingAverage`. TF-Slim's published V2 accuracies are those of the moving averages, its V1
accuracies those of the variables themselves.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mobilenet_hub.architecture import STATISTICS
from mobilenet_hub.errors import CorruptFileError, InvalidModuleError
from mobilenet_hub.weights.identify import LEAVES, Source, assumed_of_weights, is_slim, slim_name, to_source
from mobilenet_hub.weights.reading import Unusable, as_float32, reading
from mobilenet_hub.weights.tensorflow.checkpoint_graph import read_graph
from mobilenet_hub.weights.tensorflow.graph_def import facts_of, nodes_of, variant_of
from mobilenet_hub.weights.tensorflow.protobuf import Message
from mobilenet_hub.weights.tensorflow.tensor_bundle import read_bundle

_KIND = "TF-Slim checkpoint"
_KERAS_LAYER = re.compile(r"(^|/)(layer_with_weights-\d+|_layers/\d+|_operations/\d+|keras_api)/")
_AVERAGE = "/ExponentialMovingAverage"
_SLOT = re.compile(  # what TensorFlow's optimizers keep beside each variable
    r"(ExponentialMovingAverage|RMSProp|Momentum|Adam\w*|AMSGrad|Adagrad|Adadelta|Ftrl|Lamb|LARS|Yogi|Nadam|"
    r"biased|local_step|[mv]|vhat|rms|mg|momentum|accumulator|linear)(_\d+)?",
    re.IGNORECASE,
)
_OF_TRAINING = re.compile(
    r"step|power|learning_rate|decay|epoch|momentum|^iter|counter|loss|accuracy|avg", re.IGNORECASE
)


def read_checkpoint(prefix: Path) -> Source:
    """Read a TF-Slim checkpoint: what its `.meta` graph computes, else TF-Slim's network by the variables' names.

    Args:
        prefix: the path without `.index`.

    Raises:
        CorruptFileError: a file is damaged in any byte; names it and the tensor.
        InvalidModuleError: it holds something else than a float MobileNet.
    """
    tensors = {name: value for name, value in read_bundle(prefix).items() if isinstance(value, np.ndarray)}
    with reading(prefix, "a checkpoint of MobileNet weights"):
        if any(_KERAS_LAYER.search(name) for name in tensors):
            raise Unusable(
                "it holds the weights of a Keras model (save_weights or ModelCheckpoint of Keras 2, "
                "tf.train.Checkpoint), which only the program that built the model can read; load them there and save "
                "the whole model, as .keras or .h5"
            )
        weights = network_weights(tensors, prefix)
    assumed = assumed_of_weights("TF-Slim's", pixels=False)
    file = prefix.with_name(f"{prefix.name}.meta")
    if not file.is_file():
        return Source(prefix, _KIND, weights, assumed=assumed)
    with reading(file, "a checkpoint's graph"):
        graph = Message(file.read_bytes()).message(2)
        nodes = list(nodes_of(graph))
        facts = facts_of(nodes)
        if not facts.variables:
            raise ValueError("it has no variables")
        check_belongs(facts.variables, tensors, file)
        values = {name: weights.get(slim_name(name), array) for name, array in tensors.items()}
        if found := read_graph(graph, values, facts.image_size):
            return to_source(prefix, _KIND, found)
        return Source(prefix, _KIND, weights, facts.image_size, variant=variant_of(nodes), assumed=assumed)


def network_weights(tensors: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Choose the network's variables among the entries of a checkpoint, by TF-Slim name, as float32.

    Optimizers' slots and scalars of training (the step, ...) are left out, V2's moving averages taken in place of the
    trained values. Everything else stays, so that a foreign tensor is reported and never dropped in silence.

    Raises:
        InvalidModuleError: the network is quantized, or moving averages are there for a part of it only.
        ValueError: two entries are one variable, or a weight is not floating point.
    """
    named: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        slim = slim_name(name)
        if slim in named:
            raise ValueError(f"{slim} occurs twice, also as {name}")
        named[slim] = array
    if quantized := [name for name in named if name.endswith(("_quant/min", "_quant/max"))]:
        raise InvalidModuleError(
            f"{path} holds a network trained for quantization ({quantized[0]}); "
            "use the float checkpoint of the same network and quantize on export"
        )
    variables = {name for name in named if name.rpartition("/")[2] in LEAVES}
    averaged = {name for name in variables if name + _AVERAGE in named}
    kept = {name: array for name, array in named.items() if not _is_extra(name, array, variables)}
    if any(name.startswith("MobilenetV2/") for name in averaged):
        trained = {name for name in variables if not name.endswith(STATISTICS)}
        if missing := sorted(trained - averaged):
            raise InvalidModuleError(f"{path} has moving averages of some variables, but not of {missing[0]}")
        kept.update({name: named[name + _AVERAGE] for name in trained})
    return {name: as_float32(array, name) for name, array in kept.items()}


def check_belongs(graph: Mapping[str, tuple[int, ...] | None], tensors: Mapping[str, np.ndarray], file: Path) -> None:
    """Demand that a graph's variables of the network are in the checkpoint beside it, with the same shapes.

    Raises:
        CorruptFileError: they are not: one of the files belongs to another network; names the variable.
    """
    ours = {name: shape for name, shape in graph.items() if is_slim(slim_name(name))}
    for name, shape in ours.items():
        there = tensors.get(name)
        if there is None or (shape is not None and shape != there.shape):
            what = "is missing" if there is None else f"has shape {list(there.shape)}"
            raise CorruptFileError(
                f"{file} does not belong to the weights beside it: {name} {what} there"
                + (f", {list(shape)} in the graph" if shape is not None else "")
            )


def _is_extra(name: str, array: np.ndarray, variables: set[str]) -> bool:
    """Tell whether an entry is none of what a network computes with: a slot of a variable, or a step, by its name."""
    parent, _, leaf = name.rpartition("/")
    if parent in variables:
        return bool(_SLOT.fullmatch(leaf))
    return array.ndim == 0 and (array.dtype.kind != "f" or bool(_OF_TRAINING.search(leaf)))
