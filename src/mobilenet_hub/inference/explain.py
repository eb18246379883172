"""Which part of a photo spoke for a label: class activation maps, which for a MobileNet are exact.

Behind the last feature map F [h, w, channels] come its mean and a linear classifier, and both are linear: a class's
logit is its bias plus the mean over all positions of F . weights. That product is the map (Zhou et al.,
arXiv 1512.04150): what each position adds to the logit. A temperature scales scores, and no map.

Hidden layers behind the features have ReLU, so that every photo lies on a linear piece of what they compute: the
weights are then the gradient of the logit by the features, the bias what is left of the logit, and the sum is exact
as well. Of two classes that are one sigmoid, with the logits (0, z), the first is explained by -z: what speaks for one
speaks against the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.architecture import Architecture, pad_amounts
from mobilenet_hub.errors import InputError
from mobilenet_hub.inference.graph import dense_layers
from mobilenet_hub.inference.probabilities import likeliest
from mobilenet_hub.module import check_has_weights

if TYPE_CHECKING:
    from mobilenet_hub.inference.bfloat16 import Layer
    from mobilenet_hub.inference.model import Model

MAX_MAP_BYTES = 1 << 26  # of last feature maps that are held at a time
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
# Over a gray photo, from what said nothing to what spoke loudest: clear, orange, yellow.
_SHARES, _COLORS = (0.0, 0.5, 1.0), np.array([[214, 60, 0], [245, 110, 0], [255, 224, 70]], np.float32)
_STRENGTH = 0.75  # of the color where it is strongest


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What spoke for some classes of one image, the likeliest first or in the order asked for."""

    source: str  # the image's path, or "image 3" where it has none
    labels: tuple[str, ...]  # k of them
    scores: tuple[float, ...]  # softmax over all classes, in [0, 1]
    indices: tuple[int, ...]  # of the classes
    maps: np.ndarray  # float32 [k, h, w]: what each position adds; its mean plus the bias is the logit
    biases: tuple[float, ...]  # what is added whatever the photo shows
    logits: tuple[float, ...]  # what is explained; of the first of two classes that are one sigmoid, minus the other's
    rows: np.ndarray  # float64 [h]: where the map's rows lie, in pixels of `image`
    columns: np.ndarray  # float64 [w]
    image: np.ndarray  # uint8 [height, width, 3]: the pixels that were classified

    def first(self, count: int) -> "Explanation":
        """Return the explanation of the first classes alone."""
        first = slice(count)
        return replace(
            self,
            labels=self.labels[first],
            scores=self.scores[first],
            indices=self.indices[first],
            maps=self.maps[first],
            biases=self.biases[first],
            logits=self.logits[first],
        )

    def heat(self, rank: int = 0) -> np.ndarray:
        """Return the map of one of the classes brought to the image's pixels, float32 [height, width].

        Args:
            rank: which of the classes, from 0.
        """
        height, width = self.image.shape[:2]
        return (_taps(self.rows, height) @ self.maps[rank] @ _taps(self.columns, width).T).astype(np.float32)

    def overlay(self, rank: int = 0) -> np.ndarray:
        """Return the image in gray, uint8 [height, width, 3], colored where it spoke for a class.

        All classes of an explanation are drawn on the same scale, from 0 to the largest of their values; what spoke
        against the class is as gray as what said nothing.

        Args:
            rank: which of the classes, from 0.
        """
        most = max(float(self.maps.max(initial=0)), 1e-12)
        share = np.clip(self.heat(rank) / most, 0, 1)
        color = np.stack([np.interp(share, _SHARES, channel) for channel in _COLORS.T], axis=-1)
        gray = (self.image @ _LUMA)[..., np.newaxis]
        return np.rint(gray + (color - gray) * (_STRENGTH * share)[..., np.newaxis]).astype(np.uint8)


def last_map(network: Architecture) -> str:
    """Return the endpoint whose mean over all positions the features are.

    Example:
        >>> from mobilenet_hub.architecture import mobilenet_v1
        >>> last_map(mobilenet_v1(0.25))
        'Conv2d_13_pointwise'
    """
    return network.units[-1].endpoints[0]


class Explainer:
    """A classifier with one more output, the last feature map, and what turns it into maps of classes.

    Attributes:
        engine: computes "logits", the same as the classifier's, and `feature_map`.
        feature_map: the name of the last feature map among the engine's outputs.
        rows, columns: where the map's rows and columns lie in the image, in pixels: float64 [h], [w].
    """

    def __init__(self, classifier: "Model", labels: Sequence[str]):
        """Open a classifier's module once more, in the same precision and engine; compiled when it first runs.

        Raises:
            InputError: the module keeps a quantized file, whose maps cannot be reached.
        """
        check_has_weights(classifier.config, "be told by it which part of a photo spoke for a label")
        network = classifier.config.network
        self._labels = labels
        self.feature_map = last_map(network)
        self.engine = classifier.engine.with_outputs(("logits", self.feature_map))
        self._layers = _told_apart(dense_layers(network, classifier.engine.job.module().weights))
        size, trained = self.engine.image_size, classifier.config.image_size
        self.rows, self.columns = (_centers(network, size[axis], trained[axis]) for axis in (0, 1))
        # So many images' maps are held at a time.
        self._step = max(1, MAX_MAP_BYTES // (4 * len(self.rows) * len(self.columns) * network.num_features))

    def explain(self, sources: Sequence[str], images: np.ndarray, classes: "int | np.ndarray") -> list[Explanation]:
        """Return the explanations of a batch.

        Args:
            sources: n names.
            images: [n, height, width, 3], uint8 or float32 in [0, 1].
            classes: how many classes of each image to explain, the likeliest; or which ones, int [n, k].
        """
        found: list[Explanation] = []
        for start in range(0, len(images), self._step):
            part = slice(start, start + self._step)
            outputs = self.engine.run(images[part])
            which = classes if isinstance(classes, int) else classes[part]
            found += self.explained(sources[part], images[part], outputs, which)
        return found

    def explained(
        self,
        sources: Sequence[str],
        images: np.ndarray,
        outputs: Mapping[str, np.ndarray],
        classes: "int | np.ndarray",
    ) -> list[Explanation]:
        """Return the explanations of a batch whose outputs `engine` has computed; otherwise as `explain`."""
        scores = self.engine.scores(outputs["logits"])
        indices = likeliest(scores, classes, outputs["logits"])[0] if isinstance(classes, int) else classes
        found = []
        for source, image, features, row, which in zip(
            sources, _as_pixels(images), outputs[self.feature_map], scores, indices, strict=True
        ):
            maps, biases, logits = class_maps(self._layers, features, which)
            found.append(
                Explanation(
                    source=source,
                    labels=tuple(self._labels[int(index)] for index in which),
                    scores=tuple(row[which].tolist()),
                    indices=tuple(which.tolist()),
                    maps=maps,
                    biases=tuple(biases.tolist()),
                    logits=tuple(logits.tolist()),
                    rows=self.rows,
                    columns=self.columns,
                    image=image,
                )
            )
        return found


def class_maps(
    layers: "Sequence[Layer]", features: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the maps of some classes of one image.

    Args:
        layers: the dense layers behind the features, as `graph.dense_layers` gives them.
        features: the last feature map, float32 [h, w, channels].
        classes: int [k].

    Returns:
        The maps float32 [k, h, w], the biases and the logits float64 [k]: a map's mean plus its bias is the logit.

    Example:
        >>> kernel, bias = np.array([[[[2.0, 0.0], [0.0, 1.0]]]]), np.array([0.5, 0.0])
        >>> maps, biases, logits = class_maps([(kernel, bias)], np.ones((1, 2, 2)), np.array([0]))
        >>> maps.tolist(), biases.tolist(), logits.tolist()
        ([[[2.0, 2.0]]], [0.5], [2.5])
    """
    exact = features.astype(np.float64)
    value = pooled = exact.mean((0, 1))
    active = []
    for number, (kernel, bias) in enumerate(layers):
        if number:
            active.append(value > 0)
            value = np.maximum(value, 0)
        value = value @ kernel[0, 0] + bias
    weights = layers[-1][0][0, 0][:, classes].astype(np.float64)
    for (kernel, _), on in zip(reversed(layers[:-1]), reversed(active), strict=True):
        weights = kernel[0, 0] @ (weights * on[:, np.newaxis])
    logits = value[classes]
    return np.moveaxis(exact @ weights, 2, 0).astype(np.float32), logits - pooled @ weights, logits


def chosen_classes(labels: Sequence[str], classes: Sequence[str | int]) -> np.ndarray:
    """Return the indices int [k] of classes named by label or index; of equal labels, the first is meant.

    Raises:
        InputError: one that there is not, the same one twice, or none.

    Example:
        >>> chosen_classes(("cat", "dog"), ["dog", 0]).tolist()
        [1, 0]
    """
    from difflib import get_close_matches

    found = []
    for one in [classes] if isinstance(classes, str) else classes:
        if isinstance(one, str) and one in labels:
            found.append(labels.index(one))
        elif isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(labels):
            found.append(one)
        else:
            near = get_close_matches(str(one), labels, n=3)
            hint = f"; near to it: {', '.join(near)}" if near else f"; indices go from 0 to {len(labels) - 1}"
            raise InputError(f"classes: the module knows no class {one!r}{hint}")
    if not found or len(set(found)) < len(found):
        raise InputError(f"classes must be one or more different classes, not {list(classes)}")
    return np.array(found, np.int64)


def _told_apart(layers: "list[Layer]") -> "list[Layer]":
    """Return the layers; of two classes that are one sigmoid, (0, z), with (-z, z) as the last one's outputs."""
    kernel, bias = layers[-1]
    for constant in (0, 1):
        if kernel.shape[-1] == 2 and not kernel[..., constant].any() and not bias[constant]:
            kernel, bias = kernel.copy(), bias.copy()
            kernel[..., constant], bias[constant] = -kernel[..., 1 - constant], -bias[1 - constant]
            return [*layers[:-1], (kernel, bias)]
    return layers


def _as_pixels(images: np.ndarray) -> np.ndarray:
    return images if images.dtype == np.uint8 else np.rint(images.clip(0, 1) * 255).astype(np.uint8)


def _centers(network: Architecture, size: int, trained: int) -> np.ndarray:
    """Return in which pixel of an axis of this length each position of the last feature map lies, float64 [positions].

    At the size that a network was trained at, positions tile the image: whatever TensorFlow's padding does (the odd
    zero stands behind, which puts the middles of 3x3 kernels half a step late), training on mirrored photos taught the
    kernels to look half a step ahead. At another size the padding moves the positions, and what was learned stays.
    Measured: docs/explain.md.
    """

    def grid(length: int) -> tuple[float, int, int]:
        """Return where the first position's middle lies, the step between positions, and how many there are."""
        first, step = 0.0, 1
        sizes = [length, *(sizes[0] for sizes in network.output_sizes(length, length))]
        for unit, before in zip(network.units, sizes[:-1], strict=True):
            zeros, _ = pad_amounts(before, unit.kernel_size, unit.stride, network.variant.padding)
            first += step * ((unit.kernel_size - 1) / 2 - zeros)
            step *= unit.stride
        return first, step, sizes[-1]

    nominal, _, count = grid(trained)
    learned = (trained / count - 1) / 2 - nominal
    first, step, count = grid(size)
    return first + learned + step * np.arange(count)


def _taps(centers: np.ndarray, length: int) -> np.ndarray:
    """Return what takes values at the centers to each pixel, linear between them, float64 [length, positions]."""
    pixels = np.arange(length)
    return np.stack([np.interp(pixels, centers, row) for row in np.eye(len(centers))], axis=1)
