"""The state of a training run on disk, whole or not at all, so that a killed run goes on where it was."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.host.files import replacing


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on."""

    key: str  # names all that the state depends on: photos, network, settings
    arrays: Mapping[str, np.ndarray]
    state: Mapping[str, Any]  # plain values: step, history


def write_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Write the state; a kill leaves the old one or the new.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> write_checkpoint(file, Checkpoint("a run", {"w": np.ones(2, np.float32)}, {"step": 3}))
        >>> read_checkpoint(file, "a run").state["step"]
        3
    """
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in checkpoint.arrays.items()}
    data = save(arrays, {"key": checkpoint.key, "state": json.dumps(checkpoint.state)})
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as stream:
        stream.write(data)


def read_checkpoint(file: Path, key: str) -> Checkpoint | None:
    """Read what `write_checkpoint` wrote; None where there is nothing, it is damaged, or another run's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as stream:
            metadata = stream.metadata()
            if metadata.get("key") != key:
                return None
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
        return Checkpoint(key, arrays, json.loads(metadata["state"]))
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError):
        return None
