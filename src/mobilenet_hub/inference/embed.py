"""Feature vectors of images, without a framework: `Embedder`."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.images.batches import compute, given
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.model import Model

if TYPE_CHECKING:
    from mobilenet_hub.images.batches import Images


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """The feature vectors of some images of a stream, and the images among them that could not be read."""

    sources: list[str]  # n names: paths, archive/member, or "image 3" where an image has none
    features: np.ndarray  # float32 [n, num_features]
    sizes: list[tuple[int, int]]  # n full (height, width)
    skipped: list[Skipped]


class Embedder(Model):
    """A module, ready to turn images into feature vectors; classification modules have them too.

    Attributes:
        config: the module's configuration.
        num_features: the length of a feature vector.
        image_size: (height, width) that images are brought to.
        precision: "f32" or "bf16", what is really computed in.
        engine_name: "litert" or "openvino", what really computes.
        fit: how an image of another shape is fitted.
        preprocessing: the two together, `preprocessing.load(image)`.
        engine: what computes; `engine.run(batch)["features"]` skips the reading of images.

    Example:
        >>> Embedder("starter").num_features > 0
        True
    """

    output = "features"
    kind = "feature_vector"

    @property
    def num_features(self) -> int:
        """The length of a feature vector."""
        return self.config.network.num_features

    def embed(self, images: "Images") -> np.ndarray:
        """Return the feature vectors of images.

        Args:
            images: paths, bytes, open files, PIL images or uint8 arrays [h, w, 3], in a list or alone; or one float32
                batch [n, height, width, 3] in [0, 1], taken as it is.

        Returns:
            float32 [n, num_features].

        Raises:
            ImageError: an image that cannot be read; names it.
            InputError: a batch of another shape, or of values outside [0, 1].

        Example:
            >>> embedder = Embedder("starter")
            >>> embedder.embed([np.zeros((90, 120, 3), np.uint8)]).shape == (1, embedder.num_features)
            True
        """
        return self.outputs_of(images, (self.num_features,))

    def stream(self, images: "Images", passed_over: Counter[str] | None = None) -> Iterator[FeatureBatch]:
        """Yield the feature vectors of any number of images in their order, decoding ahead with bounded memory.

        Args:
            images: paths, bytes, open files, PIL images or uint8 arrays [h, w, 3], in any iterable or alone. A path may
                also be a folder, a glob, or a .tar, .zip or .parquet of images, which stand for all images in them.
            passed_over: counts, by suffix, the files in those that are no images.

        Raises:
            InputError: something else than an image or a path, or a folder that vanishes while it is read.

        Example:
            >>> embedder = Embedder("starter")
            >>> [len(batch.features) for batch in embedder.stream([np.zeros((90, 120, 3), np.uint8)] * 70)]
            [64, 6]
        """
        from mobilenet_hub.images.inputs import Item, items

        def listed() -> Iterator[Item]:
            for item in given(images):
                image = item.read()
                if isinstance(image, str | os.PathLike):
                    yield from items([image], passed_over=passed_over)
                else:
                    yield item

        for batch, features in compute(listed(), self.engine, self.output, self.preprocessing):
            yield FeatureBatch(batch.keys, features, batch.sizes, batch.skipped)
