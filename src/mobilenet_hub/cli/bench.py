"""`mobilenet bench [MODULE...]`: speed here, beside the limit of its parts, and what fits a budget."""

import argparse
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet_hub.cli.console import note, note_cautions, print_json, table
from mobilenet_hub.cli.options import add_engine, add_fit, add_force, add_precision, add_threads
from mobilenet_hub.cli.parser import mark_seldom
from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.host.progress import Bars, Stage

if TYPE_CHECKING:
    from mobilenet_hub.images.inputs import Item
    from mobilenet_hub.inference.bench import NetworkSpeed
    from mobilenet_hub.inference.engine import Engine, Precision

EXAMPLES = (
    "mobilenet bench",
    "mobilenet bench my_module --photos my_photos",
    "mobilenet bench --budget-ms 5",
    'mobilenet bench --catalog "v2_*" --plot speed.svg',
)

_WONDER_S = 2.0
_MOST_ROWS = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="modules to measure (default: starter)")
    parser.add_argument("--photos", action="append", metavar="IMAGES", help="your own photos (default: made-up ones)")
    add_precision(parser, "auto, f32, bf16, or all that this CPU has")
    add_engine(parser, "auto, litert, openvino, or all that are installed")
    add_fit(parser)
    add_threads(parser)
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="how long each figure is measured (3)")
    budget = parser.add_argument_group("which published network fits; measures all of them, without their weights")
    budget.add_argument(
        "--catalog", nargs="?", const="*", metavar="FILTER", help="only those whose names match, as v2_*"
    )
    budget.add_argument("--budget-ms", type=float, metavar="T", help="one image may take T milliseconds")
    budget.add_argument("--budget-rate", type=float, metavar="R", help="in bulk, R images a second must be done")
    budget.add_argument("--plot", metavar="FILE.svg", help="draw accuracy against speed")
    add_force(budget, "draw also over a file that is no such drawing")
    mark_seldom(parser, "--seconds")


def run(args: argparse.Namespace) -> int:
    """Measure modules, or the catalogue where a budget or a plot is asked for."""
    for name in ("seconds", "budget_ms", "budget_rate"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name.replace('_', '-')} must be a number above 0, not {value:g}")
    whole_catalog = args.catalog or args.plot or args.budget_ms is not None or args.budget_rate is not None
    if whole_catalog and args.modules:
        raise InputError("a budget, a plot and --catalog measure every published network: leave the modules out")
    return _bench_catalog(args) if whole_catalog else _bench_modules(args)


def _bench_modules(args: argparse.Namespace) -> int:
    from mobilenet_hub.images.fit import Preprocessing
    from mobilenet_hub.inference.bench import example_photos, measure, photos_in_memory

    photos, left_out = photos_in_memory(args.photos) if args.photos else (example_photos(), [])
    note_cautions([], left_out, args.quiet)
    engines = [engine for name in args.modules or ["starter"] for engine in _engines(name, args)]
    _announce(len(engines) * 4 * args.seconds, args.quiet)
    results = []
    with Bars(args.quiet) as on_progress:
        for number, (name, engine, auto_for) in enumerate(engines):
            on_progress(Stage("bench", "network"), number, len(engines))
            speed = measure(engine, photos, Preprocessing(engine.image_size, args.fit), seconds=args.seconds)
            results.append(
                {
                    "module": name,
                    "image_size": list(engine.image_size),
                    "precision": engine.precision,
                    "engine": engine.engine_name,
                    "auto": "many" in auto_for,
                    "auto_for": auto_for,
                    "decode_per_s": speed.decode,
                    "inference_per_s": speed.inference,
                    "end_to_end_per_s": speed.end_to_end,
                    "limit_per_s": speed.limit,
                    "share_of_limit": speed.end_to_end / speed.limit,
                    "one_image_ms": speed.one_image_ms,
                }
            )
    if args.json:
        print_json({"machine": _machine(args.threads), "photos": _describe(photos), "results": results})
        return 1 if left_out else 0
    print(f"{_machine(args.threads)}; {_describe(photos)}\n")
    headers = ("module", "engine", "auto", "decode", "network", "both", "limit", "one image")
    rows = [
        (
            r["module"], f"{r['engine']} {r['precision']}", _auto_cell(r["auto_for"]), f"{r['decode_per_s']:.0f}",
            f"{r['inference_per_s']:.0f}", f"{r['end_to_end_per_s']:.0f}", f"{r['limit_per_s']:.0f}",
            f"{r['one_image_ms']:.2f} ms",
        )
        for r in results
    ]  # fmt: skip
    print(table(headers, rows, "<<<>>>>>"))
    print("\nImages a second; limit = 1 / (1/decode + 1/network), what both allow if neither waits.")
    print("auto: for which jobs it is taken of itself, few photos to the screen, many to an output, or both.")
    return 1 if left_out else 0


def _engines(name: str, args: argparse.Namespace) -> "list[tuple[str, Engine, list[str]]]":
    """Return what to measure of a module, each with what `auto` takes it for: few photos, many, both or neither."""
    from mobilenet_hub.inference.bench import open_to_measure
    from mobilenet_hub.inference.engine import installed_engines

    asked: Precision = "auto" if args.precision == "all" else args.precision
    taken = {job: open_to_measure(name, asked, threads=args.threads, few=job == "few") for job in ("few", "many")}
    precisions = ("f32", "bf16") if args.precision == "all" else (args.precision,)
    names = installed_engines() if args.engine == "all" else (args.engine,)
    found: dict[tuple[str, str], Engine] = {}
    for one in names:
        for asked in precisions:
            opened = open_to_measure(name, asked, one, args.threads)
            found.setdefault((opened.engine_name, opened.precision), opened)
    return [
        (name, opened, [job for job, own in taken.items() if (own.engine_name, own.precision) == key])
        for key, opened in found.items()
    ]


def _auto_cell(jobs: list[str]) -> str:
    return "both" if len(jobs) > 1 else "".join(jobs)


def _announce(seconds: float, quiet: bool) -> None:
    """Say beforehand how long it will take, where one would wonder."""
    if seconds > _WONDER_S:
        note(f"measuring, about {seconds:.0f} s", quiet)


def _bench_catalog(args: argparse.Namespace) -> int:
    from mobilenet_hub.catalog.published import configurations
    from mobilenet_hub.host.ownership import check_file_place
    from mobilenet_hub.inference.bench import best_within, measure_catalog

    if args.plot:
        check_file_place(args.plot, overwrite=args.overwrite)
    pattern = f"*{args.catalog or '*'}*"
    networks = [configuration for configuration in configurations() if fnmatchcase(configuration.name, pattern)]
    if not networks:
        raise InputError(f"no published network matches {args.catalog!r}; `mobilenet models` lists them")
    seconds = min(args.seconds, 1.0)
    _announce(len(networks) * (0.4 + 1.4 * seconds), args.quiet)
    with Bars(args.quiet) as on_progress:
        speeds = measure_catalog(args.precision, seconds, networks, on_progress, threads=args.threads)
    fitting = best_within(speeds, budget_ms=args.budget_ms, images_per_s=args.budget_rate)
    if args.plot:
        from mobilenet_hub.evaluation.speed_chart import speed_chart
        from mobilenet_hub.host.files import replacing

        try:
            with replacing(Path(args.plot)) as file:
                file.write(speed_chart(speeds, _machine(args.threads), args.budget_ms).encode())
        except OSError as error:
            raise OutputError(f"--plot {args.plot} cannot be written: {error.strerror or error}") from None
    if args.json:
        print_json({"machine": _machine(args.threads), "fitting": [s.configuration.name for s in fitting],
                    "networks": [_as_dict(s) for s in speeds]})  # fmt: skip
        return 0
    print(_catalog_text(args, speeds, fitting))
    if args.plot:
        note(f"{args.plot}: accuracy against speed", args.quiet)
    return 0


def _catalog_text(args: argparse.Namespace, speeds: "list[NetworkSpeed]", fitting: "list[NetworkSpeed]") -> str:
    if not fitting:
        fastest = min(speeds, key=lambda s: s.one_image_ms)
        return (
            f"None fits; the fastest, {fastest.configuration.name}, takes {fastest.one_image_ms:.2f} ms for one image."
        )
    budgets = [
        text
        for value, text in (
            (args.budget_ms, f"{args.budget_ms} ms an image"),
            (args.budget_rate, f"{args.budget_rate} images/s"),
        )
        if value is not None
    ]
    shown = fitting[:_MOST_ROWS] if budgets else fitting
    rows = [
        (
            s.configuration.name,
            f"{s.configuration.published.top1:.1f}",
            f"{s.one_image_ms:.2f}",
            f"{s.images_per_s:.0f}",
        )
        for s in shown
    ]
    title = (
        f"{len(fitting)} of {len(speeds)} networks fit {' and '.join(budgets)}"
        if budgets
        else f"{len(speeds)} networks"
    )
    more = f"\n... and {len(fitting) - len(shown)} less accurate ones" if len(fitting) > len(shown) else ""
    cells = table(("network", "top-1 %", "one image ms", "bulk images/s"), rows, "<>>>")
    return f"{title}, on {_machine(args.threads)}:\n\n{cells}{more}"


def _as_dict(speed: "NetworkSpeed") -> dict[str, Any]:
    return {
        "network": speed.configuration.name,
        "top1_percent": speed.configuration.published.top1,
        "one_image_ms": speed.one_image_ms,
        "images_per_s": speed.images_per_s,
    }


def _describe(photos: "list[Item]") -> str:
    size = sum(len(item.read()) for item in photos) / len(photos) / 1000
    return f"{len(photos)} photos of {size:.0f} kB"


def _machine(threads: int | None) -> str:
    from mobilenet_hub.host.cpu import available_cores, cpu_name

    asked = "" if threads is None else f", {threads} thread{'s' * (threads > 1)}"
    return f"{available_cores()} cores of {cpu_name()}{asked}"
