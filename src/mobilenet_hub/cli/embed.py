"""`mobilenet embed IMAGES... -o OUT`: the feature vectors of many images, resumable."""

import argparse

from mobilenet_hub.cli.bulk_run import add_bulk_options, open_model, run_bulk
from mobilenet_hub.cli.options import add_module

EXAMPLES = (
    "mobilenet embed photos -o features",
    "mobilenet embed photos.tar -o features.parquet --module mobilenet_v2_100_224/feature_vector",
    "mobilenet embed photos -o features --part 0/8",
)

HELP_OUTPUT = "a folder of Parquet shards, or one file ending in .parquet or .npy"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help=HELP_OUTPUT)
    add_module(parser)
    parser.add_argument("--float16", action="store_true", help="features of 16 bits: half the room, 3 decimal digits")
    add_bulk_options(parser)


def run(args: argparse.Namespace) -> int:
    """Embed; 1 where an image could not be."""
    from mobilenet_hub.bulk.rows import feature_rows
    from mobilenet_hub.inference.embed import Embedder

    module, embedder = open_model(args, Embedder)
    rows = feature_rows(embedder.num_features, half=args.float16)
    return run_bulk("embed", args, embedder, rows, {"dtype": "float16" if args.float16 else "float32"}, module)
