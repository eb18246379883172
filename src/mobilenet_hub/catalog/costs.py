"""What the published configurations cost, computed from the architecture, beside what the README tables print."""

from dataclasses import dataclass
from functools import cache

from mobilenet_hub.architecture import architecture
from mobilenet_hub.catalog.published import NUM_CLASSES, Configuration, configurations


@dataclass(frozen=True, slots=True)
class Cost:
    """The computed cost of a network for one image of its published size."""

    macs: int  # multiply-accumulates
    parameters: int  # trainable ones and moving statistics
    trainable_parameters: int


@cache
def cost(configuration: Configuration, num_classes: int) -> Cost:
    """Compute the cost of a published configuration with that many classes; 0 for the feature vector alone.

    Example:
        >>> from mobilenet_hub.catalog.find import find_module
        >>> cost(find_module("mobilenet_v2_100_224/classification").configuration, 1001).macs
        300775552
    """
    network = architecture(configuration.architecture, configuration.depth_multiplier, num_classes)
    size = configuration.size
    return Cost(network.macs(size, size), network.parameters(), network.parameters(trainable=True))


@cache
def misprinted_macs() -> tuple[Configuration, ...]:
    """Return the configurations whose published MACs are wrong: not the computed ones, rounded or cut to millions.

    All are rows of the V1 README: the four of depth multiplier 0.75, and 0.25 at 192 pixels.

    Example:
        >>> [configuration.name for configuration in misprinted_macs()][:1]
        ['mobilenet_v1_025_192']
    """
    return tuple(c for c in configurations() if abs(cost(c, NUM_CLASSES).macs / 1e6 - c.published.mmacs) >= 1)
