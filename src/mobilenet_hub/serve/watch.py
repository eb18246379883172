"""`--watch`: a module whose folder is replaced is opened anew, and takes the old one's place between two requests."""

import sys
import threading
from pathlib import Path

from mobilenet_hub.module_folder import CONFIG_FILE, weights_file
from mobilenet_hub.serve.served import FEATURES, Modules, Options, Served

_PERIOD_S = 0.5
Signature = tuple[tuple[int, int, int], ...]


def watch(modules: Modules, options: Options) -> None:
    """Look after the folders of all modules, in a thread that ends with the process.

    A request keeps the module that it was accepted with, so none is lost. A folder that cannot be opened changes
    nothing; it is said on standard error, once.
    """
    seen = {name: _signature(served.folder) for name, served in modules.by_name.items()}
    stop = threading.Event()

    def look() -> None:
        before = dict(seen)
        while not stop.wait(_PERIOD_S):
            for name, loaded in list(seen.items()):
                found = _signature(modules.by_name[name].folder)
                if found and found != loaded and found == before[name]:  # and not being written just now
                    seen[name] = found
                    _renew(modules, name, options)
                before[name] = found

    threading.Thread(target=look, daemon=True, name="watch").start()


def _signature(folder: Path) -> Signature:
    """Return what tells one module folder from another in the same place; empty while there is none."""
    try:
        stats = [file.stat() for file in (folder / CONFIG_FILE, weights_file(folder))]
    except OSError:
        return ()
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def _renew(modules: Modules, name: str, options: Options) -> None:
    old = modules.by_name[name]
    try:
        new = Served(name, old.version, old.folder, options)
        new.warm_up((1, 2))
        new.engine((FEATURES,)).run(new.blank(1))  # later it would be compiled from whatever lies in the folder then
        modules.by_name[name] = new
        sys.stderr.write(f"mobilenet: {name}: the module was replaced ({new.weights_sha256[:12]})\n")
    except Exception as error:  # the old one goes on
        sys.stderr.write(f"mobilenet: {name}: the new module cannot be opened, the old one goes on: {error}\n")
