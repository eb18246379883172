"""`mobilenet models [FILTER]`: the published modules, what they cost and how accurate they are."""

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilenet_hub.catalog.published import Configuration, PublishedModule


EXAMPLES = (
    "mobilenet models",
    "mobilenet models v2_100",
    "mobilenet models --all --json",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "filter", nargs="?", default="", metavar="FILTER", help="part of a handle, a pattern with *, or a module's name"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--all", action="store_true", help="all 356 handles, not only the 38 networks")
    how.add_argument("--markdown", action="store_true", help="the table of docs/modules.md")


def run(args: argparse.Namespace) -> int:
    """Print the table, or JSON."""
    from mobilenet_hub.catalog.models import models
    from mobilenet_hub.cli.console import note, print_json, table

    modules = models(args.filter)
    if args.json:
        print_json([_module_facts(m) for m in modules] if args.all else [_facts(c) for c in _networks(modules)])
    elif args.markdown:
        print(markdown(_networks(modules)), end="")
    elif args.all:
        rows = [
            (m.handle, m.format, "fixed" if m.fixed_size else "any", "yes" if _is_cached(m) else "") for m in modules
        ]
        print(table(["module", "format", "image size", "in cache"], rows))
    else:
        rows = [_row(configuration) for configuration in _networks(modules)]
        headings = ["network", "features", "MMACs", "Mparams", "top-1 %", "top-5 %", "Pixel 1 ms", "in cache"]
        print(table(headings, rows, align="<>>>>>><"))
        note(
            "Each is published as /feature_vector and /classification; --all lists the versions. MACs and parameters "
            "are computed, with the classifier; accuracy and latency are as published.",
            args.quiet,
        )
    return 0


def _is_cached(module: "PublishedModule") -> bool:
    from mobilenet_hub.store.cache import is_cached

    return is_cached(module.handle)


def markdown(networks: "Iterable[Configuration]") -> str:
    """Return docs/modules.md: the 38 networks with computed figures beside the published ones.

    Example:
        >>> from mobilenet_hub.catalog.published import configurations
        >>> markdown(configurations()).splitlines()[0]
        '# The published modules'
    """
    from mobilenet_hub.catalog.costs import misprinted_macs

    lines = [
        "# The published modules",
        "",
        "Made by `mobilenet models --markdown`; do not edit by hand.",
        "",
        "Each network was published as `google/imagenet/<network>/feature_vector` and `.../classification`: V1 in the",
        "versions 1, 3, 4 and 5, V2 in the versions 1 to 5. `mobilenet_v2_100_224` is also",
        "`google/tf2-preview/mobilenet_v2/...`, versions 1 to 4. The versions of a network hold the same weights.",
        "",
        "MACs (of one image of the network's size) and parameters are in millions, with the 1001-class classifier.",
        "*Computed* follows from the layers: the parameters are those that training changes. *Published* is what",
        "TF-Slim's README tables print: V1's parameters count the moving statistics instead of gamma, V2's leave out",
        "batch norm. Accuracy is on ImageNet's validation set; latency is one image on the CPU of a Google Pixel 1.",
        "",
        "| network | features | MACs computed | MACs published | parameters computed | parameters published "
        "| top-1 % | top-5 % | Pixel 1 ms |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for c in networks:
        macs, parameters = _computed(c)
        published = c.published
        wrong = " (wrong)" if c in misprinted_macs() else ""
        latency = "" if published.pixel1_ms is None else f"{published.pixel1_ms:.1f}"
        lines.append(
            f"| `{c.name}` | {c.num_features} | {macs} | {published.mmacs}{wrong} | {parameters} "
            f"| {published.mparams:.2f} | {published.top1:.1f} | {published.top5:.1f} | {latency} |"
        )
    lines += [
        "",
        "*(wrong)*: the published figure is neither the computed one rounded nor cut to whole millions; the layers do",
        "not add up to it.",
    ]
    return "\n".join(lines) + "\n"


def published_figures(configuration: "Configuration") -> dict[str, float | None]:
    """Return the README's figures as JSON shows them; they are of the network with its classifier."""
    from mobilenet_hub.catalog.published import NUM_CLASSES

    published = configuration.published
    return {
        "num_classes": NUM_CLASSES,
        "macs": published.mmacs * 1_000_000,
        "parameters": round(published.mparams * 1e6),
        "top1_percent": published.top1,
        "top5_percent": published.top5,
        "quantized_top1_percent": published.quantized_top1,
        "quantized_top5_percent": published.quantized_top5,
        "pixel1_ms": published.pixel1_ms,
    }


def _networks(modules: "Iterable[PublishedModule]") -> "list[Configuration]":
    from mobilenet_hub.catalog.published import configurations

    found = {module.configuration for module in modules}
    return [configuration for configuration in configurations() if configuration in found]


def _computed(configuration: "Configuration") -> tuple[str, str]:
    from mobilenet_hub.catalog.costs import cost
    from mobilenet_hub.catalog.published import NUM_CLASSES

    computed = cost(configuration, NUM_CLASSES)
    return f"{computed.macs / 1e6:.1f}", f"{computed.trainable_parameters / 1e6:.2f}"


def _row(configuration: "Configuration") -> tuple[object, ...]:
    published = configuration.published
    cached = ", ".join(f"{m.kind}/{m.version}" for m in _modules_of(configuration, _is_cached))
    accuracy = (f"{published.top1:.1f}", f"{published.top5:.1f}")
    return (
        configuration.name,
        configuration.num_features,
        *_computed(configuration),
        *accuracy,
        published.pixel1_ms,
        cached,
    )


def _modules_of(configuration: "Configuration", wanted: "Callable[[PublishedModule], bool]") -> "list[PublishedModule]":
    from mobilenet_hub.catalog.published import published_modules

    return [m for m in published_modules() if m.configuration == configuration and wanted(m)]


def _facts(configuration: "Configuration") -> dict[str, Any]:
    from dataclasses import asdict

    from mobilenet_hub.catalog.costs import cost, misprinted_macs
    from mobilenet_hub.catalog.published import NUM_CLASSES

    return {
        "network": configuration.name,
        "architecture": configuration.architecture,
        "depth_multiplier": configuration.depth_multiplier,
        "image_size": [configuration.size, configuration.size],
        "num_features": configuration.num_features,
        "computed": asdict(cost(configuration, NUM_CLASSES)),
        "published": published_figures(configuration),
        "published_macs_are_wrong": configuration in misprinted_macs(),
        "cached": [module.handle for module in _modules_of(configuration, _is_cached)],
    }


def _module_facts(module: "PublishedModule") -> dict[str, Any]:
    return {
        "handle": module.handle,
        "kaggle_handle": module.kaggle_handle,
        "network": module.configuration.name,
        "kind": module.kind,
        "version": module.version,
        "format": module.format,
        "fixed_size": module.fixed_size,
        "cached": _is_cached(module),
    }
