"""What OpenVINO is told about single nodes: which stay float32, and which of its kernels to take.

It takes such hints from a graph's file alone, so a graph that gets them is written, marked and read again. OpenVINO
inside functions.
"""

import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenet_hub.errors import InputError
from mobilenet_hub.host.files import beside

if TYPE_CHECKING:
    from openvino import Model, Node

_FLOAT32 = '<attribute name="DisablePrecisionConversion" version="0" value="dynamic:f16"/>'
_FILES = "mobilenet-hub-hints"  # in the temporary folder
_KERNELS = '<attribute name="primitives_priority" version="0" value="cpu:{}"/>'


def keep_float32(model: "Model", names: Collection[str]) -> "Model":
    """Return the model with the nodes of these names marked to be computed in float32, whatever the rest is.

    Raises:
        InputError: the temporary folder cannot be written.
    """
    try:
        return _hinted(model, dict.fromkeys(names, _FLOAT32))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"bf16 needs a temporary file in {tempfile.gettempdir()}, which cannot be written ({error}): make room, "
            f"name another folder in TMPDIR, or ask for the precision f32"
        ) from error


def names_up_to(nodes: Iterable["Node"]) -> set[str]:
    """Return the names of nodes and of all before them."""
    names, found = set(), list(nodes)
    while found:
        node = found.pop()
        if (name := node.get_friendly_name()) not in names:
            names.add(name)
            found += [value.get_source_output().get_node() for value in node.inputs()]
    return names


def wants_avx2_kernels(instructions: Collection[str]) -> bool:
    """Tell whether `prefer_avx2_kernels` makes networks faster on a CPU with these instructions.

    Example:
        >>> wants_avx2_kernels({"avx2"}), wants_avx2_kernels({"avx2", "avx512f"}), wants_avx2_kernels(set())
        (True, False, False)
    """
    return "avx2" in instructions and "avx512f" not in instructions


def prefer_avx2_kernels(model: "Model") -> "Model | None":
    """Return the model with oneDNN's older AVX2 kernels asked for in depthwise and 1x1 convolutions.

    Where AVX2 is the widest that a CPU has, networks are 3 to 16 % faster with them than with those that OpenVINO takes
    of itself (benchmarks/NOTES.md). The first convolution gains nothing from them. None where no temporary file
    can be written: the model goes without.
    """
    hints = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "GroupConvolution":
            hints[node.get_friendly_name()] = _KERNELS.format("jit_avx2_dw")
        elif node.get_type_name() == "Convolution" and list(node.get_input_shape(1)[2:]) == [1, 1]:
            hints[node.get_friendly_name()] = _KERNELS.format("jit_avx2_1x1")
    try:
        return _hinted(model, hints)
    except (OSError, RuntimeError):
        return None


def _hinted(model: "Model", hints: Mapping[str, str]) -> "Model":
    """Return the model with these attributes given to the nodes of these names."""
    from openvino import Core, serialize

    def with_hint(layer: re.Match[str]) -> str:
        hint = hints.get(layer["name"])
        return f"{layer[0]}<rt_info>{hint}</rt_info>" if hint else layer[0]

    with beside(Path(tempfile.gettempdir()) / _FILES) as folder:  # where a killed process leaves it, the next clears it
        graph, constants = folder / "graph.xml", folder / "graph.bin"
        serialize(model, graph, constants)
        layers = r'<layer id="\d+" name="(?P<name>[^"]*)" type="(?!Const|Parameter)[^>]*>'
        hinted = re.sub(layers, with_hint, graph.read_text(encoding="utf-8"))
        return Core().read_model(hinted.encode(), constants.read_bytes())
