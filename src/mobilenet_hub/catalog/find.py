"""Which published module a name means; and where it means none, why, and which names are near."""

import re

from mobilenet_hub.catalog.names import NAME_FORMS, ModuleName, parse_name, show
from mobilenet_hub.catalog.published import (
    KINDS,
    QUANTOPS_VERSIONS,
    Kind,
    PublishedModule,
    configurations,
    listed,
    modules_of,
    published_modules,
)
from mobilenet_hub.errors import UnknownModuleError

# Families whose names people bring; any handle with a version that names no MobileNet V1 or V2 is another's, too.
_OTHERS = re.compile(
    r"(mobilenet[_-]?v?[3-9]|mobilenet[_-]edge|mnasnet|efficientnet|resnet|inception|nasnet|vgg|bit[/_-]|vit[/_-]|convnext"
    r"|densenet|nnlm|universal-sentence|bert|elmo|gpt|yamnet|vggish|movenet|deeplab|ssd|yolo|retinanet|centernet)",
    re.IGNORECASE,
)
_SPELLING = re.compile(
    r"mobile[_ -]?net[_ -]*v?([12])(?:[_ -]+([01]\.\d+|[01]|\d{2,3}))?(?:[_ -]+(\d{2,3}))?(?!\d)", re.IGNORECASE
)


def why_unknown(name: str, parsed: ModuleName, kind: Kind | None) -> str:
    """Return what to say of a name that no published module has.

    Args:
        name: as it was given.
        parsed: the same, taken apart.
        kind: which kind of module is wanted; None: either.

    Example:
        >>> why_unknown("mobilenet_v2_1.0_224", ModuleName("mobilenet_v2_1.0_224"), "classification")
        "'mobilenet_v2_1.0_224' was never published; did you mean mobilenet_v2_100_224/classification?"
    """
    if "/quantops/" in parsed.stem:
        return _why_not_quantops(name, parsed)
    if text := _of_parts(name, parsed.stem):
        return text
    another = f"{show(name)} is not a MobileNet V1 or V2, and only those are here (`mobilenet models` lists them)"
    if _OTHERS.search(parsed.stem):
        return f"{another}; keep tensorflow_hub for this one"
    if nearest := _spelled_in_decimals(parsed.stem, kind) or _nearest(parsed.stem) or _spelled(parsed.stem, kind):
        return f"{show(name)} was never published; did you mean {' or '.join(nearest)}?"
    if parsed.version is not None and "/" in parsed.stem:
        return f"{another}; keep tensorflow_hub for this one"
    return f"{show(name)} is not the name of a published module; {NAME_FORMS}; `mobilenet models` lists them all"


def _spelled_in_decimals(stem: str, kind: Kind | None) -> list[str]:
    """Return what is meant by a name with its depth multiplier as a number: mobilenet_v2_1.0_224."""
    found = _SPELLING.search(stem)
    return _spelled(stem, kind) if found and "." in (found[2] or "") else []


def _spelled(stem: str, kind: Kind | None) -> list[str]:
    """Return the modules of a network that is named as people do: MobileNetV2, mobilenet-v1-0.5, mobilenet_v2_100."""
    found = _SPELLING.search(stem)
    if not found:
        return []
    network, depth, size = f"mobilenet_v{found[1]}", found[2] or "1.0", int(found[3] or 224)
    percent = round(float(depth) * (100 if "." in depth or len(depth) == 1 else 1))
    near = min(
        (one for one in configurations() if one.architecture == network),
        key=lambda one: (abs(100 * one.depth_multiplier - percent), abs(one.size - size)),
    )
    kinds = [one for one in KINDS if one.split("_")[0] in stem.lower()] or ([kind] if kind else list(KINDS))
    return [f"{near.name}/{one}" for one in kinds]


def _why_not_quantops(name: str, parsed: ModuleName) -> str:
    plain = modules_of(parsed.stem.replace("/quantops/", "/", 1))
    if not plain:
        return f"{show(name)} was never published; `mobilenet models` lists the modules that were"
    if plain[0].architecture != "mobilenet_v1" or plain[0].family != "imagenet":
        what = "was never published: quantops modules exist for the 16 networks of MobileNet V1 only"
    elif parsed.version is not None and parsed.version not in QUANTOPS_VERSIONS:
        what = f"was never published (its versions are {listed(QUANTOPS_VERSIONS)}), nor are quantops modules supported"
    else:
        what = "is a quantops module, float weights with simulated 8-bit rounding for TensorFlow 1; it is not supported"
    return (
        f"{show(name)} {what}; use the float module {plain[-1].handle} and quantize it after training: "
        "precision int8 where it is run, or `mobilenet export --format litert`"
    )


def _of_parts(name: str, stem: str) -> str | None:
    """Say which part of a handle never existed, and which values of that part do."""
    parts = stem.split("/")
    never = f"{show(name)} was never published"
    known = {configuration.name: configuration for configuration in configurations()}
    if parts[:2] == ["google", "imagenet"] and len(parts) > 2:
        if parts[2] in known and (len(parts) == 3 or (len(parts) == 4 and parts[3] not in KINDS)):
            return f"{never}; choose {listed(f'{parts[2]}/{kind}' for kind in KINDS)}"
        if modules := modules_of("/".join(parts[:4])):
            return f"{never}; the versions of {'/'.join(parts[2:4])} are {listed(m.version for m in modules)}"
        network, _, code = parts[2].rpartition("_")
        network, _, depth = network.rpartition("_")
        siblings = [c for c in known.values() if c.architecture == network]
        same_depth = [c for c in siblings if c.depth_code == depth]
        if same_depth and code.isdecimal():
            return f"{never}; the image sizes of {network}_{depth} are {listed(c.size for c in same_depth)}"
        if siblings and depth.isdecimal() and code.isdecimal():
            depths = dict.fromkeys(c.depth_code for c in siblings)
            return f"{never}; the depth multipliers of {network} are {listed(depths)} (percent)"
    return None


def _nearest(stem: str) -> list[str]:
    from difflib import get_close_matches

    short = {module.stem.removeprefix("google/imagenet/"): module.stem for module in published_modules()}
    asked = stem[:200].removeprefix("google/imagenet/").lower()
    return [short[found] for found in get_close_matches(asked, short, n=3, cutoff=0.75)]


def find_module(name: str, kind: Kind | None = None) -> PublishedModule:
    """Return the published module of that name; without a version, the latest.

    Args:
        name: a TF Hub URL or handle, a Kaggle URL or handle, or the short form "mobilenet_v2_130_224/feature_vector".
        kind: which of a network's two modules is meant where its name alone is given, "mobilenet_v2_130_224".

    Raises:
        UnknownModuleError: no such module was published; the text lists the versions, sizes or names that were.

    Example:
        >>> find_module("mobilenet_v2_130_224/feature_vector").handle
        'google/imagenet/mobilenet_v2_130_224/feature_vector/5'
        >>> find_module("mobilenet_v1_025_128", "classification").handle
        'google/imagenet/mobilenet_v1_025_128/classification/5'
    """
    parsed = parse_name(name)
    modules = modules_of(parsed.stem) or (modules_of(f"{parsed.stem}/{kind}") if kind else ())
    if not modules:
        raise UnknownModuleError(why_unknown(name, parsed, kind))
    if parsed.framework:
        modules = _of_framework(name, parsed, modules)
        versions = dict(enumerate(modules, start=1))
    else:
        versions = {module.version: module for module in modules}
    version = max(versions) if parsed.version is None else parsed.version
    if version not in versions:
        raise UnknownModuleError(f"{show(name)} was never published; its versions are {listed(versions)}")
    return versions[version]


def _of_framework(name: str, parsed: ModuleName, modules: tuple[PublishedModule, ...]) -> tuple[PublishedModule, ...]:
    wanted = "hub1" if parsed.framework == "TensorFlow1" else "savedmodel2"
    found = tuple(module for module in modules if module.format == wanted)
    if not found:
        raise UnknownModuleError(f"{show(name)} was never published for {parsed.framework}; use {modules[-1].handle}")
    return found
