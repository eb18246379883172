"""Labels for images, without a framework: `Classifier` and its `Prediction`s."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images.batches import batches
from mobilenet_hub.inference.model import Model
from mobilenet_hub.inference.probabilities import likeliest
from mobilenet_hub.module import ModuleConfig

if TYPE_CHECKING:
    from mobilenet_hub.images.batches import Images
    from mobilenet_hub.inference.explain import Explainer, Explanation


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier says of one image, the likeliest class first."""

    source: str  # the image's path, or "image 3" where it has none
    labels: tuple[str, ...]
    scores: tuple[float, ...]  # softmax over all classes, in [0, 1]; or what a quantized file gives
    indices: tuple[int, ...]  # of the classes; 0 is background in the published modules

    def believed(self, min_score: float) -> "Prediction":
        """Return the prediction less the classes whose scores are below a threshold: with none left, no answer.

        Example:
            >>> Prediction("a.jpg", ("cat", "dog"), (0.7, 0.3), (0, 1)).believed(0.5).labels
            ('cat',)
        """
        count = sum(score >= min_score for score in self.scores)
        return Prediction(self.source, self.labels[:count], self.scores[:count], self.indices[:count])


class Classifier(Model):
    """A module with a classifier, ready for images.

    Attributes:
        config: the module's configuration.
        labels: a label for each class.
        image_size: (height, width) that images are brought to.
        precision: "f32" or "bf16", what is really computed in.
        engine_name: "litert" or "openvino", what really computes.
        fit: how an image of another shape is fitted.
        preprocessing: the two together, `preprocessing.load(image)`.
        engine: what computes; `engine.run(batch)["logits"]` skips the reading of images.

    Example:
        >>> Classifier("starter").image_size[0] > 0
        True
    """

    output = "logits"
    kind = "classification"

    def check(self) -> None:
        """Refuse a module without a classifier, and name its classes."""
        self.labels = labels_of(self.config)

    def logits(self, images: "Images") -> np.ndarray:
        """Return the raw outputs of the classifier; of a quantized LiteRT file, what the file gives.

        Args:
            images: paths, bytes, open files, PIL images or uint8 arrays [h, w, 3], in a list or alone; or one float32
                batch [n, height, width, 3] in [0, 1], taken as it is.

        Returns:
            float32 [n, num_classes].

        Raises:
            ImageError: an image that cannot be read; names it.
            InputError: a batch of another shape, or of values outside [0, 1].

        Example:
            >>> classifier = Classifier("starter")
            >>> classifier.logits(np.zeros((2, *classifier.image_size, 3), np.float32)).shape[0]
            2
        """
        return self.outputs_of(images, (self.config.num_classes,))

    def classify(
        self, images: "Images", top: int = 5, *, on_error: Callable[[str, ImageError], object] | None = None
    ) -> list[Prediction]:
        """Return the likeliest classes of each image.

        Args:
            images: as for `logits`.
            top: how many classes of each, at least 1.
            on_error: called with the source and the reason of an image that cannot be read, which then has no
                prediction; None: the error is raised.

        Raises:
            ImageError: an image that cannot be read; names it.
            InputError: a batch of another shape or range, or top below 1.

        Example:
            >>> Classifier("starter").classify(np.zeros((90, 120, 3), np.uint8), top=2)[0].scores[0] <= 1
            True
        """
        _check_top(top)
        predictions = []
        for sources, batch in batches(images, self.preprocessing, on_error, threads=self.engine.threads):
            predictions += self.predictions(sources, self.engine.run(batch)["logits"], top)
        return predictions

    def explain(
        self,
        images: "Images",
        top: int = 1,
        *,
        classes: "Sequence[str | int] | None" = None,
        on_error: Callable[[str, ImageError], object] | None = None,
    ) -> "list[Explanation]":
        """Return which part of each image spoke for its likeliest classes, or for some classes.

        Args:
            images: as for `logits`.
            top: how many classes of each, at least 1.
            classes: labels or indices of the classes to explain of every image, in place of the likeliest.
            on_error: as for `classify`.

        Raises:
            ImageError: an image that cannot be read; names it.
            InputError: the module keeps a quantized file, or does not know a class; a batch of another shape or range,
                or top below 1.

        Example:
            >>> found = Classifier("starter").explain(np.zeros((90, 120, 3), np.uint8), top=2)[0]
            >>> bool(abs(found.maps[0].mean() + found.biases[0] - found.logits[0]) < 1e-4), found.heat(1).shape
            (True, (160, 160))
        """
        from mobilenet_hub.inference.explain import chosen_classes

        _check_top(top)
        chosen = None if classes is None else chosen_classes(self.labels, classes)
        found = []
        for sources, batch in batches(images, self.preprocessing, on_error, threads=self.engine.threads):
            which = top if chosen is None else np.tile(chosen, (len(batch), 1))
            found += self.explainer.explain(sources, batch, which)
        return found

    @cached_property
    def explainer(self) -> "Explainer":
        """What computes explanations; opened when it is first asked for."""
        from mobilenet_hub.inference.explain import Explainer

        return Explainer(self, self.labels)

    def ranked(self, logits: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices and scores [n, top] of the likeliest classes for logits [n, num_classes]."""
        return likeliest(self.engine.scores(logits), top, logits)

    def predictions(self, sources: Sequence[str], logits: np.ndarray, top: int) -> list[Prediction]:
        """Return the likeliest classes for logits [n, num_classes] of n named images."""
        best, scores = self.ranked(logits, top)
        return [
            Prediction(source, tuple(self.labels[i] for i in indices), tuple(ranked), tuple(indices))
            for source, ranked, indices in zip(sources, scores.tolist(), best.tolist(), strict=True)
        ]


def explain(
    images: "Images",
    module: str | os.PathLike[str] = "starter",
    top: int = 1,
    *,
    classes: "Sequence[str | int] | None" = None,
    on_error: Callable[[str, ImageError], object] | None = None,
) -> "list[Explanation]":
    """Return which part of each image spoke for its likeliest classes, or for some classes.

    Args:
        images: paths, bytes, PIL images or uint8 arrays [h, w, 3], in a list or alone; or one float32 batch
            [n, height, width, 3] in [0, 1], taken as it is.
        module: a name of a module with a classifier, or a module folder's path. For more photos, open a `Classifier`
            once and call its `explain`.
        top: how many classes of each, at least 1.
        classes: labels or indices of the classes to explain of every image, in place of the likeliest.
        on_error: called with the source and the reason of an image that cannot be read, which is then left out; None:
            the error is raised.

    Raises:
        ImageError: an image that cannot be read; names it.
        InputError: the module has no classifier, keeps a quantized file, or does not know a class; or top below 1.

    Example:
        >>> explain(np.zeros((90, 120, 3), np.uint8))[0].maps.ndim
        3
    """
    return Classifier(module).explain(images, top, classes=classes, on_error=on_error)


def _check_top(top: object) -> None:
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise InputError(f"top must be a whole number from 1, not {top!r}")


def labels_of(config: ModuleConfig) -> tuple[str, ...]:
    """Return a label for each class: the module's own, ImageNet's where there are 1001 classes, or the index.

    Raises:
        InputError: the module has no classifier.

    Example:
        >>> labels_of(ModuleConfig("mobilenet_v1", 0.25, (128, 128), num_classes=2))
        ('0', '1')
    """
    from mobilenet_hub.architecture import IMAGENET_CLASSES

    if not config.num_classes:
        name = config.handle or "this module"
        raise InputError(
            f"{name} gives feature vectors and has no classifier: use Embedder or `mobilenet embed` for features, or "
            f"take a classification module"
        )
    if config.labels is not None:
        return config.labels
    if config.num_classes == IMAGENET_CLASSES:
        from mobilenet_hub.catalog.labels import imagenet_labels

        return imagenet_labels()
    return tuple(str(index) for index in range(config.num_classes))
