"""The parts of the documentation that follow from the code: `make docs` writes them, a test compares them.

A part of a page stands between `<!-- made: NAME -->` and `<!-- end -->`; docs/modules.md is made whole.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from mobilenet_hub.catalog.costs import cost
from mobilenet_hub.catalog.published import NUM_CLASSES, configurations
from mobilenet_hub.cli.models import markdown
from mobilenet_hub.exporting.formats import FORMATS, Format
from mobilenet_hub.host.environment import VARIABLES
from mobilenet_hub.module_folder import read_module
from mobilenet_hub.store import resolve

ROOT = Path(__file__).resolve().parents[1]
_STARTER_TOP1 = 47.9  # recipes/starter/README.md
_FIRST_CHOICES = {  # the networks to begin with, and for whom
    "mobilenet_v1_025_128": "the smallest that knows ImageNet",
    "mobilenet_v2_035_224": "a good start on any CPU",
    "mobilenet_v2_100_224": "the usual choice",
    "mobilenet_v2_140_224": "the best there is here",
}
_PART = re.compile(r"(?<=<!-- made: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def formats() -> str:
    """Return the table of the formats to export to."""
    header = "| format | OUT | what it is | needs | image size | batch |\n|---|---|---|---|---|---|\n"
    return header + "".join(_row(one) for one in FORMATS.values()).replace("|  ", "| ")


def _row(one: Format) -> str:
    extras = list(dict.fromkeys(f"`{extra}`" for _, extra in one.needs))
    needs = "a Keras backend" if ("keras", "torch") in one.needs else ", ".join(extras)
    out = f"`{one.suffix}` or a folder" if one.suffix else "a folder"
    sizes = {
        "never": "trained or N",
        "on request": "trained, N, or `free`",
        "where allowed": "free where the module allows it" if "image_size" in one.options else "",
        "always": "free",
    }
    batch = (one.default_batch or "free") if one.options & {"batch_size"} or one.suffix else ""
    return f"| `{one.name}` | {out} | {one.what} | {needs} | {sizes[one.free_size]} | {batch} |\n"


def environment() -> str:
    """Return the table of the environment variables."""
    rows = "".join(f"| `{name}` | {does} |\n" for name, does in VARIABLES.items())
    return f"| variable | |\n|---|---|\n{rows}"


def which() -> str:
    """Return the five modules to begin with."""
    starter = read_module(resolve("starter")).config
    macs = starter.network.macs(*starter.image_size)
    rows = [("to try things, offline", "starter", f"{_STARTER_TOP1} % of {starter.num_classes} classes", macs)]
    for network in configurations():
        if network.name in _FIRST_CHOICES:
            accuracy, macs = f"{network.published.top1:.1f} %", cost(network, NUM_CLASSES).macs
            rows.append((_FIRST_CHOICES[network.name], network.name, accuracy, macs))
    header = "| you want | take | accuracy on ImageNet | multiply-adds |\n|---|---|---|---|\n"
    return header + "".join(f"| {wish} | `{name}` | {top1} | {macs / 1e6:.0f} M |\n" for wish, name, top1, macs in rows)


def schemas() -> str:
    """Return a table of keys for each definition of docs/schemas.json that stands for a file or a command."""
    definitions = json.loads((ROOT / "docs/schemas.json").read_text("utf-8"))["$defs"]
    parts = []
    for name, definition in definitions.items():
        is_command, is_list = name.endswith(" --json"), definition["type"] == "array"
        if not is_command and definition["type"] != "object":
            continue
        title = f"mobilenet {name}" if is_command else name
        inner = definition["items"] if is_list else definition
        sentences = [inner.get("description", ""), "A list of these:" if is_list else ""]
        rows = []
        for key, one in inner["properties"].items():
            optional = "" if key in inner["required"] else " (optional)"
            rows.append(f"| `{key}`{optional} | {_type(one)} | {one.get('description', '')} |".replace("|  |", "| |"))
        head = [f"## {title}", "", *(line for text in sentences if text for line in (text, ""))]
        parts += [*head, "| key | value | |", "|---|---|---|", *rows, ""]
    return "\n".join(parts)


def _type(one: dict) -> str:
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        return {"size": "[height, width]", "classes": "list of objects"}.get(name, f"[{name}](#{name})")
    if "anyOf" in one:
        return " or ".join(map(_type, one["anyOf"]))
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    if "const" in one:
        return f"`{one['const']}`"
    if one.get("type") == "array":
        inner = _type(one["items"]) if "type" in one.get("items", {}) else ""
        return f"list of {inner.replace('list', 'lists') if 'list' in inner else inner + 's'}" if inner else "list"
    kinds = one.get("type", "anything")
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)


PARTS: dict[str, Callable[[], str]] = {
    "formats": formats,
    "environment": environment,
    "which": which,
    "schemas": schemas,
}


def made(text: str) -> str:
    """Return a page with its made parts as they should be."""
    return _PART.sub(lambda found: f"{found[1]}{found[2]}{PARTS[found[1]]()}", text)


def pages() -> dict[Path, str]:
    """Return every page that is made or has a made part, as it should be."""
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    found = {page: made(page.read_text("utf-8")) for page in pages}
    return {page: text for page, text in found.items() if _PART.search(text)} | {
        ROOT / "docs/modules.md": markdown(configurations())
    }


def main() -> int:
    """Write the pages that are not as they should be, and name them."""
    for page, text in pages().items():
        if page.read_text("utf-8") != text:
            page.write_text(text, "utf-8")
            print(page.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
