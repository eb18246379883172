"""`mobilenet convert`: any supported weights file or folder into a module folder."""

import argparse

from mobilenet_hub.cli.console import print_json
from mobilenet_hub.cli.options import add_force, add_image_size
from mobilenet_hub.cli.parser import mark_seldom

EXAMPLES = (
    "mobilenet convert keras_model.h5 -o my_module",
    "mobilenet convert converted_tflite.zip -o my_module",
    "mobilenet convert retrained_graph.pb --labels retrained_labels.txt -o my_module",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help="a weights file, folder, archive, or a checkpoint's prefix")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the module folder to make")
    add_image_size(parser, "pixels, for files that do not say it")
    parser.add_argument("--labels", metavar="FILE", help="a text file with one label a line, one for each class")
    parser.add_argument(
        "--pixels",
        metavar="X",
        help="what the model was trained on, where its file does not say it: pixels x of 0 to 255 as x/127.5-1 (taken "
        "where nothing is said), x/255 or x",
    )
    parser.add_argument("--handle", help="the published module that the file is; everything it says is demanded")
    parser.add_argument("--architecture", choices=("mobilenet_v1", "mobilenet_v2"), help="demand this architecture")
    parser.add_argument("--depth-multiplier", type=float, metavar="M", help="demand this depth multiplier")
    parser.add_argument("--num-classes", type=int, metavar="N", help="demand N classes; 0 leaves the classifier out")
    add_force(parser, "replace DIR where it is there already")
    mark_seldom(parser, "--handle", "--architecture", "--depth-multiplier", "--num-classes")


def run(args: argparse.Namespace) -> int:
    """Convert, and say what came out."""
    from mobilenet_hub.module_folder import read_config
    from mobilenet_hub.weights.convert import convert
    from mobilenet_hub.weights.identify import ASSUMED
    from mobilenet_hub.weights.pixels import is_open

    folder = convert(
        args.source,
        args.output,
        architecture=args.architecture,
        depth_multiplier=args.depth_multiplier,
        image_size=args.image_size,
        num_classes=args.num_classes,
        handle=args.handle,
        pixels=args.pixels,
        labels=_read_labels(args.labels) if args.labels else None,
        overwrite=args.overwrite,
    )
    config = read_config(folder)
    height, width = config.image_size
    assumed = config.extra.get(ASSUMED, [])
    if args.json:
        print_json(
            {
                "module": str(folder),
                "architecture": config.architecture,
                "depth_multiplier": config.depth_multiplier,
                "image_size": [height, width],
                "num_classes": config.num_classes,
                "num_features": config.network.num_features,
                "source": config.source,
                "assumed": assumed,
            }
        )
    else:
        classes = f"{config.num_classes} classes" if config.num_classes else f"{config.network.num_features} features"
        print(f"{folder}: {config.architecture} {config.depth_multiplier:g}, {height}x{width}, {classes}")
        for text in assumed if isinstance(assumed, list) else ():
            print(f"  assumed: {text}")
        if isinstance(assumed, list) and is_open(assumed):
            print("  where it was trained on others, say on which: --pixels x/255, or --pixels x")
    return 0


def _read_labels(file: str) -> tuple[str, ...]:
    from mobilenet_hub.errors import InputError
    from mobilenet_hub.host.text import read_text
    from mobilenet_hub.weights.labels import plain_labels

    try:
        return plain_labels(read_text(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the labels {file} cannot be read: {error}") from None
