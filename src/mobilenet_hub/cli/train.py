"""`mobilenet train FOLDER -o DIR`: a classifier of one's own photos. Imports console; training when it runs."""

import argparse
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mobilenet_hub.cli.console import Progress, note, print_json, progress, table
from mobilenet_hub.errors import InputError

if TYPE_CHECKING:
    from mobilenet_hub.training.gradient import GradientOptions
    from mobilenet_hub.training.train import Method, TrainResult

_MAX_LISTED = 10
_DEFAULT_SIZE = 224
_UNITS = {"features": "photo", "photos": "photo", "training": "photo"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "folder", metavar="FOLDER", help="a folder with a subfolder of photos for each class, or a table of path,label"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the module folder to make")
    parser.add_argument("--module", default="starter", help="the module whose network is used (default: starter)")
    parser.add_argument("--overwrite", action="store_true", help="replace DIR if it is there")
    parser.add_argument("--assert-accuracy", type=float, metavar="A", help="fail, and write nothing, below this (0.9)")
    parser.add_argument("--image-size", type=int, metavar="N", help="the size at which photos are seen (the module's)")
    parser.add_argument("--work", metavar="DIR", help="keep what a killed run or another split can use, here")
    split = parser.add_argument_group("split")
    split.add_argument("--validation", type=float, default=0.1, metavar="SHARE", help="chooses settings (default: 0.1)")
    split.add_argument("--test", type=float, default=0.2, metavar="SHARE", help="measures the result (default: 0.2)")
    split.add_argument("--seed", type=int, default=0, help="another seed, another split (default: 0)")
    frozen = parser.add_argument_group("the classifier")
    frozen.add_argument(
        "--views", type=int, metavar="N", help="of each training photo: 1 plain, 2 mirrored, 3+ jittered"
    )
    frozen.add_argument("--strength", type=float, metavar="S", help="of the regularisation (default: by validation)")
    frozen.add_argument("--class-weights", default="auto", metavar="W", help="auto, balanced or none (default: auto)")
    frozen.add_argument("--precision", default="auto", metavar="P", help="auto, f32 or bf16 (default: auto)")
    _configure_gradient(parser)


def _configure_gradient(parser: argparse.ArgumentParser) -> None:
    method = parser.add_argument_group("training the network too (needs Keras and a backend)")
    which = method.add_mutually_exclusive_group()
    which.add_argument("--fine-tune", action="store_true", help="train the module's network as well")
    which.add_argument("--from-scratch", action="store_true", help="train a network from random weights")
    method.add_argument("--architecture", default="mobilenet_v2", metavar="A", help="mobilenet_v1 or mobilenet_v2")
    method.add_argument("--depth-multiplier", type=float, default=1.0, metavar="M", help="any above 0 (default: 1)")
    method.add_argument("--epochs", type=int, metavar="N", help="passes over the training photos")
    method.add_argument("--batch-size", type=int, metavar="N", help="photos at each step")
    method.add_argument("--learning-rate", type=float, metavar="R", help="at its highest")
    method.add_argument("--decay", type=float, metavar="SHARE", help="of the epochs, in which the rate falls to zero")
    method.add_argument(
        "--coarse-size", type=int, metavar="N", help="image size until the rate falls: smaller is faster"
    )
    method.add_argument("--batch-norm-momentum", type=float, metavar="M", help="of the moving statistics (0.99)")
    method.add_argument("--weight-decay", type=float, metavar="W", help="L2, of the full convolutions (4e-5)")
    method.add_argument("--label-smoothing", type=float, metavar="S", help="default: 0.1")
    method.add_argument("--crop-area", type=float, metavar="SHARE", help="least of a photo that a random crop shows")
    method.add_argument("--patience", type=int, metavar="N", help="stop after N epochs without progress on validation")


def run(args: argparse.Namespace) -> int:
    """Train; 1 where files had to be left out."""
    from mobilenet_hub.training.frozen import FrozenOptions
    from mobilenet_hub.training.train import train

    method: Method = "fine-tune" if args.fine_tune else "from-scratch" if args.from_scratch else "frozen"
    if args.class_weights not in ("auto", "balanced", "none"):
        raise InputError(f"--class-weights must be auto, balanced or none, not {args.class_weights!r}")
    network, size = None, args.image_size
    if args.from_scratch:
        from mobilenet_hub.architecture import architecture

        network, size = architecture(args.architecture, args.depth_multiplier, 0), args.image_size or _DEFAULT_SIZE
    with Stages(args.quiet) as stages:
        result = train(
            args.folder,
            args.output,
            module=args.module,
            method=method,
            validation=args.validation,
            test=args.test,
            seed=args.seed,
            image_size=size,
            frozen=FrozenOptions(args.views, args.strength, args.class_weights, args.precision),
            gradient=None if method == "frozen" else _gradient(args),
            network=network,
            assert_accuracy=args.assert_accuracy,
            overwrite=args.overwrite,
            work=args.work,
            on_progress=stages,
        )
    if args.json:
        print_json(_as_json(result))
    else:
        print(_table(result))
        note(f"{result.path}: module, metrics.json, report.html, README.md ({result.seconds:.1f} s)", args.quiet)
    for warning in result.warnings:
        note(f"warning: {warning}", args.quiet)
    for skip in result.skipped[:_MAX_LISTED]:
        note(f"{os.fspath(skip.path)}: left out: {skip.reason}")
    if len(result.skipped) > _MAX_LISTED:
        note(f"and {len(result.skipped) - _MAX_LISTED} more files were left out; metrics.json names them")
    return 1 if result.skipped else 0


class Stages:
    """A progress bar for each stage of the work, one after the other."""

    def __init__(self, quiet: bool):
        self._quiet = quiet
        self._stage, self._done = "", 0
        self._bar: Progress | None = None
        self._open = ExitStack()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; what follows ": " in its name is shown beside the bar.

        The bar counts from where this process began, so that a resumed run's rate and time left are right.
        """
        stage, _, detail = stage.partition(": ")
        if stage != self._stage or self._bar is None or done < self._done:
            self._open.close()
            self._bar = self._open.enter_context(progress(total - done, stage, _UNITS.get(stage, "step"), self._quiet))
            self._stage, self._done = stage, done
        self._bar.set_postfix_str(detail, refresh=False)
        self._bar.update(done - self._done)
        self._done = done

    def __enter__(self) -> "Stages":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _gradient(args: argparse.Namespace) -> "GradientOptions":
    from dataclasses import replace

    from mobilenet_hub.training.gradient import FINE_TUNING, FROM_SCRATCH

    defaults = FINE_TUNING if args.fine_tune else FROM_SCRATCH
    names = ("epochs", "batch_size", "learning_rate", "decay", "batch_norm_momentum", "weight_decay")
    names += ("label_smoothing", "patience")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.coarse_size is not None:
        given["coarse_size"] = (args.coarse_size, args.coarse_size)
    if args.crop_area is not None:
        given["augmentation"] = replace(defaults.augmentation, min_area=args.crop_area)
    given |= {"class_weights": args.class_weights, "precision": args.precision, "seed": args.seed}
    return replace(defaults, **given)


def _table(result: "TrainResult") -> str:
    rows = [
        (name, m.images, f"{m.accuracy:.1%}", f"{m.interval[0]:.1%} to {m.interval[1]:.1%}")
        for name, m in result.metrics.items()
    ]
    return table(["photos", "number", "accuracy", "95% interval"], rows, "<>><")


def _as_json(result: "TrainResult") -> dict[str, object]:
    return {
        "module": os.fspath(result.path),
        "labels": list(result.labels),
        "accuracy": result.accuracy,
        **{name: metrics.to_json(result.labels) for name, metrics in result.metrics.items()},
        "settings": dict(result.settings),
        "seconds": round(result.seconds, 2),
        "warnings": list(result.warnings),
        "skipped": [{"path": os.fspath(skip.path), "reason": skip.reason} for skip in result.skipped],
    }
