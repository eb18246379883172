"""Names of published modules taken apart: TF Hub and Kaggle URLs and handles, and the short form.

This file knows the grammar of names; which names were ever published stands in catalog.py.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from mobilenet_hub.errors import UnknownModuleError

Framework = Literal["TensorFlow1", "TensorFlow2"]

NAME_FORMS = (
    "write a TF Hub handle or URL (google/imagenet/mobilenet_v2_130_224/feature_vector/4), a Kaggle one "
    "(google/mobilenet-v2/TensorFlow2/130-224-feature-vector/1) or the short form (mobilenet_v2_130_224/feature_vector)"
)
_HUB_HOSTS = ("tfhub.dev", "www.tfhub.dev", "hub.tensorflow.google.cn")
_KAGGLE_HOSTS = ("kaggle.com", "www.kaggle.com")
_FRAMEWORKS: dict[str, Framework] = {"tensorflow1": "TensorFlow1", "tensorflow2": "TensorFlow2"}
_OTHER_FRAMEWORKS = {"tfjs": "TF.js", "tflite": "LiteRT (TFLite)"}
_VERSION = re.compile(r"0|[1-9][0-9]{0,8}")
_SHORT = re.compile(r"mobilenet_v[12]_[0-9]+_[0-9]+")
_KAGGLE_MODEL = re.compile(r"mobilenet-v([12])")
_KAGGLE_VARIATION = re.compile(r"(?:([0-9]+)-([0-9]+)|tf2-preview)-(classification|feature-vector)")
_LITE_MODEL = re.compile(r"mobilenet_v([12])_([0-9])\.([0-9]{1,2})_([0-9]+)(?:_quantized)?")


@dataclass(frozen=True, slots=True)
class ModuleName:
    """A name in the grammar of handles; it may never have been published."""

    stem: str  # the TF Hub handle without its version: "google/imagenet/mobilenet_v2_130_224/feature_vector"
    version: int | None = None  # None: the latest
    framework: Framework | None = None  # set where the name is Kaggle's, which counts versions for each framework


def parse_name(text: str) -> ModuleName:
    """Take a name of a module apart, in any of its forms.

    Args:
        text: a TF Hub or Kaggle URL or handle, with or without version, or the short form. Query strings, fragments
            and trailing slashes are ignored, and so are spaces around it.

    Raises:
        UnknownModuleError: the text has none of these forms, or names a TF.js or LiteRT conversion.

    Example:
        >>> parse_name("https://tfhub.dev/google/tf2-preview/mobilenet_v2/classification/4").version
        4
    """
    if not isinstance(text, str):
        raise UnknownModuleError(f"a module's name must be a string, not {type(text).__name__}; {NAME_FORMS}")
    is_kaggle_url, parts = _split(text)
    if is_kaggle_url or (len(parts) > 1 and _KAGGLE_MODEL.fullmatch(parts[1])):
        return _parse_kaggle(text, parts)
    _refuse_conversion(text, parts)
    version = int(parts.pop()) if len(parts) > 1 and _VERSION.fullmatch(parts[-1]) else None
    if parts and _SHORT.fullmatch(parts[0]):
        parts = ["google", "imagenet", *parts]
    return ModuleName("/".join(parts), version)


def is_published_place(host: str) -> bool:
    """Tell whether a host is one under whose addresses Google published the modules.

    Example:
        >>> is_published_place("tfhub.dev"), is_published_place("localhost")
        (True, False)
    """
    return host in (*_HUB_HOSTS, *_KAGGLE_HOSTS)


def show(text: str) -> str:
    """Quote a name for an error message, cut where it is long.

    Example:
        >>> show("mobilenet")
        "'mobilenet'"
    """
    return repr(text if len(text) <= 120 else f"{text[:120]}…")


def kaggle_variation(family: str, depth_code: str, size: int, kind: str) -> str:
    """Return Kaggle's name of a variation, e.g. "130-224-feature-vector" or "tf2-preview-classification".

    Example:
        >>> kaggle_variation("imagenet", "130", 224, "feature_vector")
        '130-224-feature-vector'
    """
    prefix = "tf2-preview" if family == "tf2-preview" else f"{depth_code}-{size}"
    return f"{prefix}-{kind.replace('_', '-')}"


def _split(text: str) -> tuple[bool, list[str]]:
    """Return whether the text is a Kaggle URL, and its path's parts without the host."""
    stripped = text.strip()
    if stripped.lower().startswith(tuple(f"{host}/" for host in (*_HUB_HOSTS, *_KAGGLE_HOSTS))):
        stripped = f"https://{stripped}"
    try:
        url = urlsplit(stripped)
        host = (url.hostname or "").lower()
    except ValueError as error:
        raise UnknownModuleError(f"{show(text)} is not a module's name ({error}); {NAME_FORMS}") from None
    parts = [part for part in unquote(url.path).split("/") if part]
    if not url.scheme and not host:
        return False, parts
    if url.scheme not in ("http", "https") or host not in (*_HUB_HOSTS, *_KAGGLE_HOSTS):
        raise UnknownModuleError(f"{show(text)} is not an address of TF Hub or Kaggle Models; {NAME_FORMS}")
    if host in _KAGGLE_HOSTS:
        if parts[:1] != ["models"]:
            raise UnknownModuleError(f"{show(text)} is not a Kaggle model's address; {NAME_FORMS}")
        return True, parts[1:]
    return False, parts


def _parse_kaggle(text: str, parts: list[str]) -> ModuleName:
    """Read <owner>/<model>/<framework>/<variation>[/<version>], or the same with Kaggle's words between."""
    if parts[2:3] == ["frameworks"] and parts[4:5] == ["variations"] and parts[6:7] in ([], ["versions"]):
        parts = [*parts[:2], *parts[3:4], *parts[5:6], *parts[7:]]
    model = _KAGGLE_MODEL.fullmatch(parts[1]) if len(parts) in (4, 5) and parts[0] == "google" else None
    variation = _KAGGLE_VARIATION.fullmatch(parts[3]) if model else None
    if not model or not variation or (len(parts) == 5 and not _VERSION.fullmatch(parts[4])):
        raise UnknownModuleError(
            f"{show(text)} is not a Kaggle handle of a MobileNet V1 or V2; {NAME_FORMS}; the Kaggle form is "
            "google/mobilenet-v1 or -v2, TensorFlow1 or TensorFlow2, the variation and perhaps its version"
        )
    depth, size, kind = variation.groups()
    network = f"mobilenet_v{model[1]}"
    path = f"imagenet/{network}_{depth}_{size}" if depth else f"tf2-preview/{network}"
    stem = f"google/{path}/{kind.replace('-', '_')}"
    framework = parts[2].lower()
    if framework in _OTHER_FRAMEWORKS:
        raise UnknownModuleError(_conversion(text, _OTHER_FRAMEWORKS[framework], stem))
    if framework not in _FRAMEWORKS:
        raise UnknownModuleError(f"{show(text)} names the framework {parts[2]!r}; use TensorFlow1 or TensorFlow2")
    return ModuleName(stem, int(parts[4]) if len(parts) == 5 else None, _FRAMEWORKS[framework])


def _refuse_conversion(text: str, parts: list[str]) -> None:
    """Refuse TF Hub's TF.js and LiteRT conversions, and name the module that each was made from."""
    if parts[1:2] == ["tfjs-model"]:
        raise UnknownModuleError(_conversion(text, "TF.js", "/".join(["google", *parts[2:5]])))
    if parts[1:2] == ["lite-model"]:
        found = _LITE_MODEL.fullmatch(parts[2]) if len(parts) > 2 else None
        stem = f"google/imagenet/mobilenet_v{found[1]}_{found[2]}{found[3]:0<2}_{found[4]}" if found else ""
        raise UnknownModuleError(_conversion(text, "LiteRT (TFLite)", f"{stem}/classification" if stem else ""))


def _conversion(text: str, what: str, stem: str) -> str:
    instead = f"use the module that it was made from, {stem}," if stem else "use a module of `mobilenet models`"
    return (
        f"{show(text)} names a {what} conversion, not a module; {instead} "
        "or `mobilenet convert` with the downloaded file"
    )
