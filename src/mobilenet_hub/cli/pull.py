"""`mobilenet pull`: fetch modules into the cache, verified."""

import argparse
from pathlib import Path

from mobilenet_hub.cli.console import note, print_json
from mobilenet_hub.cli.options import PUBLISHED_HELP
from mobilenet_hub.errors import MobileNetHubError

EXAMPLES = (
    "mobilenet pull mobilenet_v2_100_224/classification",
    "mobilenet pull https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/feature_vector/5",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    help = f"{PUBLISHED_HELP}, or the address of one of your own"
    parser.add_argument("modules", nargs="+", metavar="MODULE", help=help)
    parser.add_argument("--force", action="store_true", help="fetch again what is in the cache already")


def run(args: argparse.Namespace) -> int:
    """Fetch the modules and print their folders; 1 where some could not be had, 2 where none."""
    from mobilenet_hub.module_folder import read_config
    from mobilenet_hub.store.cache import read_origin

    pulled: list[tuple[str, Path]] = []
    for name in args.modules:
        try:
            pulled.append((name, _pull(name, args.force, args.quiet)))
        except MobileNetHubError as error:
            if len(args.modules) == 1:
                raise
            note(f"{name}: {error}")
            continue
        if not args.json:
            print(pulled[-1][1])
    if args.json:
        origins = [read_origin(folder) for _, folder in pulled]
        print_json(
            [
                {
                    "name": name,
                    "handle": read_config(folder).handle,
                    "path": str(folder),
                    "source": origin.source if origin else None,
                    "url": origin.url if origin else None,
                }
                for (name, folder), origin in zip(pulled, origins, strict=True)
            ]
        )
    if not pulled:
        return 2
    return 0 if len(pulled) == len(args.modules) else 1


def _pull(name: str, force: bool, quiet: bool) -> Path:
    from mobilenet_hub.store import resolve
    from mobilenet_hub.store.pull import pull

    if name == "starter":
        return resolve(name)
    return pull(name, force=force, progress=False if quiet else None)
