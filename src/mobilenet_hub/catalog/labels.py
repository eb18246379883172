"""The labels of the published classifiers: 1001 of ImageNet, index 0 is background.

The list is that of TF-Slim's checkpoints, with every synonym that ImageNet gives a class. The list that the module
pages link to, ImageNetLabels.txt, has the same order and only the first synonym of each.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenet_hub.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_FILE = Path(__file__).with_name("imagenet_labels.txt")
_IDS_FILE = _FILE.with_name("imagenet_wordnet_ids.txt")


@cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the 1001 labels in the order of the published logits; index 0 is "background".

    Two of them read "crane": the bird (index 135) and the machine (518).

    Example:
        >>> imagenet_labels()[:2]
        ('background', 'tench, Tinca tinca')
    """
    return tuple(_FILE.read_text(encoding="utf-8").splitlines())


@cache
def wordnet_ids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1000 classes, in the order of `imagenet_labels_1000`.

    Source: the sorted list of the ids of ILSVRC 2012, which gives the classes their order.

    Example:
        >>> wordnet_ids()[0]
        'n01440764'
    """
    return tuple(_IDS_FILE.read_text(encoding="utf-8").split())


def imagenet_labels_1000() -> tuple[str, ...]:
    """Return the 1000 labels that most other libraries use: those above without background.

    Example:
        >>> imagenet_labels_1000()[0]
        'tench, Tinca tinca'
    """
    return imagenet_labels()[1:]


def without_background(logits: "np.ndarray") -> "np.ndarray":
    """Return the 1000-class view of published logits, for comparison with libraries that have no background class.

    The background is dropped before softmax, so that the 1000 probabilities sum to one.

    Args:
        logits: [..., 1001]; logits, not probabilities.

    Returns:
        A view on them, [..., 1000]; index 0 is the tench.

    Raises:
        InputError: the last axis is not 1001 long.

    Example:
        >>> import numpy as np
        >>> without_background(np.zeros((2, 1001))).shape
        (2, 1000)
    """
    if logits.ndim == 0 or logits.shape[-1] != len(imagenet_labels()):
        raise InputError(
            f"logits of shape {list(logits.shape)} have no background class to drop; it takes [..., 1001], as the "
            "published classifiers give them"
        )
    return logits[..., 1:]
