"""What teaching does in a process of its own: train, export. The server answers meanwhile, and before it."""

import os
from multiprocessing.connection import Connection
from pathlib import Path

from mobilenet_hub.errors import MobileNetHubError

_NICE = 10  # requests come first


def train_in_process(pipe: Connection, photos: Path, output: Path, base: str) -> None:
    """Train on class folders; send ("progress", stage, done, total) and at last ("done",) or ("failed", why)."""

    def run() -> None:
        from mobilenet_hub.training.train import train

        train(
            photos,
            output,
            module=base,
            overwrite=True,
            on_progress=lambda stage, done, total: pipe.send(("progress", str(stage), done, total)),
        )

    _reported(pipe, run)


def export_in_process(pipe: Connection, module: Path, form: str, output: Path) -> None:
    """Export a module; send ("done",) or ("failed", why)."""

    def run() -> None:
        from mobilenet_hub.exporting.export import export

        export(module, form, output, overwrite=True)

    _reported(pipe, run)


def _reported(pipe: Connection, run) -> None:
    if hasattr(os, "nice"):
        os.nice(_NICE)
    try:
        run()
    except (MobileNetHubError, OSError) as error:
        pipe.send(("failed", str(error)))
    except Exception as error:
        pipe.send(("failed", f"unexpected {type(error).__name__}: {error}"))
        raise
    else:
        pipe.send(("done",))
    finally:
        pipe.close()
