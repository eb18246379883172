"""The published modules: every MobileNet V1 and V2 of TensorFlow Hub and what its name means.

Pure data. Sources: the 420 module pages of tfhub.dev, and Kaggle Models for the names that replaced them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from mobilenet_hub.architecture import BATCH_NORM_MOMENTUM, IMAGENET_CLASSES
from mobilenet_hub.catalog.names import kaggle_variation
from mobilenet_hub.catalog.readme_tables import V1_FIGURES, V2_FIGURES, Figures

Family = Literal["imagenet", "tf2-preview"]
ArchitectureName = Literal["mobilenet_v1", "mobilenet_v2"]
Kind = Literal["classification", "feature_vector"]
Format = Literal["hub1", "savedmodel2"]

KINDS: tuple[Kind, ...] = ("classification", "feature_vector")
LABELS_URL = "https://storage.googleapis.com/download.tensorflow.org/data/ImageNetLabels.txt"
NUM_CLASSES = IMAGENET_CLASSES  # of every published classifier


_FIGURES: dict[ArchitectureName, dict[tuple[float, int], Figures]] = {
    "mobilenet_v1": V1_FIGURES,
    "mobilenet_v2": V2_FIGURES,
}

# The module pages' `num_features` by depth multiplier.
_NUM_FEATURES: dict[ArchitectureName, dict[float, int]] = {
    "mobilenet_v1": {0.25: 256, 0.5: 512, 0.75: 768, 1.0: 1024},
    "mobilenet_v2": {0.35: 1280, 0.5: 1280, 0.75: 1280, 1.0: 1280, 1.3: 1664, 1.4: 1792},
}

# Version -> what changed, in the words of the module pages. The keys are the versions that were published.
_SAVED_MODEL = (
    "Switched to the SavedModel format of TensorFlow 2. The `hub.Module` class cannot load this or later versions "
    "any more."
)
_FIFTH = ("Add 'serving_default' SignatureDef", "Fix bug if using models with `tf.GradientTape(persistent=True)`")
_MOMENTUM = "Fine-tuning: change default batch norm momentum to 0.99 and make it configurable."
_REQUIRES = "Requires PIP package `tensorflow-hub>=0.2.0`."
_CHANGES: dict[tuple[Family, ArchitectureName], dict[int, tuple[str, ...]]] = {
    ("imagenet", "mobilenet_v1"): {
        1: ("Initial release.",),
        3: ("Support for variable input size.", _MOMENTUM, _REQUIRES),
        4: (_SAVED_MODEL,),
        5: _FIFTH,
    },
    ("imagenet", "mobilenet_v2"): {
        1: ("Initial release.",),
        2: ("Fixed broken UPDATE_OPS for fine-tuning, GitHub issue 86.",),
        3: (_MOMENTUM, _REQUIRES),
        4: (_SAVED_MODEL,),
        5: _FIFTH,
    },
    ("tf2-preview", "mobilenet_v2"): {
        1: ("Initial release.",),
        2: ("Fixed missing default `trainable=False`.", "Fixed broken regularization_losses."),
        3: ("Provides proper names for variables, fixing crash in `Model.save()` (GitHub issue #287).",),
        4: ("Adds back missing update ops for batch norm that were lost in version 3 (GitHub issue #304).",),
    },
}
QUANTOPS_VERSIONS = (1, 3)
_SLIM_MOMENTUM = {"mobilenet_v1": 0.9997, "mobilenet_v2": 0.997}  # the arg scopes' defaults; the pages state none


@dataclass(frozen=True, slots=True)
class Configuration:
    """One of the 38 trained networks: all modules of the same configuration hold the same weights."""

    architecture: ArchitectureName
    depth_multiplier: float
    size: int  # images of size x size pixels

    @property
    def depth_code(self) -> str:
        """The depth multiplier as handles write it: "025" or "130"."""
        return f"{round(100 * self.depth_multiplier):03d}"

    @property
    def name(self) -> str:
        """The handles' name of it, e.g. "mobilenet_v2_130_224"."""
        return f"{self.architecture}_{self.depth_code}_{self.size}"

    @property
    def num_features(self) -> int:
        """The length of the feature vector, as the module pages state it."""
        return _NUM_FEATURES[self.architecture][self.depth_multiplier]

    @property
    def published(self) -> Figures:
        """The README's row: MACs, parameters, accuracy, latency."""
        return _FIGURES[self.architecture][self.depth_multiplier, self.size]

    @property
    def checkpoint(self) -> str:
        """The TF-Slim checkpoint that the modules were exported from, as their pages name it."""
        name = f"{self.architecture}_{self.depth_multiplier}_{self.size}"
        folder = "mobilenet_v1_2018_02_22/" if self.architecture == "mobilenet_v1" else ""
        return f"{folder}{name}/{name}.ckpt"

    @property
    def checkpoint_url(self) -> str:
        """Where TF-Slim's README fetches that checkpoint from, as a .tgz."""
        name = f"{self.architecture}_{self.depth_multiplier}_{self.size}.tgz"
        if self.architecture == "mobilenet_v1":
            return f"http://download.tensorflow.org/models/mobilenet_v1_2018_02_22/{name}"
        return f"https://storage.googleapis.com/mobilenet_v2/checkpoints/{name}"


@dataclass(frozen=True, slots=True)
class PublishedModule:
    """One published handle; everything about it follows from these four."""

    family: Family
    configuration: Configuration
    kind: Kind
    version: int

    @property
    def stem(self) -> str:
        """The handle without its version."""
        name = self.configuration.name if self.family == "imagenet" else self.architecture
        return f"google/{self.family}/{name}/{self.kind}"

    @property
    def handle(self) -> str:
        """The TF Hub handle, e.g. "google/imagenet/mobilenet_v2_130_224/feature_vector/4"."""
        return f"{self.stem}/{self.version}"

    @property
    def url(self) -> str:
        """The TF Hub URL."""
        return f"https://tfhub.dev/{self.handle}"

    @property
    def kaggle_handle(self) -> str:
        """The same module at Kaggle Models, which counts the versions of each framework from 1."""
        config = self.configuration
        framework = "TensorFlow1" if self.format == "hub1" else "TensorFlow2"
        variation = kaggle_variation(self.family, config.depth_code, config.size, self.kind)
        same_format = [m for m in _by_stem()[self.stem] if m.format == self.format]
        version = same_format.index(self) + 1
        return f"google/{self.architecture.replace('_', '-')}/{framework}/{variation}/{version}"

    @property
    def architecture(self) -> ArchitectureName:
        """The network, "mobilenet_v1" or "mobilenet_v2"."""
        return self.configuration.architecture

    @property
    def depth_multiplier(self) -> float:
        """The factor on the number of channels."""
        return self.configuration.depth_multiplier

    @property
    def image_size(self) -> tuple[int, int]:
        """The (height, width) in pixels it was trained at."""
        return self.configuration.size, self.configuration.size

    @property
    def num_features(self) -> int:
        """The length of the feature vector."""
        return self.configuration.num_features

    @property
    def num_classes(self) -> int:
        """1001 for classification; 0 for feature vectors."""
        return NUM_CLASSES if self.kind == "classification" else 0

    @property
    def format(self) -> Format:
        """The format it was published in: TF1 hub module or TF2 SavedModel."""
        return "hub1" if self.family == "imagenet" and self.version <= 3 else "savedmodel2"

    @property
    def fixed_size(self) -> bool:
        """Whether it takes images of `image_size` only; V1 takes any size from version 3 on."""
        return self.architecture != "mobilenet_v1" or self.version < 3

    @property
    def momentum_configurable(self) -> bool:
        """Whether a caller may choose `batch_norm_momentum`."""
        return self.family == "imagenet" and self.version >= 3

    @property
    def batch_norm_momentum(self) -> float:
        """The default momentum: 0.99 as the pages state, else TF-Slim's own, since those pages state none."""
        return BATCH_NORM_MOMENTUM if self.momentum_configurable else _SLIM_MOMENTUM[self.architecture]

    @property
    def signatures(self) -> tuple[str, ...]:
        """The signatures' names; TF2 SavedModels before version 5 have none and are called directly."""
        if self.format == "savedmodel2":
            return ("serving_default",) if self.family == "imagenet" and self.version >= 5 else ()
        named = ("image_classification",) if self.kind == "classification" else ()
        named = (*named, "image_feature_vector")
        with_momentum = (f"{name}_with_bn_hparams" for name in named if self.momentum_configurable)
        return ("default", *named, *with_momentum)

    @property
    def has_labels(self) -> bool:
        """Whether its page links to the 1001 labels (the first classifiers of V2 are silent)."""
        return self.kind == "classification" and (self.architecture == "mobilenet_v1" or self.version > 1)

    @property
    def published(self) -> Figures:
        """The README's row: MACs, parameters, accuracy, latency."""
        return self.configuration.published

    @property
    def checkpoint(self) -> str:
        """The TF-Slim checkpoint it was exported from."""
        return self.configuration.checkpoint

    @property
    def checkpoint_url(self) -> str:
        """Where that checkpoint was published, as a .tgz."""
        return self.configuration.checkpoint_url

    @property
    def description(self) -> str:
        """The first sentence of its page."""
        network = self.architecture.replace("mobilenet_v", "MobileNet V")
        if self.family == "imagenet":
            network += f" (depth multiplier {self.depth_multiplier:.2f})"
        if self.kind == "classification":
            text = f"Imagenet (ILSVRC-2012-CLS) classification with {network}."
        else:
            text = f"Feature vectors of images with {network} trained on ImageNet (ILSVRC-2012-CLS)."
        return text if self.family == "imagenet" else f"[TF2] {text}"

    @property
    def page(self) -> dict[str, str]:
        """The metadata comments of its page."""
        return {
            "dataset": "imagenet-ilsvrc-2012-cls",
            "format": "hub" if self.format == "hub1" else "saved_model_2",
            "fine-tunable": "true",
            "module-type": f"image-{self.kind.replace('_', '-')}",
            "network-architecture": self.architecture.replace("mobilenet_v", "MobileNet V"),
        }

    @property
    def changelog(self) -> dict[int, tuple[str, ...]]:
        """What changed, by version, up to this one."""
        changes = _CHANGES[self.family, self.architecture]
        return {version: changes[version] for version in changes if version <= self.version}


@cache
def configurations() -> tuple[Configuration, ...]:
    """Return the 38 published configurations: V1 then V2, by depth multiplier and image size.

    Example:
        >>> configurations()[0].name
        'mobilenet_v1_025_128'
    """
    return tuple(Configuration(name, *key) for name, rows in _FIGURES.items() for key in rows)


@cache
def published_modules() -> tuple[PublishedModule, ...]:
    """Return the 356 published modules, in the order of their handles; quantops modules are not among them.

    Example:
        >>> len(published_modules())
        356
    """
    found = [
        PublishedModule(family, configuration, kind, version)
        for (family, architecture), changes in _CHANGES.items()
        for configuration in configurations()
        if configuration.architecture == architecture
        and (family == "imagenet" or (configuration.depth_multiplier, configuration.size) == (1.0, 224))
        for kind in KINDS
        for version in changes
    ]
    return tuple(sorted(found, key=lambda module: module.handle))


def modules_of(stem: str) -> tuple[PublishedModule, ...]:
    """Return every version of a module, by its handle without the version; none where there is no such module.

    Example:
        >>> [module.version for module in modules_of("google/tf2-preview/mobilenet_v2/classification")]
        [1, 2, 3, 4]
    """
    return _by_stem().get(stem, ())


@cache
def _by_stem() -> dict[str, tuple[PublishedModule, ...]]:
    stems: dict[str, list[PublishedModule]] = {}
    for module in published_modules():
        stems.setdefault(module.stem, []).append(module)
    return {stem: tuple(modules) for stem, modules in stems.items()}


def listed(values: Iterable[object]) -> str:
    """Return values as a sentence lists them.

    Example:
        >>> listed([1, 3])
        '1, 3'
    """
    return ", ".join(str(value) for value in values)
