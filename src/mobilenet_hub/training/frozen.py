"""Training with a frozen network: features once through the engine, then a classifier fitted to convergence."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mobilenet_hub.bulk.manifest import as_text
from mobilenet_hub.errors import DivergedError
from mobilenet_hub.evaluation.dataset import SPLITS, Dataset
from mobilenet_hub.evaluation.metrics import Curve
from mobilenet_hub.evaluation.twins import find_twins
from mobilenet_hub.host.progress import OnProgress
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.inference.embed import Embedder
from mobilenet_hub.inference.engine import PRECISIONS, Precision
from mobilenet_hub.inference.probabilities import softmax
from mobilenet_hub.module import Module
from mobilenet_hub.store import weights_sha256
from mobilenet_hub.training.features import Features, compute_features
from mobilenet_hub.training.given_features import read_features
from mobilenet_hub.training.head import STRENGTHS, Head, balanced_class_weights, fit_head
from mobilenet_hub.training.options import check_values, one_of
from mobilenet_hub.training.result import Fitted

ClassWeights = Literal["auto", "balanced", "none"]
CLASS_WEIGHTS: tuple[ClassWeights, ...] = get_args(ClassWeights)
FEW, FEW_VIEWS = 1000, 4
UNBALANCED = 3.0  # largest class over smallest from which "auto" balances


@dataclass(frozen=True)
class FrozenOptions:
    """How a classifier is fitted on a frozen network.

    Raises:
        InputError: a value that means nothing; names what is allowed.
    """

    # Of each training photo: 1 as it is, 2 and its mirror image, more: jittered ones besides. None: FEW_VIEWS where
    # there are few training photos, where it helps (ants and bees: 86.8 to 88.1 % over ten splits), else 1.
    views: int | None = None
    strength: float | None = None  # of the regularisation; None: chosen on the validation photos
    class_weights: ClassWeights = "auto"
    precision: Precision = "auto"
    features: str | None = None  # of all photos, as `embed` wrote them; None: they are computed here

    def __post_init__(self):
        """Refuse what means nothing."""
        rules = {
            "views": (self.views is None or self.views >= 1, "a whole number from 1"),
            "strength": (self.strength is None or 0 < self.strength < inf, "a number above 0"),
            "class_weights": one_of(self.class_weights, CLASS_WEIGHTS),
            "precision": one_of(self.precision, PRECISIONS),
            "features": (self.features is None or self.views in (None, 1), "left out where `views` is above 1"),
        }
        check_values(self, rules)


def fit_frozen(
    dataset: Dataset,
    base: Module,
    *,
    options: FrozenOptions,
    work: Path,
    on_progress: OnProgress,
    threads: int | None = None,
) -> Fitted:
    """Fit a classifier for the data set's labels on the features of a module.

    Args:
        dataset: photos in three parts.
        base: the module whose network is kept as it is, at the image size that its configuration says; a classifier
            of its own is replaced.
        options: see `FrozenOptions`.
        work: the folder for features; what an earlier run left there is used.
        on_progress: told how far it is.
        threads: how many compute and decode; None: as many as there are cores.

    Returns:
        The module with its new classifier, and the probabilities that it gives to every photo.
    """
    compute = partial(_computed, work=work, on_progress=on_progress, threads=threads)
    features, made_with = (_given if options.features else compute)(dataset, base, options)
    if features.skipped:
        dataset = dataset.without(features.skipped)
    vectors = {split: [features.vectors[e.digest] for e in dataset.part(split)] for split in SPLITS}
    labels = {split: np.array([e.label for e in dataset.part(split)], np.int64) for split in SPLITS}
    firsts = {split: _stack([rows[0] for rows in vectors[split]], base) for split in SPLITS}
    _check_finite(features.vectors, name=base.config.handle or "the module")
    weights, unbalanced = choose_class_weights(dataset, options.class_weights)
    on_progress("classifier", 0, 1)
    head = fit_head(
        np.concatenate(vectors["train"]),
        np.repeat(labels["train"], [len(rows) for rows in vectors["train"]]),
        len(dataset.labels),
        (firsts["validation"], labels["validation"]),
        class_weights=weights,
        strengths=STRENGTHS if options.strength is None else (options.strength,),
    )
    on_progress("classifier", 1, 1)
    return Fitted(
        module=_with_head(base, head, dataset.labels),
        dataset=dataset,
        curves=_curves(head),
        settings={
            "strength": head.strength,
            "strength_chosen_on": _chosen_on(options, labels),
            "views": made_with.pop("views"),
            "class_weights": "balanced" if weights is not None else "none",
            "converged": head.converged,
            "iterations": head.iterations,
            **made_with,
        },
        probabilities={split: softmax(head.logits(firsts[split])) for split in SPLITS},
        warnings=unbalanced,
        twins=find_twins(dataset.part("test"), firsts["test"], dataset.part("train"), firsts["train"]),
    )


def _computed(
    dataset: Dataset,
    base: Module,
    options: FrozenOptions,
    *,
    work: Path,
    on_progress: OnProgress,
    threads: int | None,
) -> tuple[Features, dict[str, Any]]:
    """Compute the features; return them with what they were made with."""
    views = options.views
    if views is None:
        views = FEW_VIEWS if len(dataset.part("train")) < FEW else 1
    size = base.config.image_size
    embedder = Embedder(base.path or base, options.precision, size, threads=threads, any_size=True)
    features = compute_features(
        dataset.examples,
        [views if example.split == "train" else 1 for example in dataset.examples],
        embedder,
        work=work,
        key=_key(base, embedder),
        on_progress=on_progress,
    )
    return features, {"views": views, "precision": embedder.precision, "engine": embedder.engine_name}


def _given(dataset: Dataset, base: Module, options: FrozenOptions) -> tuple[Features, dict[str, Any]]:
    """Read the features that `embed` wrote; return them with what they were made with."""
    assert options.features is not None
    wanted = {
        "weights_sha256": weights_sha256(base.path or base),
        "image_size": list(base.config.image_size),
        "fit": Preprocessing(base.config.image_size, base.config.fit).fit,
    }
    features, made_with = read_features(Path(options.features), dataset.examples, as_text(wanted))
    return features, {"views": 1, **made_with, "features": options.features}


def _check_finite(vectors: Mapping[str, np.ndarray], name: str) -> None:
    """Refuse features that are no numbers.

    Raises:
        DivergedError: the network's weights are too large for its arithmetic.
    """
    if bad := sum(not np.isfinite(rows).all() for rows in vectors.values()):
        raise DivergedError(
            f"{name} gives features that are not finite to {bad} of {len(vectors)} photos: nothing can be learned from "
            "them; take another module, or another precision, precision=f32 say"
        )


def _key(base: Module, embedder: Embedder) -> str:
    """Name the network and how it sees photos: features of the one are not those of the other."""
    digest = hashlib.sha256()
    network = replace(base.config.network, num_classes=0)
    for name in network.variables:
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(base.weights[name]).tobytes())
    digest.update(repr((network, embedder.preprocessing, embedder.precision, embedder.engine_name)).encode())
    return digest.hexdigest()[:16]


def _stack(rows: list[np.ndarray], base: Module) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, base.config.network.num_features), np.float32)


def choose_class_weights(dataset: Dataset, wanted: ClassWeights) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return weights [classes], or None where every photo counts the same, and what is to be said about it."""
    counts = dataset.counts("train")
    uneven = max(counts) >= UNBALANCED * min(counts)
    if wanted == "balanced" or (wanted == "auto" and uneven):
        most, least = dataset.labels[int(np.argmax(counts))], dataset.labels[int(np.argmin(counts))]
        text = (
            f"unbalanced classes: {max(counts)} training photos of {most!r} and {min(counts)} of {least!r}; every "
            "class was given the same weight (class weights 'none' turns this off)"
        )
        return balanced_class_weights(counts), (text,) if uneven and wanted == "auto" else ()
    return None, ()


def _with_head(base: Module, head: Head, labels: tuple[str, ...]) -> Module:
    features = base.without_classifier()
    config = replace(features.config, num_classes=len(labels), labels=labels)
    kernel, bias = config.network.classifier
    classifier = {kernel.name: head.weights.reshape(kernel.shape), bias.name: head.biases}
    return Module(config, {**features.weights, **classifier})


def _curves(head: Head) -> tuple[Curve, ...]:
    if len(head.curve) < 2:
        return ()
    lines = {
        "training": [(strength, training) for strength, training, _ in head.curve],
        "validation": [(strength, validation) for strength, _, validation in head.curve],
    }
    return (Curve("Strength of regularisation", "strength", "mean loss", lines, log_x=True, chosen=head.strength),)


def _chosen_on(options: FrozenOptions, labels: Mapping[str, np.ndarray]) -> str:
    if options.strength is not None:
        return "given"
    return "validation photos" if len(labels["validation"]) else "nothing: there are no validation photos"
