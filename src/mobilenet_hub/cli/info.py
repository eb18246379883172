"""`mobilenet info MODULE`: everything about one published module, or about a module folder."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilenet_hub.architecture import Architecture
    from mobilenet_hub.catalog.published import PublishedModule


EXAMPLES = (
    "mobilenet info starter",
    "mobilenet info mobilenet_v2_100_224/feature_vector --endpoints",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("module", metavar="MODULE", help="a published module's name, a module folder, or starter")
    parser.add_argument("--endpoints", action="store_true", help="list every endpoint with its shape")


def run(args: argparse.Namespace) -> int:
    """Print what is known, as text or JSON."""
    from mobilenet_hub.cli.console import print_json, table
    from mobilenet_hub.store import is_local

    if is_local(args.module):
        facts = folder_facts(args.module)
        title, about = facts["folder"], ""
    else:
        from mobilenet_hub.catalog.find import find_module

        module = find_module(args.module, "feature_vector")
        facts = module_facts(module)
        title, about = module.handle, module.description
    if args.json:
        print_json(facts)
        return 0
    print(f"{title}\n{about}\n" if about else f"{title}\n")
    print(_as_text(facts))
    endpoints = [(name, "x".join(map(str, shape))) for name, shape in facts["endpoints"].items()]
    if args.endpoints:
        print("\n" + table(["endpoint", "shape"], endpoints))
    else:
        print(f"\n{len(endpoints)} endpoints, {endpoints[0][0]} to {endpoints[-1][0]}; --endpoints lists them")
    return 0


def module_facts(module: "PublishedModule") -> dict[str, Any]:
    """Gather what the catalog says, what the architecture gives and whether the cache has it.

    Example:
        >>> from mobilenet_hub.catalog.find import find_module
        >>> module_facts(find_module("mobilenet_v1_025_128/feature_vector"))["num_features"]
        256
    """
    from mobilenet_hub.architecture import architecture
    from mobilenet_hub.catalog.costs import misprinted_macs
    from mobilenet_hub.catalog.published import LABELS_URL
    from mobilenet_hub.cli.models import published_figures
    from mobilenet_hub.store.cache import entry_folder, is_cached

    network = architecture(module.architecture, module.depth_multiplier, module.num_classes)
    return {
        "handle": module.handle,
        "url": module.url,
        "kaggle_handle": module.kaggle_handle,
        "cached": is_cached(module.handle),
        "cache_folder": str(entry_folder(module.handle)),
        **_network_facts(network, module.image_size),
        "fixed_size": module.fixed_size,
        "labels": LABELS_URL if module.has_labels else None,
        "format": module.format,
        "signatures": list(module.signatures),
        "batch_norm_momentum": {
            "default": module.batch_norm_momentum,
            "configurable": module.momentum_configurable,
            "stated_on_page": module.momentum_configurable,  # the other pages are silent: TF-Slim's own value
        },
        "checkpoint": module.checkpoint,
        "checkpoint_url": module.checkpoint_url,
        "page": module.page,
        "computed": _computed(network, module.image_size),
        "published": published_figures(module.configuration),
        "published_macs_are_wrong": module.configuration in misprinted_macs(),
        "changelog": {str(version): list(changes) for version, changes in module.changelog.items()},
        "endpoints": _endpoints(network, module.image_size),
    }


def folder_facts(name: str) -> dict[str, Any]:
    """Gather what a module folder says of itself and what its architecture gives.

    Raises:
        InvalidModuleError: the folder is not a module folder, or is damaged.
    """
    from mobilenet_hub.module_folder import read_config
    from mobilenet_hub.store import locate, resolve

    folder, found = resolve(name), locate(name)
    config = read_config(found) if isinstance(found, Path) else found.config
    known = {key: getattr(config, key) for key in ("handle", "source", "license", "trained_on", "metrics")}
    return {
        "folder": str(folder),
        "bytes": sum(file.stat().st_size for file in (folder, *folder.rglob("*")) if file.is_file()),
        **_network_facts(config.network, config.image_size),
        "labels": None if config.labels is None else list(config.labels),
        **{key: value for key, value in known.items() if value is not None},
        **config.extra,
        "computed": _computed(config.network, config.image_size),
        "endpoints": _endpoints(config.network, config.image_size),
    }


def _network_facts(network: "Architecture", size: tuple[int, int]) -> dict[str, Any]:
    return {
        "architecture": network.name,
        "depth_multiplier": network.depth_multiplier,
        "image_size": list(size),
        "num_features": network.num_features,
        "num_classes": network.num_classes,
    }


def _computed(network: "Architecture", size: tuple[int, int]) -> dict[str, int]:
    return {
        "macs": network.macs(*size),
        "parameters": network.parameters(),
        "trainable_parameters": network.parameters(trainable=True),
    }


def _endpoints(network: "Architecture", size: tuple[int, int]) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in network.endpoint_shapes(*size).items()}


def _as_text(facts: dict[str, Any]) -> str:
    """Lay the facts out as aligned lines, without the endpoints; groups of facts are indented under their name."""
    lines = []
    for key, value in facts.items():
        if key == "endpoints":
            continue
        label = key.replace("_", " ")
        if isinstance(value, dict) and value:
            lines.append(f"{label}:")
            lines += [f"  {name.replace('_', ' '):<22} {_shown(item)}" for name, item in value.items()]
        else:
            lines.append(f"{label:<24} {_shown(value)}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list) and all(isinstance(item, int) for item in value):
        return "x".join(map(str, value))
    if isinstance(value, list):
        words = [str(item) for item in value]
        return "; ".join(words[:6]) + (f"; and {len(words) - 6} more" if len(words) > 6 else "")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
