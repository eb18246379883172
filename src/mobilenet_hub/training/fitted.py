"""What every way of training hands back for measuring and writing. Imports dataset, module_folder and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mobilenet_hub.evaluation.dataset import Dataset, Split
from mobilenet_hub.evaluation.metrics import Curve
from mobilenet_hub.module_folder import Module


@dataclass(frozen=True)
class Fitted:
    """A trained module, before it is measured and written."""

    module: Module  # with its classifier; its labels are the data set's
    dataset: Dataset  # less the files that turned out to be no photos
    curves: tuple[Curve, ...]  # for the report
    settings: Mapping[str, object]  # what was chosen and how, for metrics.json and the report
    # Per part float32 [photos, classes], in the order of `dataset.part(split)`; None: to be computed by the engine.
    probabilities: Mapping[Split, np.ndarray] | None = None
    warnings: tuple[str, ...] = field(default=())
