"""`mobilenet train FOLDER -o DIR`: a classifier of one's own photos."""

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenet_hub.cli.console import note, note_cautions, open_page, print_json, table
from mobilenet_hub.cli.options import (
    add_any_size,
    add_force,
    add_image_size,
    add_labelled_folder,
    add_open,
    add_precision,
    add_threads,
    image_size,
)
from mobilenet_hub.cli.parser import mark_seldom
from mobilenet_hub.errors import InputError
from mobilenet_hub.host.percent import percent
from mobilenet_hub.host.progress import Bars
from mobilenet_hub.module_folder import REPORT_FILE

if TYPE_CHECKING:
    from mobilenet_hub.architecture import Architecture
    from mobilenet_hub.training.schedule import GradientOptions
    from mobilenet_hub.training.train import Method, TrainResult

EXAMPLES = (
    "mobilenet train photos",
    "mobilenet train photos -o my_module --module mobilenet_v2_100_224/feature_vector",
    "mobilenet train photos -o my_module --fine-tune --epochs 10",
    "mobilenet train labels.csv -o my_module --exclude leave_out.csv",
)

# What trains from scratch where nothing else is said.
_ARCHITECTURE, _DEPTH_MULTIPLIER, _IMAGE_SIZE = "mobilenet_v2", 1.0, 224
_SELDOM = (
    *("--assert-accuracy", "--work", "--views", "--strength", "--class-weights", "--architecture"),
    *("--depth-multiplier", "--decay", "--coarse-size", "--batch-norm-momentum", "--weight-decay"),
    *("--label-smoothing", "--crop-area", "--patience", "--devices"),
)
# Options that say something to one way of training only.
_OF_GRADIENT = (
    *("epochs", "batch_size", "learning_rate", "decay", "coarse_size", "batch_norm_momentum", "weight_decay"),
    *("label_smoothing", "min_area", "patience", "devices"),
)
_OF_SCRATCH = ("architecture", "depth_multiplier")
_NOT_OF_SCRATCH = ("views", "strength", "features")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from mobilenet_hub.evaluation.dataset import TEST_SHARE, VALIDATION_SHARE

    add_labelled_folder(parser)
    parser.add_argument("-o", "--output", metavar="DIR", help="the module folder to make (default: FOLDER-classifier)")
    parser.add_argument(
        "--module", help="the module whose network is used, or made anew from scratch (default: starter, or as below)"
    )
    add_force(parser, "replace DIR where it is a module folder already")
    parser.add_argument("--assert-accuracy", type=float, metavar="A", help="fail, and write nothing, below this (0.9)")
    add_open(parser)
    add_image_size(parser, "the size at which photos are seen (default: the module's)")
    add_any_size(parser)
    add_threads(parser, "; Keras, where it trains, takes its own number")
    parser.add_argument("--work", metavar="DIR", help="keep what a killed run or another split can use, here")
    split = parser.add_argument_group("split")
    for name, share, does in (
        ("--validation", VALIDATION_SHARE, "chooses settings"),
        ("--test", TEST_SHARE, "measures the result"),
    ):
        split.add_argument(
            name, type=float, default=share, metavar="SHARE", help=f"{does} (default: %(default)s of the photos)"
        )
    split.add_argument("--seed", type=int, default=0, help="another seed, another split (default: 0)")
    split.add_argument("--exclude", metavar="LIST", help="leave out the photos of a list, as check writes it")
    frozen = parser.add_argument_group("the classifier")
    frozen.add_argument(
        "--views", type=int, metavar="N", help="of each training photo: 1 plain, 2 mirrored, 3+ jittered"
    )
    frozen.add_argument("--strength", type=float, metavar="S", help="of the regularisation (default: by validation)")
    frozen.add_argument(
        "--features", metavar="OUT", help="of these photos, as `embed` wrote them with the same module: none is decoded"
    )
    frozen.add_argument("--class-weights", default="auto", metavar="W", help="auto, balanced or none (default: auto)")
    add_precision(frozen)
    _configure_gradient(parser)
    mark_seldom(parser, *_SELDOM)


def _configure_gradient(parser: argparse.ArgumentParser) -> None:
    method = parser.add_argument_group("training the network too (needs Keras and a backend)")
    which = method.add_mutually_exclusive_group()
    which.add_argument("--fine-tune", action="store_true", help="train the module's network as well")
    which.add_argument("--from-scratch", action="store_true", help="train a network from random weights")
    method.add_argument("--architecture", metavar="A", help=f"mobilenet_v1 or mobilenet_v2 ({_ARCHITECTURE})")
    method.add_argument("--depth-multiplier", type=float, metavar="M", help="any above 0 (default: 1)")
    method.add_argument("--epochs", type=int, metavar="N", help="passes over the training photos")
    method.add_argument("--batch-size", type=int, metavar="N", help="photos at each step")
    method.add_argument("--learning-rate", type=float, metavar="R", help="at its highest")
    method.add_argument("--decay", type=float, metavar="SHARE", help="of the epochs, in which the rate falls to zero")
    method.add_argument(
        "--coarse-size", type=image_size, metavar="N|HxW", help="image size until the rate falls: smaller is faster"
    )
    method.add_argument("--batch-norm-momentum", type=float, metavar="M", help="of the moving statistics (0.99)")
    method.add_argument("--weight-decay", type=float, metavar="W", help="L2, of the full convolutions (4e-5)")
    method.add_argument("--label-smoothing", type=float, metavar="S", help="default: 0.1")
    method.add_argument(
        "--crop-area", dest="min_area", type=float, metavar="SHARE", help="least of a photo that a random crop shows"
    )
    method.add_argument("--devices", type=int, metavar="N", help="share each batch out among N devices (JAX alone)")
    method.add_argument("--patience", type=int, metavar="N", help="stop after N epochs without progress on validation")


def run(args: argparse.Namespace) -> int:
    """Train; 1 where files had to be left out."""
    from mobilenet_hub.training.frozen import FrozenOptions
    from mobilenet_hub.training.train import train

    method: Method = "fine-tune" if args.fine_tune else "from-scratch" if args.from_scratch else "frozen"
    _check_given(args, method)
    network, image_size = (None, args.image_size) if method != "from-scratch" else _new_network(args)
    with Bars(args.quiet) as bars:
        result = train(
            args.folder,
            args.output or _beside(args.folder),
            module=args.module or "starter",
            method=method,
            validation=args.validation,
            test=args.test,
            seed=args.seed,
            exclude=args.exclude,
            image_size=image_size,
            frozen=FrozenOptions(args.views, args.strength, args.class_weights, args.precision, args.features),
            gradient=None if method == "frozen" else _gradient(args),
            network=network,
            assert_accuracy=args.assert_accuracy,
            any_size=args.any_size,
            threads=args.threads,
            overwrite=args.overwrite,
            work=args.work,
            on_progress=bars,
        )
    if args.json:
        print_json(_as_json(result))
    else:
        print(_table(result))
        note(f"{result.path}: module, metrics.json, report.html, README.md ({result.seconds:.1f} s)", args.quiet)
    note_cautions(result.warnings, result.skipped, args.quiet)
    if not args.json:
        module = shlex.quote(os.fspath(result.path))
        note(f"next: mobilenet classify PHOTOS --module {module}\n      mobilenet serve {module}", args.quiet)
    if args.open:
        open_page(result.path / REPORT_FILE, args.quiet)
    return 1 if result.skipped else 0


def _beside(source: str) -> Path:
    """Return where the module of a folder or table of photos goes if nothing else is said."""
    path = Path(source)
    if path.name in ("", ".."):
        path = Path(os.path.normpath(path.absolute()))
    name = path.name if path.is_dir() else path.stem
    return path.with_name(f"{name}-classifier") if name else path


def _new_network(args: argparse.Namespace) -> "tuple[Architecture, int | tuple[int, int]]":
    """Return the network to train from scratch and its image size: as asked for, else as the module's."""
    from mobilenet_hub.architecture import architecture
    from mobilenet_hub.catalog.find import find_module
    from mobilenet_hub.module_folder import read_config
    from mobilenet_hub.store import is_local, locate

    name, multiplier, size = _ARCHITECTURE, _DEPTH_MULTIPLIER, (_IMAGE_SIZE, _IMAGE_SIZE)
    if args.module is not None:  # of a published one nothing is fetched: its name says it all
        if is_local(args.module):
            found = locate(args.module, usual_size=args.image_size)
            like = read_config(found) if isinstance(found, Path) else found.config
        else:
            like = find_module(args.module, "feature_vector")
        name, multiplier, size = like.architecture, like.depth_multiplier, like.image_size
    multiplier = multiplier if args.depth_multiplier is None else args.depth_multiplier
    size = size if args.image_size is None else args.image_size
    return architecture(args.architecture or name, multiplier, 0), size


def _check_given(args: argparse.Namespace, method: "Method") -> None:
    """Refuse options that say nothing to this way of training."""
    others = {
        "frozen": ((_OF_GRADIENT, "--fine-tune or --from-scratch"), (_OF_SCRATCH, "--from-scratch")),
        "fine-tune": ((_OF_SCRATCH, "--from-scratch"),),
        "from-scratch": ((_NOT_OF_SCRATCH, "training from a module, without --from-scratch"),),
    }
    for names, takers in others[method]:
        for name in names:
            if getattr(args, name) not in (None, False):
                raise InputError(f"`{name}` is for {takers}")


def _gradient(args: argparse.Namespace) -> "GradientOptions":
    from dataclasses import replace

    from mobilenet_hub.training.schedule import FINE_TUNING, FROM_SCRATCH

    defaults = FINE_TUNING if args.fine_tune else FROM_SCRATCH
    given = {name: getattr(args, name) for name in _OF_GRADIENT if getattr(args, name) is not None}
    if (side := given.pop("coarse_size", None)) is not None:
        given["coarse_size"] = (side, side) if isinstance(side, int) else side
    if (area := given.pop("min_area", None)) is not None:
        given["augmentation"] = replace(defaults.augmentation, min_area=area)
    given |= {"class_weights": args.class_weights, "precision": args.precision, "seed": args.seed}
    return replace(defaults, **given)


def _table(result: "TrainResult") -> str:
    rows = [
        (name, m.images, percent(m.accuracy), f"{percent(m.interval[0])} to {percent(m.interval[1])}")
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
        "skipped": [{"path": skip.name, "reason": skip.reason} for skip in result.skipped],
    }
