"""Between the 1001 classes of TF-Slim's networks and the 1000 of everybody else's. Imports errors and module_folder.

Keras's and other peers' ImageNet classifiers are TF-Slim's without the row of the background. A module read from such
a file keeps its 1000 classes: the row is gone, and nothing puts it back. The other way loses nothing that is wanted.
"""

from dataclasses import replace

from mobilenet_hub.architecture import IMAGENET_CLASSES
from mobilenet_hub.errors import InputError
from mobilenet_hub.module_folder import Module


def drop_background(module: Module) -> Module:
    """Return a module of 1001 ImageNet classes as one of 1000: the same logits but the first, the background's.

    Raises:
        InputError: the module has another number of classes.

    Example:
        >>> from mobilenet_hub.weights.convert import load_source
        >>> drop_background(load_source("mobilenet_v1_0.25_128.tgz")).config.num_classes  # doctest: +SKIP
        1000
    """
    config = module.config
    if config.num_classes != IMAGENET_CLASSES:
        raise InputError(f"the module has {config.num_classes} classes, not the {IMAGENET_CLASSES} with background")
    classifier = {variable.name: module.weights[variable.name][..., 1:] for variable in config.network.classifier}
    labels = config.labels[1:] if config.labels else None
    return Module(replace(config, num_classes=IMAGENET_CLASSES - 1, labels=labels), {**module.weights, **classifier})
