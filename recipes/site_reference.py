"""The reference pages of the site: every command from its parser, every public name from its docstring."""

import argparse
import ast
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import mobilenet_hub as hub
from mobilenet_hub.cli.main import COMMANDS, command_parser

_COMMANDS = """# Commands

MODULE is a module folder, a TF Hub or Kaggle handle or URL, a short name, or `starter`.
"""
_API = """# Python

All of it is in `import mobilenet_hub as hub`; nothing heavy is imported before it is used.
"""
_ROOMS = {  # room of the house -> title
    "inference": "Classify, embed, explain",
    "training": "Train",
    "evaluation": "Evaluate",
    "search": "Find, group, clean",
    "hub": "Keras layers, and TensorFlow Hub's names",
    "weights": "Convert",
    "exporting": "Export",
    "store": "Get modules",
    "catalog": "The published modules",
    "architecture": "Networks",
    "errors": "Errors",
}


def commands() -> str:
    """Return the page of all commands."""
    parts = [_COMMANDS]
    for name, summary in COMMANDS.items():
        parser = command_parser(name)
        parts += [f"## {name}", "", f"{summary[0].upper()}{summary[1:]}.", "", "```", parser.usage or "", "```", ""]
        for group in parser._action_groups:
            rows = [row for action in group._group_actions if (row := _row(parser, action))]
            if rows:
                parts += [f"*{group.title}*", "", "| | |", "|---|---|", *rows, ""]
        examples = (parser.epilog or "").splitlines()[1:]
        parts += ["```", *(line.strip() for line in examples), "```", ""]
    return "\n".join(parts)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if action.help == argparse.SUPPRESS:
        return ""
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    words = parser._get_formatter()._format_action_invocation(action)
    choices = [str(choice) for choice in action.choices or ()]
    if len(choices) > 1 and action.metavar:
        words += f" ({', '.join(choices)})"
    return f"| `{words}` | {_cell(text)} |".replace("`` |", "` |")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def api() -> str:
    """Return the page of all public names, room by room; mkdocstrings fills it from the docstrings."""
    rooms: dict[str, list[str]] = defaultdict(list)
    for name, owner in hub._OWNERS.items():
        rooms[owner.partition(".")[0]].append(f"::: {_home(name, owner)}")
    assert set(rooms) == set(_ROOMS), f"name the rooms {set(rooms) ^ set(_ROOMS)} in recipes/site_reference.py"
    lines = [_API]
    for room, title in _ROOMS.items():
        lines += [f"## {title}", "", *(line for name in rooms[room] for line in (name, ""))]
    return "\n".join(lines)


def _home(name: str, owner: str) -> str:
    """Return where a public name is defined, for a room names some of its files' own."""
    file = find_spec(f"mobilenet_hub.{owner}")
    assert file is not None and file.origin is not None
    tree = ast.parse(Path(file.origin).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return f"{node.module}.{name}"
    return f"mobilenet_hub.{owner}.{name}"
