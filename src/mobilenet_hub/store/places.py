"""The places that may have a published module, in the order in which they are asked.

`MOBILENET_HUB_SOURCES` names them, separated by commas, in another order, fewer of them, or at other addresses:
"mirror,tfhub=https://hub.example.org,slim". Nothing here opens a connection.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.catalog.published import PublishedModule, published_modules
from mobilenet_hub.errors import InputError, UnknownModuleError
from mobilenet_hub.host.environment import setting

# name -> default address, in order. TF Hub's and Kaggle's caches of this machine come first: they cost nothing.
SOURCES: dict[str, str] = {
    "tfhub-cache": "",  # TFHUB_CACHE_DIR
    "kagglehub-cache": "",  # KAGGLEHUB_CACHE, or ~/.cache/kagglehub
    "mirror": "",  # MOBILENET_HUB_MIRROR
    "tfhub": "https://tfhub.dev",
    "gcs": "https://storage.googleapis.com/tfhub-modules",
    "kaggle": "https://www.kaggle.com/api/v1/models",
    "slim": "https://storage.googleapis.com",
}
_SLIM_FOLDERS = {
    "mobilenet_v1": "download.tensorflow.org/models/mobilenet_v1_2018_02_22",
    "mobilenet_v2": "mobilenet_v2/checkpoints",
}
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")
# The handles under which tensorflow_hub may have cached a module: the folder's name is the SHA-1 of the string.
_TFHUB_PREFIXES = ("https://tfhub.dev/", "http://tfhub.dev/")
_KAGGLE_PREFIXES = ("https://www.kaggle.com/models/", "https://kaggle.com/models/")


@dataclass(frozen=True)
class Candidate:
    """One place where a module may be."""

    source: str
    place: str | Path  # a URL, or the path of an archive or folder
    is_checkpoint: bool = False  # TF-Slim's own, which holds the classifier also where only features are asked for

    @property
    def server(self) -> str:
        """The server that has it; empty where it is on this machine."""
        return "" if isinstance(self.place, Path) else urlsplit(self.place).netloc


def candidates(module: PublishedModule) -> Iterator[Candidate]:
    """Yield the places where a module may be, best first; those on this machine only where something is there.

    Raises:
        InputError: MOBILENET_HUB_SOURCES names a source that does not exist.

    Example:
        >>> from mobilenet_hub.catalog.find import find_module
        >>> next(c.place for c in candidates(find_module("mobilenet_v1_100_224/classification/3")))
        'https://tfhub.dev/google/imagenet/mobilenet_v1_100_224/classification/3?tf-hub-format=compressed'
    """
    for source, base in configured_sources().items():
        if source == "tfhub-cache":
            places = _in_tfhub_cache(module)
        elif source == "kagglehub-cache":
            places = _in_kagglehub_cache(module)
        elif source == "mirror":
            yield from _at_mirror(module)
            continue
        else:
            places = [_address(source, base, module)]
        yield from (Candidate(source, place, source == "slim") for place in places)


def configured_sources() -> dict[str, str]:
    """Return the sources in the order in which they are asked, each with its address.

    Raises:
        InputError: MOBILENET_HUB_SOURCES names a source that does not exist.

    Example:
        >>> list(configured_sources())[-1]
        'slim'
    """
    chosen = setting("MOBILENET_HUB_SOURCES").replace(",", " ").split()
    if not chosen:
        return dict(SOURCES)
    configured = {}
    for item in chosen:
        name, _, base = item.partition("=")
        if name not in SOURCES:
            raise InputError(f"MOBILENET_HUB_SOURCES names {name!r}; the sources are {', '.join(SOURCES)}")
        configured[name] = base.rstrip("/") or SOURCES[name]
    return configured


def mirror() -> str | Path | None:
    """Return the mirror's URL or folder, where MOBILENET_HUB_MIRROR gives one.

    Example:
        >>> mirror() is None
        True
    """
    chosen = setting("MOBILENET_HUB_MIRROR")
    if not chosen:
        return None
    if urlsplit(chosen).scheme in ("http", "https"):
        return chosen.rstrip("/")
    return Path(chosen.removeprefix("file://")).expanduser()


def checkpoint_name(module: PublishedModule) -> str:
    """Return the file name of TF-Slim's archive of the checkpoint that a module was made from.

    Example:
        >>> from mobilenet_hub.catalog.find import find_module
        >>> checkpoint_name(find_module("mobilenet_v2_035_96/classification"))
        'mobilenet_v2_0.35_96.tgz'
    """
    return module.checkpoint_url.rpartition("/")[2]


def module_named_by(path: str | os.PathLike[str]) -> PublishedModule | None:
    """Return the published module that a path names as TF Hub's, Kaggle's or kagglehub's folders do, or None.

    Nothing need be there: the path may be another machine's.

    Example:
        >>> module_named_by("/kaggle/input/mobilenet-v2/tensorflow2/130-224-feature-vector/1").handle
        'google/imagenet/mobilenet_v2_130_224/feature_vector/4'
    """
    parts = [part for part in re.split(r"[/\\\\]", os.fspath(path)) if part]
    if parts and (found := _of_tfhub_cache().get(parts[-1])):
        return found
    for depth in (4, 3):  # mobilenet-v2/tensorflow2/VARIATION/VERSION, mobilenet_v2_130_224/feature_vector/4
        name = "/".join(parts[-depth:])
        try:
            return find_module(f"google/{name}" if depth == 4 else name)
        except UnknownModuleError:
            continue
    return None


@cache
def _of_tfhub_cache() -> dict[str, PublishedModule]:
    return {_sha1(name): module for module in published_modules() for name in _tfhub_names(module)}


def _sha1(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


def _tfhub_names(module: PublishedModule) -> Iterator[str]:
    """Yield the strings by which tensorflow_hub may have been asked for a module, and under which it cached it."""
    names = [prefix + module.handle for prefix in _TFHUB_PREFIXES]
    for handle in _kaggle_spellings(module):
        owner, model, framework, variation, version = handle.split("/")
        long_form = f"{owner}/{model}/frameworks/{framework}/variations/{variation}/versions/{version}"
        names += [prefix + form for prefix in _KAGGLE_PREFIXES for form in (handle, long_form)]
    yield from names
    yield from (f"{name}/" for name in names)


def _address(source: str, base: str, module: PublishedModule) -> str:
    if source == "tfhub":
        return f"{base}/{module.handle}?tf-hub-format=compressed"
    if source == "gcs":
        return f"{base}/{module.handle}.tar.gz"
    if source == "kaggle":
        return f"{base}/{module.kaggle_handle}/download"
    return f"{base}/{_SLIM_FOLDERS[module.architecture]}/{checkpoint_name(module)}"


def _in_tfhub_cache(module: PublishedModule) -> Iterator[Path]:
    if not (root := setting("TFHUB_CACHE_DIR")):
        return
    for name in _tfhub_names(module):
        folder = Path(root).expanduser() / _sha1(name)
        if folder.is_dir() and any(folder.iterdir()):
            yield folder


def _in_kagglehub_cache(module: PublishedModule) -> Iterator[Path]:
    root = Path(setting("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub").expanduser() / "models"
    for handle in _kaggle_spellings(module):
        folder = root / handle
        if folder.is_dir() and any(folder.iterdir()):
            yield folder


def _kaggle_spellings(module: PublishedModule) -> Iterator[str]:
    """Yield the Kaggle handle with the framework spelled as kagglehub, Kaggle's pages and its addresses do."""
    owner, model, framework, *rest = module.kaggle_handle.split("/")
    for spelling in (framework[:1].lower() + framework[1:], framework, framework.lower()):
        yield "/".join([owner, model, spelling, *rest])


def _at_mirror(module: PublishedModule) -> Iterator[Candidate]:
    base = mirror()
    if isinstance(base, str):
        yield Candidate("mirror", f"{base}/{module.handle}?tf-hub-format=compressed")
        yield Candidate("mirror", f"{base}/{module.handle}.tar.gz")
        yield Candidate("mirror", f"{base}/{checkpoint_name(module)}", is_checkpoint=True)
    elif base is not None:
        for name in _names_in_folder(module):
            for place in (base / name, *(base / f"{name}{suffix}" for suffix in _ARCHIVE_SUFFIXES)):
                if place.is_file() or (place.is_dir() and any(file.is_file() for file in place.iterdir())):
                    yield Candidate("mirror", place)
        checkpoint = base / checkpoint_name(module)
        for place in (checkpoint, checkpoint.with_suffix("")):
            if place.exists():
                yield Candidate("mirror", place, is_checkpoint=True)


def _names_in_folder(module: PublishedModule) -> Iterator[str]:
    """Yield the names of a module in a folder of archives: as handles, and as browsers save them."""
    yield module.handle
    yield from _kaggle_spellings(module)
    flat = module.handle.replace("/", "_")
    yield from (flat, flat.removeprefix("google_"))
    _, model, framework, variation, version = module.kaggle_handle.split("/")
    yield f"{model}-{framework.lower()}-{variation}-v{version}"
