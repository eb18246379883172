"""One operation of a graph, in words that every reader of a format with a graph uses."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

Tensor = Hashable
INERT = "inert"  # does nothing to what passes: an identity, dropout
RESHAPE = "reshape"  # moves nothing where one position of the map is left
MAX = "global max pooling"
NORMALIZED = "L2 normalization"


@dataclass(frozen=True)
class Operation:
    """One operation on what is computed from the images; its constants are values."""

    # conv, depthwise, norm, affine, activation, add, pad, mean, pool, dense, network, inert, reshape, or something else
    kind: str
    name: str  # as the file has it, for errors
    inputs: tuple[Tensor, ...]
    output: Tensor
    values: Mapping[str, Any] = field(default_factory=dict)
