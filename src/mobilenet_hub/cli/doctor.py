"""`mobilenet doctor`: what this installation consists of and can do."""

import argparse
import os
import platform
from importlib import metadata
from typing import Any

EXAMPLES = (
    "mobilenet doctor",
    "mobilenet doctor --json",
)

_DEPENDENCIES = ("ai-edge-litert", "numpy", "pillow", "pyarrow", "safetensors", "simplejpeg", "tqdm")
_BACKENDS = ("keras", "tensorflow", "torch", "jax")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "bf16", "i8mm")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(args: argparse.Namespace) -> int:
    """Print what was found; 1 where something is wrong, each named."""
    from mobilenet_hub.cli.console import note, print_json, table

    facts = findings()
    if args.json:
        print_json(facts)
    else:
        print(table(("what", "found"), list(_rows(facts))))
    for problem in facts["problems"]:
        note(f"problem: {problem}")
    return 1 if facts["problems"] else 0


def findings() -> dict[str, Any]:
    """Return versions, CPU, precision, backends and cache, and what is wrong with them.

    Example:
        >>> findings()["versions"]["python"].count(".")
        2
    """
    from mobilenet_hub.images.resample import resampler

    versions = {"python": platform.python_version(), "mobilenet-hub": _version("mobilenet-hub")}
    versions |= {name: _version(name) for name in (*_DEPENDENCIES, resampler())}
    if openvino := _version("openvino"):
        versions["openvino"] = openvino
    facts = {
        "versions": versions,
        "backends": {name: _version(name) for name in _BACKENDS},
        "cpu": _cpu(),
        "cache": _cache(),
    }
    problems = [f"{name} is not installed: reinstall mobilenet-hub" for name, found in versions.items() if not found]
    if not facts["cache"]["writable"]:
        problems.append(
            f"the cache {facts['cache']['path']} cannot be written: set MOBILENET_HUB_CACHE to another folder"
        )
    return facts | {"problems": problems}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    from mobilenet_hub.host.cpu import available_cores, cpu_features, cpu_name
    from mobilenet_hub.inference.engine import engine_for, installed_engines, settled_precision
    from mobilenet_hub.inference.openvino import gain_of_openvino

    installed = installed_engines()

    return {
        "name": cpu_name(),
        "cores": available_cores(),
        "instructions": [name for name in _INSTRUCTIONS if name in cpu_features()],
        "precision": {asked: settled_precision(asked, "auto") for asked in ("auto", "f32", "bf16")},
        "engines": list(installed),
        "engine": engine_for("auto", settled_precision("auto", "auto"), installed) if installed else None,
        "gain_of_openvino": gain_of_openvino(cpu_features(), is_there="openvino" in installed),
    }


def _cache() -> dict[str, Any]:
    from mobilenet_hub.host.environment import is_offline
    from mobilenet_hub.host.files import exists, is_folder
    from mobilenet_hub.store.cache import cache_folder, entries

    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if exists(parent))
    compiled = [f.stat().st_size for f in (folder / "compiled").glob("*.*")] if is_folder(folder) else []
    return {
        "path": str(folder),
        "writable": is_folder(existing) and os.access(existing, os.W_OK | os.X_OK),
        "modules": sum(1 for _ in entries()) if is_folder(folder) else 0,
        "compiled_models": len(compiled),
        "compiled_bytes": sum(compiled),
        "offline": is_offline(),
    }


def _rows(facts: dict[str, Any]) -> "list[tuple[str, object]]":
    cpu, cache = facts["cpu"], facts["cache"]
    precision = cpu["precision"]
    bf16 = "yes" if precision["bf16"] == "bf16" else "no; asked for bf16, inference runs in f32"
    return [
        *((name, found or "not installed") for name, found in facts["versions"].items()),
        *((f"{name} (extra)", found or "not installed") for name, found in facts["backends"].items()),
        ("CPU", f"{cpu['name']}, {cpu['cores']} cores"),
        ("instructions", " ".join(cpu["instructions"]) or "not known"),
        ("precision auto", precision["auto"]),
        ("bf16", bf16),
        ("engines", " ".join(cpu["engines"]) or "none"),
        ("engine auto", cpu["engine"] or "none"),
        *([("would gain", cpu["gain_of_openvino"])] if cpu["gain_of_openvino"] else []),
        ("cache", cache["path"] + ("" if cache["writable"] else " (not writable)")),
        ("cached modules", cache["modules"]),
        ("compiled models", f"{cache['compiled_models']}, {cache['compiled_bytes'] / 1e6:.0f} MB"),
        ("network", "off (MOBILENET_HUB_OFFLINE)" if cache["offline"] else "only to fetch modules asked for"),
    ]
