"""`mobilenet cache`: list, verify, remove, path."""

import argparse
from typing import TYPE_CHECKING, Any

from mobilenet_hub.cli.console import note, print_json, table
from mobilenet_hub.errors import InputError, InvalidModuleError, MobileNetHubError, UnknownModuleError

if TYPE_CHECKING:
    from mobilenet_hub.store.cache import Entry

EXAMPLES = (
    "mobilenet cache",
    "mobilenet cache verify --repair",
    "mobilenet cache remove mobilenet_v2_100_224/classification",
)

_ACTIONS = {
    "list": "the modules, with size, source and date",
    "verify": "hold every file against its record; with --repair, fetch damaged modules anew",
    "remove": "remove modules, or all with --all",
    "path": "the cache's folder, or a module's",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "\n".join(f"{action:<7} {text}" for action, text in _ACTIONS.items())
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=list(_ACTIONS),
        metavar="ACTION",
        help=f"{', '.join(_ACTIONS)}",
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="only these")
    parser.add_argument("--all", action="store_true", help="remove: every module")
    parser.add_argument("--repair", action="store_true", help="verify: fetch damaged modules anew")


def run(args: argparse.Namespace) -> int:
    """Do the action; 1 where modules were damaged or missing, each named."""
    if args.action == "path":
        return _path(args)
    if args.action == "remove":
        return _remove(args)
    return _verify(args) if args.action == "verify" else _list(args)


def _list(args: argparse.Namespace) -> int:
    chosen = _chosen(args.modules)
    rows = [_facts(entry) for entry in chosen]
    if args.json:
        print_json(rows)
        return 0
    if rows:
        cells = [[row["handle"], f"{row['bytes'] / 1e6:.1f}", row["source"], row["date"]] for row in rows]
        print(table(["module", "MB", "source", "date"], cells, "<><<"))
    note(f"{len(rows)} modules, {sum(row['bytes'] for row in rows) / 1e6:.1f} MB", args.quiet)
    return 0


def _facts(entry: "Entry") -> dict[str, Any]:
    try:
        origin = entry.origin
    except InvalidModuleError:
        source, date, url = "damaged", None, None
    else:
        source, date, url = (origin.source, origin.date[:10], origin.url) if origin else ("by hand", None, None)
    return {
        "handle": entry.handle,
        "path": str(entry.path),
        "bytes": entry.size,
        "source": source,
        "date": date,
        "url": url,
    }


def _verify(args: argparse.Namespace) -> int:
    from mobilenet_hub.store.cache import abandoned, damage_of, tidy

    results = []
    for entry in _chosen(args.modules):
        damage = damage_of(entry.path)
        state = "sound" if damage is None else "damaged"
        if damage and args.repair:
            state, damage = _repair(entry.handle, damage)
        results.append({"handle": entry.handle, "state": state, "reason": None if damage is None else str(damage)})
        if damage:
            note(f"{entry.handle}: {damage}")
    for handle in abandoned():
        tidy(handle)
        note(f"{handle}: removed what an unfinished pull had left", args.quiet)
    if args.json:
        print_json(results)
    elif results:
        print(table(["module", "state"], [[result["handle"], result["state"]] for result in results]))
    return 1 if any(result["state"] == "damaged" for result in results) else 0


def _repair(handle: str, damage: MobileNetHubError) -> tuple[str, MobileNetHubError | None]:
    from mobilenet_hub.store.pull import pull

    try:
        pull(handle)
    except MobileNetHubError as error:
        return "damaged", damage if isinstance(error, UnknownModuleError) else error
    return "repaired", None


def _remove(args: argparse.Namespace) -> int:
    from mobilenet_hub.store.cache import remove

    if bool(args.modules) == args.all:
        raise InputError("say which modules to remove, or --all")
    removed = [entry.handle for entry in _chosen(args.modules) if remove(entry.handle)]
    if args.json:
        print_json(removed)
    for handle in removed:
        note(f"removed {handle}", args.quiet)
    return 0


def _path(args: argparse.Namespace) -> int:
    from mobilenet_hub.store.cache import cache_folder, entry_folder

    paths = [str(entry_folder(_handle(name))) for name in args.modules] or [str(cache_folder())]
    if args.json:
        print_json(paths)
    else:
        print("\n".join(paths))
    return 0


def _chosen(names: list[str]) -> "list[Entry]":
    """Return the entries of those names, or all.

    Raises:
        InputError: one is not in the cache.
    """
    from mobilenet_hub.store.cache import entries

    there = {entry.handle: entry for entry in entries()}
    if not names:
        return list(there.values())
    handles = [_handle(name) for name in names]
    if missing := [handle for handle in handles if handle not in there]:
        raise InputError(f"{', '.join(missing)} is not in the cache; `mobilenet cache list` shows what is")
    return [there[handle] for handle in handles]


def _handle(name: str) -> str:
    """Return a name's handle; a module put there by hand under another name goes by its folder."""
    from mobilenet_hub.catalog.find import find_module
    from mobilenet_hub.store.address import own_address
    from mobilenet_hub.store.cache import is_cached

    try:
        if address := own_address(name):
            return address.handle
        return find_module(name).handle
    except UnknownModuleError:
        if ".." not in name.split("/") and is_cached(name):
            return name
        raise
