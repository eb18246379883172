"""The options that several commands share: each is declared here, once, and read here from its text.

A command's `configure` calls those it takes; what one command alone takes stands in its own file. The name that an
option has in `args` is that of the Python argument which it becomes, so that `as_flags` can translate errors.
"""

import argparse
import re

from mobilenet_hub.cli.parser import mark_seldom
from mobilenet_hub.errors import InputError

PUBLISHED_HELP = "a TF Hub or Kaggle handle or URL, a short name"
MODULE_HELP = f"a module folder, {PUBLISHED_HELP}, or starter"
LABELLED_HELP = "a folder with a subfolder of photos for each class, or a table of path,label"


def add_images(parser: argparse.ArgumentParser) -> None:
    """Declare IMAGES."""
    from mobilenet_hub.images.inputs import HELP

    parser.add_argument("images", nargs="+", metavar="IMAGES", help=HELP)


def add_labelled_folder(parser: argparse.ArgumentParser) -> None:
    """Declare FOLDER, of labelled photos."""
    parser.add_argument("folder", metavar="FOLDER", help=LABELLED_HELP)


def add_module(parser: argparse.ArgumentParser) -> None:
    """Declare --module, which without is the starter."""
    parser.add_argument("--module", default="starter", metavar="MODULE", help="the module to use (default: starter)")


def add_computing(parser: argparse.ArgumentParser, *, int8: bool = False) -> None:
    """Declare all that says how images are computed.

    Args:
        parser: the command's.
        int8: whether --precision may be int8.
    """
    add_fit(parser)
    add_precision(parser, "auto, f32 or bf16" + ("; for an output also int8, calibrated with your first images" * int8))
    add_image_size(parser)
    add_any_size(parser)
    add_threads(parser)
    add_engine(parser)


def add_fit(parser: argparse.ArgumentParser) -> None:
    """Declare --fit."""
    parser.add_argument("--fit", metavar="FIT", help="how images of another shape are fitted (docs/images.md)")


def add_precision(parser: argparse._ActionsContainer, choices: str = "auto, f32 or bf16") -> None:
    """Declare --precision, of the inference."""
    parser.add_argument("--precision", default="auto", metavar="P", help=f"{choices} (default: auto)")


def add_image_size(
    parser: argparse.ArgumentParser, help: str = "another size than the module was trained at", *, free: bool = False
) -> None:
    """Declare --image-size.

    Args:
        parser: the command's.
        help: what the size is here.
        free: whether it may also be "free".
    """
    read, metavar = (_size_or_free, "N|HxW|free") if free else (image_size, "N|HxW")
    parser.add_argument("--image-size", type=read, metavar=metavar, help=help)


def add_any_size(parser: argparse.ArgumentParser) -> None:
    """Declare --any-size."""
    parser.add_argument("--any-size", action="store_true", help="insist on a size that the module does not allow")
    mark_seldom(parser, "--any-size")


def add_force(parser: argparse._ActionsContainer, help: str) -> None:
    """Declare --force: replace what is there. Python's word for it is `overwrite`."""
    parser.add_argument("--force", dest="overwrite", action="store_true", help=help)


def add_open(parser: argparse._ActionsContainer) -> None:
    """Declare --open, of the page that is written."""
    parser.add_argument("--open", action="store_true", help="show the page in the browser")


def check_open(asked: bool, page: str | None, flag: str) -> None:
    """Refuse --open where no page is written.

    Args:
        asked: whether it was given.
        page: the page's file, if any.
        flag: how one is asked for.

    Raises:
        InputError: there is nothing to open.
    """
    if asked and not page:
        raise InputError(f"`open` shows the page: name its file with {flag}")


def add_engine(parser: argparse._ActionsContainer, choices: str = "auto, litert or openvino") -> None:
    """Declare --engine."""
    parser.add_argument("--engine", default="auto", metavar="E", help=f"what computes: {choices} (docs/engine.md)")


def add_threads(parser: argparse.ArgumentParser, but: str = "") -> None:
    """Declare --threads, of decoding and of computing; `but` says what they are not of."""
    help = f"use N threads (default: one for each core){but}"
    parser.add_argument("--threads", type=_threads, metavar="N", help=help)


def image_size(text: str) -> int | tuple[int, int]:
    """Read an image size: a side, or height and width.

    Raises:
        argparse.ArgumentTypeError: neither of the two.

    Example:
        >>> image_size("224"), image_size("192x256")
        (224, (192, 256))
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.lower())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels, as 224 or 192x256 (height x width)")
    return (int(found[1]), int(found[2])) if found[2] else int(found[1])


def as_flags(text: str, parser: argparse.ArgumentParser) -> str:
    """Return an error of the library with the command's flags in place of Python's arguments.

    The library writes `any_size=True`, `precision=int8`, `opset` between backquotes, or a name with an underscore.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_force(parser, "replace it")
        >>> add_image_size(parser)
        >>> as_flags("photos/image_size is there: image_size=224, or `overwrite`, or overwrite=True", parser)
        'photos/image_size is there: --image-size 224, or --force, or --force'
    """
    for action in parser._actions:
        flag = next((option for option in action.option_strings if option.startswith("--")), None)
        if flag is None:
            continue
        name = re.escape(action.dest)
        text = re.sub(rf"`{name}`|(?<![\w/.-]){name}=True\b", flag, text)
        text = re.sub(rf"(?<![\w/.-]){name}=(?=\w)", f"{flag} ", text)
        if "_" in name:
            text = re.sub(rf"(?<![\w/.'\"-]){name}(?![\w/.'\"=-])", flag, text)
    return text


def _size_or_free(text: str) -> int | tuple[int, int] | str:
    try:
        return "free" if text.lower() == "free" else image_size(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pixels (224 or 192x256) nor free") from None


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads from 1")
    return int(text)
