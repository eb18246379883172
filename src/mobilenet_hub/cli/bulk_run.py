"""What `embed` and `classify -o` share: their options, and the run with its progress and its last words."""

import argparse
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from mobilenet_hub.cli.console import note, note_passed_over, print_json
from mobilenet_hub.cli.options import add_computing, add_images
from mobilenet_hub.cli.parser import mark_seldom
from mobilenet_hub.errors import InputError
from mobilenet_hub.host.percent import percent
from mobilenet_hub.host.progress import Bars, Stage

_MAX_NAMED = 20
_FEW = 32  # photos that LiteRT has computed in float32 before OpenVINO has started (benchmarks/NOTES.md)

if TYPE_CHECKING:
    from mobilenet_hub.bulk.rows import Rows
    from mobilenet_hub.bulk.run import Summary
    from mobilenet_hub.inference.engine import Engine, Precision
    from mobilenet_hub.inference.model import Model
    from mobilenet_hub.inference.quantize import Int8Engine
    from mobilenet_hub.module import Module

    AnyModel = TypeVar("AnyModel", bound=Model)


def add_bulk_options(parser: argparse.ArgumentParser) -> None:
    """Declare IMAGES, how they are computed, and how the output is kept."""
    from mobilenet_hub.bulk.manifest import DEFAULT_SHARD_SIZE

    add_images(parser)
    add_computing(parser, int8=True)
    bulk = parser.add_argument_group("for an output")
    bulk.add_argument("--limit", type=int, metavar="N", help="take only the first N images")
    bulk.add_argument(
        "--shard-size",
        type=int,
        metavar="N",
        default=DEFAULT_SHARD_SIZE,
        help="images a shard, the most that a kill undoes (default: %(default)s)",
    )
    bulk.add_argument(
        "--part",
        metavar="I/N",
        help="compute only this part of N, I from 0: on any machine, in any order; `mobilenet merge OUT` joins them",
    )
    bulk.add_argument(
        "--list",
        metavar="FILE",
        help="the list of IMAGES: made where there is none, else read in their place, so that all parts agree",
    )
    bulk.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="compute on a Ray cluster, without ADDRESS on one of this machine; --threads is then of each worker",
    )
    mark_seldom(parser, "--shard-size", "--part", "--list", "--ray")
    bulk.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")


def open_model(args: argparse.Namespace, model: "type[AnyModel]") -> "tuple[Path | Module, AnyModel]":
    """Return the module that the arguments name, and a Classifier or an Embedder of it as they ask for."""
    from mobilenet_hub.store import locate

    module = locate(args.module, usual_size=args.image_size, kind=model.kind)
    opened = model(
        module,
        engine_precision(args),
        args.image_size,
        fit=args.fit,
        threads=args.threads,
        engine=args.engine,
        any_size=args.any_size,
        few=_is_few(args),
    )
    return module, opened


def _is_few(args: argparse.Namespace) -> bool:
    """Tell whether the images are so few that the program's start is most of the time; an output is for many."""
    from mobilenet_hub.images.inputs import count

    if args.output is not None:
        return False
    total = args.limit if args.limit is not None else count(args.images, _FEW + 1)
    return total is not None and total <= _FEW


def run_bulk(
    command: str,
    args: argparse.Namespace,
    model: "Model",
    rows: "Rows",
    settings: dict[str, Any],
    module: "Path | Module",
) -> int:
    """Write the output with a progress bar, and say what was done; 1 where an image could not be read."""
    from mobilenet_hub.bulk.manifest import WHOLE, Part
    from mobilenet_hub.bulk.run import Plan, write
    from mobilenet_hub.images.listing import listed
    from mobilenet_hub.store import weights_sha256
    from mobilenet_hub.version import __version__

    part = Part.parse(args.part) if args.part else WHOLE
    images = listed(args.list, args.images) if args.list else args.images
    total = expected(args) if images is args.images else None
    total = part.share(total, args.shard_size) if total is not None else None
    note_precision(args, model.engine)
    engine = model.engine
    computes: Engine | Int8Engine = engine
    if args.precision == "int8" and args.ray:
        raise InputError("int8 is calibrated on one machine and cannot be handed out: leave --ray or int8 out")
    if args.precision == "int8":
        computes = _quantized(args, images, model)
        settings = {**settings, "calibration_sha256": computes.calibration_sha256}
    about = {
        "command": command,
        "inputs": _named(args.images),
        "module": engine.config.handle or args.module,
        "weights_sha256": weights_sha256(module),
        "image_size": list(engine.image_size),
        "precision": computes.precision,
        "engine": computes.engine_name,
        **settings,
        "version": __version__,
    }
    with Bars(args.quiet) as bars:
        summary = write(
            images,
            args.output,
            computes,
            rows,
            about,
            preprocessing=model.preprocessing,
            plan=Plan(args.limit, args.shard_size, args.strict, part, args.ray),
            on_progress=lambda stage, done, _: bars(Stage(command, "image"), done, total),
        )
    _report(args, summary, about)
    return 1 if summary.skipped else 0


def expected(args: argparse.Namespace) -> int | None:
    """Return how many images are to be done; None where that is not known, or nobody is to be told.

    Raises:
        InputError: a limit that means nothing.
    """
    from mobilenet_hub.images.inputs import count

    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit must be 1 or more, not {args.limit}")
    total = None if args.quiet else count(args.images)
    return total if args.limit is None else min(total or args.limit, args.limit)


def engine_precision(args: argparse.Namespace) -> "Precision":
    """Return what to open the engine in; int8 is made from f32, and only for an output."""
    if args.precision != "int8":
        return args.precision
    if args.output is None:
        raise InputError("int8 is for many images: add -o; calibrating takes longer than labelling a few")
    return "f32"


def _quantized(args: argparse.Namespace, images: Iterable[str], model: "Model") -> "Int8Engine":
    from mobilenet_hub.evaluation.classes import class_index
    from mobilenet_hub.inference.classify import labels_of
    from mobilenet_hub.inference.quantize import quantized

    note("calibrating int8 with the first images", args.quiet)
    engine = model.engine
    named = class_index(labels_of(engine.config)) if engine.outputs == ("logits",) else lambda name: None
    int8, near = quantized(
        engine,
        images,
        model.preprocessing,
        limit=args.limit,
        label_of=lambda key: named(PurePath(key).parent.name),
    )
    where = "the images calibrated with" if near.calibrated_with else "images not calibrated with"
    same = f", the same likeliest class for {percent(near.top1)}" if engine.outputs == ("logits",) else ""
    right = ""
    if near.accuracy:  # the images lie in folders named as the module's classes
        right = f"; right {percent(near.accuracy[1])} of the time, f32 {percent(near.accuracy[0])}"
    note(
        f"int8 against f32 on {near.images} of {where}: mean cosine similarity {near.cosine:.4f}, least "
        f"{near.least_cosine:.4f}{same}{right}",
        args.quiet,
    )
    return int8


def note_precision(args: argparse.Namespace, engine: "Engine") -> None:
    """Say so where the precision asked for is not to be had, and in bulk what another engine would gain here."""
    if args.precision == "bf16" and engine.precision != "bf16":
        note(
            "this CPU has no bf16 arithmetic, or no engine for it is installed: running in f32, which is more exact",
            args.quiet,
        )
    if args.output is not None and args.precision == args.engine == "auto":
        from mobilenet_hub.host.cpu import cpu_features
        from mobilenet_hub.inference.openvino import gain_of_openvino, is_installed

        gain = gain_of_openvino(cpu_features(), is_there=is_installed())
        if gain and engine.precision == "f32":
            note(gain, args.quiet)


def _named(inputs: list[str]) -> list[str]:
    """Return where the images come from; of many names given one by one the first, and how many there are."""
    more = len(inputs) - _MAX_NAMED
    return [*inputs[:_MAX_NAMED], f"and {more} more"] if more > 0 else inputs


def _report(args: argparse.Namespace, summary: "Summary", about: dict[str, Any]) -> None:
    if args.json:
        print_json(
            {
                **about,
                "output": str(summary.output),
                "rows": summary.rows,
                "skipped": summary.skipped,
                "skipped_file": summary.skipped_file and str(summary.skipped_file),
                "resumed": summary.resumed,
                "passed_over": dict(summary.passed_over),
            }
        )
    earlier = f" ({summary.resumed} of the images were done before)" if summary.resumed else ""
    note(f"{summary.output}: {summary.rows} images{earlier}", args.quiet or args.json)
    note_passed_over(summary.passed_over, args.quiet)
    if summary.skipped:
        note(f"{summary.skipped} of the inputs could not be read; each with its reason: {summary.skipped_file}")
