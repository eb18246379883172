"""Which photos a module was made from: their digests travel with it, so that `evaluate --unseen` knows them anywhere.

They stand in module.json, in `trained_on`, six bytes for each photo: of a million photos, one that was never seen is
taken for seen once in three hundred such modules. A trained module's photos.csv has the whole digests, and names.
"""

import base64
import binascii
import csv
from collections.abc import Callable, Iterable
from pathlib import Path

from mobilenet_hub.module import ModuleConfig

PHOTOS_FILE = "photos.csv"  # in a trained module's folder: which photos it was made from
KEY = "photos_sha1"  # in `trained_on`
_BYTES = 6


def as_text(digests: Iterable[str]) -> str:
    """Return the digests (SHA-1 in hex) as one short text, the same for any order.

    Example:
        >>> as_text(["da39a3ee5e6b4b0d3255bfef95601890afd80709"])
        '2jmj7l5r'
    """
    return base64.b64encode(b"".join(sorted(bytes.fromhex(digest)[:_BYTES] for digest in digests))).decode()


def seen_by(folder: Path, config: ModuleConfig) -> Callable[[str], bool] | None:
    """Return what tells by its digest whether a photo trained the module or chose its settings; None: nobody knows."""
    try:
        with (folder / PHOTOS_FILE).open(encoding="utf-8", newline="") as stream:
            whole = {row["sha1"] for row in csv.DictReader(stream) if row["split"] != "test"}
        if whole:
            return whole.__contains__
    except (OSError, ValueError, KeyError, csv.Error):
        pass
    about = config.trained_on if isinstance(config.trained_on, dict) else {}
    try:
        short = base64.b64decode(about[KEY], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    known = {short[start : start + _BYTES].hex() for start in range(0, len(short), _BYTES)}
    return lambda digest: digest[: 2 * _BYTES] in known


def is_trained_here(config: ModuleConfig) -> bool:
    """Tell whether `train` made the module, and so from photos that it should know."""
    return isinstance(config.source, dict) and "method" in config.source
