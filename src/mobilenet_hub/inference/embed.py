"""Feature vectors of images, without a framework: `Embedder`."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.images.batches import batches
from mobilenet_hub.images.fit import Fit, checked_fit
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.engine import Engine, Precision
from mobilenet_hub.module import Module
from mobilenet_hub.store import resolve

if TYPE_CHECKING:
    from mobilenet_hub.images.labelled import Images


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """The feature vectors of some images of a stream, and the images among them that could not be read."""

    sources: list[str]  # n names: paths, archive/member, or "image 3" where an image has none
    features: np.ndarray  # float32 [n, num_features]
    sizes: list[tuple[int, int]]  # n full (height, width)
    skipped: list[Skipped]


class Embedder:
    """A module, ready to turn images into feature vectors; classification modules have them too.

    Attributes:
        config: the module's configuration.
        num_features: the length of a feature vector.
        image_size: (height, width) that images are brought to.
        precision: "f32" or "bf16", what is really computed in.
        fit: how an image of another shape is fitted.
        engine: what computes; `engine.run(batch)["features"]` skips the reading of images.
    """

    def __init__(
        self,
        module: str | os.PathLike[str] | Module = "starter",
        precision: Precision = "auto",
        image_size: int | tuple[int, int] | None = None,
        *,
        fit: Fit | None = None,
        threads: int | None = None,
        any_size: bool = False,
    ):
        """Open a module; the first images compile it, or find it compiled on disk.

        Args:
            module: a name of a module, a module folder's path, or a module in memory.
            precision: "f32", "bf16" or "auto", the faster of the two that this CPU has instructions for.
            image_size: a side or (height, width); None: what the module was trained at.
            fit: how an image of another shape is fitted; None: the default of `images`.
            threads: how many to use; None: as many as there are cores.
            any_size: allow an image size that the published module does not.

        Raises:
            InputError: no such fit; or the module does not allow this image size.
            UnknownModuleError, ModuleUnavailableError, InvalidModuleError: as `resolve` and `read_module` do.

        Example:
            >>> Embedder("starter").num_features > 0
            True
        """
        source = module if isinstance(module, Module) else resolve(module)
        self.engine = Engine(
            source, ("features",), image_size=image_size, precision=precision, threads=threads, any_size=any_size
        )
        self.config = self.engine.config
        self.num_features = self.config.network.num_features
        self.image_size = self.engine.image_size
        self.precision = self.engine.precision
        self.fit: Fit = checked_fit(fit)

    def embed(self, images: "Images") -> np.ndarray:
        """Return the feature vectors of images.

        Args:
            images: paths, bytes, PIL images or uint8 arrays [h, w, 3], in a list or alone; or one float32 batch
                [n, height, width, 3] in [0, 1], taken as it is.

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
        parts = [self.engine.run(batch)["features"] for _, batch in batches(images, self.image_size, self.fit)]
        return np.concatenate(parts) if parts else np.empty((0, self.num_features), np.float32)

    def stream(self, images: "Images") -> Iterator[FeatureBatch]:
        """Yield the feature vectors of any number of images in their order, decoding ahead with bounded memory.

        Args:
            images: paths, bytes, PIL images or uint8 arrays [h, w, 3], in any iterable or alone. A path may also be a
                folder, a glob, or a .tar, .zip or .parquet of images, which stand for all images in them.

        Raises:
            InputError: something else than an image or a path, or a folder that vanishes while it is read.

        Example:
            >>> embedder = Embedder("starter")
            >>> [len(batch.features) for batch in embedder.stream([np.zeros((90, 120, 3), np.uint8)] * 70)]
            [64, 6]
        """
        from mobilenet_hub.images.batches import compute, is_one
        from mobilenet_hub.images.inputs import Item, items

        def listed(images: Any) -> Iterator[Item]:
            for number, image in enumerate([images] if is_one(images) else images):
                if isinstance(image, str | os.PathLike):
                    yield from items([image])
                else:
                    yield Item(f"image {number}", partial(_itself, image))

        for batch, features in compute(listed(images), self.engine, "features", self.fit):
            yield FeatureBatch(batch.keys, features, batch.sizes, batch.skipped)


def _itself(image: Any) -> Any:
    return image
