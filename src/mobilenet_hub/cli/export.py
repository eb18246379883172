"""`mobilenet export MODULE --format F -o OUT`: a module in another format, proven equal."""

import argparse
from typing import TYPE_CHECKING

from mobilenet_hub.cli.console import note, note_cautions, print_json, table
from mobilenet_hub.cli.options import MODULE_HELP, add_any_size, add_force, add_image_size
from mobilenet_hub.cli.parser import mark_seldom
from mobilenet_hub.host.percent import percent

if TYPE_CHECKING:
    from mobilenet_hub.exporting.proof import Proof

EXAMPLES = (
    "mobilenet export my_module --format litert -o my_module.tflite",
    "mobilenet export my_module --format onnx -o my_module.onnx --uint8-input",
    "mobilenet export my_module --format tf-hub -o saved_model",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; which format takes which follows from `FORMATS`."""
    from mobilenet_hub.exporting.formats import FORMATS, OPSETS, PRECISIONS, takers

    formats = "; ".join(f"{one.name}: {one.what.replace('`', '')}" for one in FORMATS.values())
    one_by_one = ", ".join(f"{one.name}: {one.default_batch}" for one in FORMATS.values() if one.default_batch)
    parser.add_argument("module", metavar="MODULE", help=MODULE_HELP)
    parser.add_argument("--format", required=True, metavar="F", help=formats)
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="a file with the format's ending, or a folder"
    )
    add_image_size(parser, f"({takers('image_size')})", free=True)
    add_any_size(parser)
    parser.add_argument(
        "--batch",
        dest="batch_size",
        type=_batch,
        metavar="N|free",
        help=f"images at a time (default: free; {one_by_one}) ({takers('batch_size')})",
    )
    parser.add_argument(
        "--uint8-input", action="store_true", help=f"take decoded pixels 0..255 ({takers('uint8_input')})"
    )
    parser.add_argument(
        "--outputs",
        nargs="+",
        metavar="NAME",
        help="logits, probabilities, features, or endpoints such as layer_7/output (default: logits, else features)",
    )
    parser.add_argument("--opset", type=int, metavar="N", help=f"{takers('opset')}: operator set ({OPSETS[1]})")
    parser.add_argument("--precision", metavar="P", help=f"{takers('precision')}: {', '.join(PRECISIONS)}")
    parser.add_argument(
        "--calibration", metavar="FOLDER", help=f"{takers('calibration')} in int8: photos like those it will see"
    )
    parser.add_argument(
        "--handle", help=f"{takers('handle')}: publish under this name (default: the module's own handle)"
    )
    add_force(parser, "replace an export that is there already, and keep one whose top classes mostly changed")
    mark_seldom(parser, "--opset", "--handle", "--outputs")


def run(args: argparse.Namespace) -> int:
    """Export, and show the proof; 1 where photos to calibrate with had to be left out."""
    from mobilenet_hub.exporting.export import export

    note(f"exporting {args.module} to {args.format}", args.quiet)
    proof = export(
        args.module,
        args.format,
        args.output,
        image_size=args.image_size,
        batch_size=args.batch_size,
        uint8_input=args.uint8_input,
        outputs=args.outputs,
        opset=args.opset,
        precision=args.precision,
        calibration=args.calibration,
        any_size=args.any_size,
        handle=args.handle,
        overwrite=args.overwrite,
    )
    if args.json:
        print_json(proof.to_json())
    else:
        print(_table(proof))
    note_cautions(proof.warnings, proof.skipped, args.quiet)
    return 1 if proof.skipped else 0


def _table(proof: "Proof") -> str:
    rows = [
        ["written", proof.path],
        ["size", f"{proof.bytes / 1e6:.2f} MB"],
        ["run by", proof.runtime],
        ["images", f"{proof.images}, at {' and '.join(f'{height}x{width}' for height, width in proof.sizes)}"],
        ["largest difference", f"{proof.difference:.2g} (allowed: {proof.tolerance:.2g})"],
    ]
    if proof.top1_agreement is not None:
        rows.append(["same top class", percent(proof.top1_agreement)])
    return table(["proof", proof.format], rows)


def _batch(text: str) -> int | str:
    if text.lower() == "free":
        return "free"
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of images nor free")
    return int(text)
