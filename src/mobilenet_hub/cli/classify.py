"""`mobilenet classify IMAGES...`: labels with scores, to the screen or to a file.

Imports console and image_files; classify, images and pyarrow when it runs.
"""

import argparse
import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet_hub.cli.console import bar, is_fancy, note, print_json, progress, table
from mobilenet_hub.cli.image_files import HELP, find_images
from mobilenet_hub.errors import InputError, OutputError

if TYPE_CHECKING:
    from mobilenet_hub.classify import Classifier, Prediction

_TOP_OF_ONE = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("images", nargs="+", metavar="IMAGES", help=HELP)
    parser.add_argument("--module", default="starter", help="the module to use (default: starter)")
    parser.add_argument("--top", type=int, metavar="K", help="classes of each image (5; of many, or in a file: 1)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write .csv, .jsonl or .parquet instead of the screen")
    parser.add_argument("--fit", metavar="FIT", help="how images of another shape are fitted (see the guide)")
    parser.add_argument("--precision", default="auto", metavar="P", help="auto, f32 or bf16 (default: auto)")
    parser.add_argument("--image-size", type=int, metavar="N", help="another size than the module was trained at")
    parser.add_argument("--any-size", action="store_true", help="insist on a size that the module does not allow")


def run(args: argparse.Namespace) -> int:
    """Classify; 1 where an image could not be."""
    write = _writer(args.output) if args.output else None
    if args.top is not None and args.top < 1:
        raise InputError(f"--top must be 1 or more, not {args.top}")
    paths, problems = find_images(args.images)
    predictions: list[Prediction] = []
    classifier = None
    if paths:
        classifier = _open(args)
        many = len(paths) > 1 or write is not None
        top = args.top or (1 if many and not args.json else _TOP_OF_ONE)
        predictions, unreadable = _classify(classifier, paths, top, args.quiet)
        problems |= unreadable
    if args.json:
        print_json(_as_json(classifier, args.module, predictions, problems))
    elif write is None and predictions:
        print(_one_table(predictions[0]) if len(paths) == 1 else _many_table(predictions))
    if write is not None and classifier is not None:
        write(Path(args.output), predictions, _about(classifier, args.module))
        note(f"{len(predictions)} images classified: {args.output}", args.quiet)
    for path, reason in problems.items():
        note(f"{path}: {reason}")
    if problems and len(paths) > 1:
        note(f"{len(problems)} of the inputs could not be classified")
    return 1 if problems else 0


def _open(args: argparse.Namespace) -> "Classifier":
    from mobilenet_hub.classify import Classifier

    classifier = Classifier(args.module, args.precision, args.image_size, fit=args.fit, any_size=args.any_size)
    if args.precision == "bf16" and classifier.precision != "bf16":
        note("this CPU has no bf16 arithmetic: running in f32, which is more exact", args.quiet)
    return classifier


def _classify(
    classifier: "Classifier", paths: Sequence[str], top: int, quiet: bool
) -> "tuple[list[Prediction], dict[str, str]]":
    from mobilenet_hub.batches import BATCH_SIZE

    predictions: list[Prediction] = []
    unreadable: dict[str, str] = {}
    with progress(len(paths), "classifying", quiet=quiet or len(paths) <= BATCH_SIZE) as done:
        for start in range(0, len(paths), BATCH_SIZE):
            part = paths[start : start + BATCH_SIZE]
            predictions += classifier.classify(
                part, top, on_error=lambda path, error: unreadable.update({path: error.reason})
            )
            done.update(len(part))
    return predictions, unreadable


def _percent(score: float) -> str:
    return f"{100 * score:.1f} %"


def _one_table(prediction: "Prediction") -> str:
    fancy = is_fancy()
    rows = [
        (label, _percent(score), bar(score, 24, fancy))
        for label, score in zip(prediction.labels, prediction.scores, strict=True)
    ]
    return f"{prediction.source}\n\n{table(('label', 'score', ''), rows, '<>', fancy)}"


def _many_table(predictions: "Iterable[Prediction]") -> str:
    fancy = is_fancy()
    rows = [
        (prediction.source if rank == 0 else "", label, _percent(score), bar(score, 12, fancy))
        for prediction in predictions
        for rank, (label, score) in enumerate(zip(prediction.labels, prediction.scores, strict=True))
    ]
    return table(("image", "label", "score", ""), rows, "<<>", fancy)


def _about(classifier: "Classifier", module: str) -> dict[str, str]:
    """Return where predictions come from, for a file's metadata."""
    from mobilenet_hub import __version__
    from mobilenet_hub.images import DEFAULT_FIT

    return {
        "module": classifier.config.handle or module,
        "version": __version__,
        "precision": classifier.precision,
        "fit": classifier.fit or DEFAULT_FIT,
        "image_size": "x".join(map(str, classifier.image_size)),
    }


def _as_json(
    classifier: "Classifier | None", module: str, predictions: "Iterable[Prediction]", problems: dict[str, str]
) -> dict[str, Any]:
    return {
        **(_about(classifier, module) if classifier else {"module": module}),
        "predictions": [
            {"path": p.source, "labels": list(p.labels), "scores": list(p.scores), "indices": list(p.indices)}
            for p in predictions
        ],
        "skipped": [{"path": path, "reason": reason} for path, reason in problems.items()],
    }


Writer = Callable[[Path, "Sequence[Prediction]", dict[str, str]], None]


def _writer(output: str) -> Writer:
    writers: dict[str, Writer] = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    suffix = Path(output).suffix.lower()
    if suffix not in writers:
        raise InputError(f"-o {output}: the ending must be one of {', '.join(writers)}, which says what is written")
    if not Path(output).absolute().parent.is_dir():
        raise OutputError(f"-o {output}: the folder {Path(output).absolute().parent} does not exist; make it first")

    def write(path: Path, predictions: "Sequence[Prediction]", about: dict[str, str]) -> None:
        """Write to a temporary name beside the file, then rename: it is never there by half."""
        partial = None
        try:
            handle, partial = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
            os.close(handle)
            writers[suffix](Path(partial), predictions, about)
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error}") from None
        finally:
            if partial:
                Path(partial).unlink(missing_ok=True)

    return write


def _columns(predictions: "Sequence[Prediction]") -> dict[str, list[Any]]:
    """Return path, label, score and index: values where there is one class of each image, else lists."""
    one = all(len(p.labels) == 1 for p in predictions)
    columns: dict[str, list[Any]] = {"path": [p.source for p in predictions]}
    for name, field in (("label", "labels"), ("score", "scores"), ("index", "indices")):
        values = [getattr(p, field) for p in predictions]
        columns[name] = [v[0] for v in values] if one else [list(v) for v in values]
    return columns


def _write_csv(path: Path, predictions: "Sequence[Prediction]", about: dict[str, str]) -> None:
    """Write label, score and index of the best class, then label_2, score_2, index_2 of the second, and so on."""
    most = max((len(p.labels) for p in predictions), default=1)
    ends = ["", *(f"_{rank}" for rank in range(2, most + 1))]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", *(f"{name}{end}" for end in ends for name in ("label", "score", "index"))])
        for p in predictions:
            ranked = zip(p.labels, p.scores, p.indices, strict=True)
            writer.writerow([p.source, *(cell for row in ranked for cell in row)])


def _write_jsonl(path: Path, predictions: "Sequence[Prediction]", about: dict[str, str]) -> None:
    columns = _columns(predictions)
    with path.open("w", encoding="utf-8") as stream:
        for row in zip(*columns.values(), strict=True):
            stream.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")


def _write_parquet(path: Path, predictions: "Sequence[Prediction]", about: dict[str, str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    metadata = {f"mobilenet_hub.{key}": value for key, value in about.items()}
    parquet.write_table(pa.table(_columns(predictions)).replace_schema_metadata(metadata), path)
