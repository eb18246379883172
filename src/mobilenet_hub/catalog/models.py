"""The published modules by a part of their name: `models`."""

from fnmatch import fnmatchcase

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.catalog.published import PublishedModule, published_modules


def models(filter: str = "") -> list[PublishedModule]:
    """Return the published modules whose handle contains a text or fits a pattern with *; else the one of that name.

    Args:
        filter: as `v2_130` or `*_224/feature_vector/*`; "": all.

    Raises:
        UnknownModuleError: there is none; the text says what there is.

    Example:
        >>> len(models("v2_130"))
        10
        >>> models("mobilenet_v1_025_128/feature_vector/5")[0].num_features
        256
    """
    pattern = f"*{filter.strip().lower()}*"
    return [m for m in published_modules() if fnmatchcase(m.handle, pattern)] or [find_module(filter)]
