"""`mobilenet export MODULE --format F -o OUT`: a module in another format, proven equal."""

import argparse

from mobilenet_hub.cli.console import note, print_json, table
from mobilenet_hub.cli.options import MODULE_HELP, add_any_size, add_image_size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("module", metavar="MODULE", help=MODULE_HELP)
    parser.add_argument(
        "--format",
        required=True,
        metavar="F",
        help="tf-hub (TF2 SavedModel), onnx, openvino, litert, keras, safetensors (module folder), or site (a static "
        "site that tensorflow_hub and `mobilenet pull` fetch from)",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="a file with the format's ending, or a folder"
    )
    add_image_size(parser, "(tf-hub, onnx, openvino, litert)", free=True)
    add_any_size(parser)
    parser.add_argument("--batch", type=_batch, metavar="N|free", help="images at a time (default: free; litert: 1)")
    parser.add_argument("--uint8-input", action="store_true", help="take decoded pixels 0..255 (not in tf-hub, keras)")
    parser.add_argument(
        "--outputs",
        nargs="+",
        metavar="NAME",
        help="logits, probabilities, features, or endpoints such as layer_7/output (default: logits, else features)",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="ONNX operator set (default: 17)")
    parser.add_argument("--precision", metavar="P", help="litert: float32, float16, dynamic or int8")
    parser.add_argument("--calibration", metavar="FOLDER", help="litert int8: photos like those it will see")
    parser.add_argument("--handle", help="site: publish under this name (default: the module's own handle)")
    parser.add_argument("--force", action="store_true", help="replace an export that is there already")


def run(args: argparse.Namespace) -> int:
    """Export, and show the proof."""
    from dataclasses import asdict

    from mobilenet_hub.exporting.export import export

    note(f"exporting {args.module} to {args.format}", args.quiet)
    proof = export(
        args.module,
        args.format,
        args.output,
        image_size=args.image_size,
        batch_size=args.batch,
        uint8_input=args.uint8_input,
        outputs=args.outputs,
        opset=args.opset,
        precision=args.precision,
        calibration=args.calibration,
        any_size=args.any_size,
        handle=args.handle,
        force=args.force,
    )
    if args.json:
        print_json(asdict(proof))
        return 0
    rows = [
        ["written", proof.path],
        ["size", f"{proof.bytes / 1e6:.2f} MB"],
        ["run by", proof.runtime],
        ["images", f"{proof.images}, at {' and '.join(f'{height}x{width}' for height, width in proof.sizes)}"],
        ["largest difference", f"{proof.difference:.2g} (allowed: {proof.tolerance:.2g})"],
    ]
    if proof.top1_agreement is not None:
        rows.append(["same top class", f"{proof.top1_agreement:.1%}"])
    print(table(["proof", proof.format], rows))
    return 0


def _batch(text: str) -> int | str:
    if text.lower() == "free":
        return "free"
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of images nor free")
    return int(text)
