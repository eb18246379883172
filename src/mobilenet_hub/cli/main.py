"""The command `mobilenet`: finds the command's file, parses, runs, and turns errors into one line and an exit status.

Each command is a file of this folder with `EXAMPLES`, `configure(parser)` and `run(args) -> int`; only the one asked
for is imported, so `mobilenet --help` stays quick.

Exit status: 0 done, 1 done but some inputs were bad (each named), 2 not done, 130 interrupted.
"""

import argparse
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper

from mobilenet_hub.cli.parser import CommandParser
from mobilenet_hub.errors import DownloadError, InputError, MobileNetHubError
from mobilenet_hub.version import __version__

COMMANDS: dict[str, str] = {
    "models": "list the published modules: size, features, MACs, parameters, accuracy, what is in the cache",
    "info": "say everything about one module",
    "pull": "fetch modules into the cache, verified",
    "cache": "show, verify and tidy the cache of modules",
    "convert": "turn any supported weights file or folder into a module folder",
    "classify": "label images with scores",
    "embed": "write the feature vectors of many images to Parquet or NPY; resumable",
    "merge": "put the parts of a bulk run together, verified",
    "similar": "find the nearest photos of an embedded collection",
    "dedupe": "find groups of (nearly) equal photos, with the one to keep; nothing is deleted",
    "check": "find what is wrong with labelled photos before training: copies, wrong labels, bad pictures",
    "train": "train a classifier on class folders of images, with a report",
    "evaluate": "measure a module on class folders: accuracy, confusion matrix, worst mistakes",
    "export": "write a module as SavedModel, ONNX, OpenVINO, LiteRT or Keras, each re-run and compared",
    "serve": "answer over HTTP: our own requests, TensorFlow Serving's and KServe's, and a page",
    "bench": "measure speed here: decoding, inference, end to end",
    "doctor": "show versions, CPU features, backends and the cache",
    "completion": "print a script with which bash, zsh or tcsh completes all of this",
}

# Which arguments of which commands may be addresses in an object store.
_TAKE_ADDRESSES = {
    "embed": ("images", "output", "list"),
    "classify": ("images", "output", "list"),
    "merge": ("outputs", "output"),
}

_EXIT_NOT_DONE = 2
_EXIT_INTERRUPTED = 130
_EXIT_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        argv: the words after `mobilenet`; None: those of this process.

    Example:
        >>> main(["--version"])
        mobilenet-hub 0.1.0
        0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    options = []  # those common to all commands may also stand before the command
    while words and words[0] in ("--json", "--quiet", "--debug"):
        options.append(words.pop(0))
    if not words or words[0] in ("-h", "--help"):
        return _printed(overview(), 0 if words else _EXIT_NOT_DONE)
    if words[0] in ("-V", "--version"):
        return _printed(f"mobilenet-hub {__version__}", 0)
    command = words[0]
    if command not in COMMANDS:
        return _refuse(unknown_command(command))
    try:
        parser = command_parser(command)
        args = parser.parse_words(options + words[1:])
    except SystemExit as exit_request:  # argparse's way to end: --help, or a usage error that it has printed
        return int(exit_request.code or 0)
    try:
        _demand_local(command, args)
    except InputError as error:
        return _refuse(str(error))
    status = _run(import_module(f"mobilenet_hub.cli.{command}").run, args, parser)
    if status == _EXIT_INTERRUPTED and argv is None:
        _leave_decoding()
    return status


def _demand_local(command: str, args: argparse.Namespace) -> None:
    """Refuse an address in an object store where the command takes none."""
    from mobilenet_hub.host.stores import demand_local

    for name, value in vars(args).items():
        if name not in _TAKE_ADDRESSES.get(command, ()):
            for one in value if isinstance(value, list) else [value]:
                demand_local(one, f"what `mobilenet {command}` takes here")


def _leave_decoding() -> None:
    """End the process where threads still decode: Python's own end would wait for pictures of many seconds."""
    if any(thread.name.startswith("decode") for thread in threading.enumerate()):
        from mobilenet_hub.images.apart import end_all

        end_all()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_EXIT_INTERRUPTED)


def overview() -> str:
    """Return the text of `mobilenet --help`."""
    lines = [
        "usage: mobilenet COMMAND [...]",
        "",
        "MobileNet V1 and V2, exact and fast: classify, embed, retrain and export.",
        "",
        "commands:",
        *(f"  {name:<10} {text}" for name, text in COMMANDS.items()),
        "",
        "For every command: --json, --quiet, --debug, and --help for its options and examples. --version: the version.",
        "MODULE is a module folder, a TF Hub or Kaggle handle or URL, a short name such as",
        "mobilenet_v2_130_224/feature_vector, or `starter`. IMAGES: files, folders, globs, or - for a list on stdin.",
    ]
    return "\n".join(lines)


def unknown_command(command: str) -> str:
    """Return the error for a command that does not exist, with the nearest that does."""
    near = get_close_matches(command, COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean `mobilenet {near[0]}`?" if near else f"choose one of: {', '.join(COMMANDS)}"
    return f"there is no command {command!r}; {hint}"


def command_parser(command: str) -> CommandParser:
    """Return the parser of a command, with all that it takes."""
    file = import_module(f"mobilenet_hub.cli.{command}")
    parser = CommandParser(command, COMMANDS[command], file.EXAMPLES)
    file.configure(parser)
    parser.add_common()
    return parser


def _prepare_streams() -> None:
    """Make any name of a file printable, and printing possible where a stream was closed by who started the process."""
    sys.stdout, sys.stderr = (
        stream or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (until the end; pathlib takes time)
        for stream in (sys.stdout, sys.stderr)
    )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _printed(text: str, status: int) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return _leave_broken_pipe()
    return status


def _leave_broken_pipe() -> int:
    """The reader (`| head`) has gone: Python's own flush at exit must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _EXIT_BROKEN_PIPE


def _run(run: Callable[[argparse.Namespace], int], args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        with warnings.catch_warnings():
            if not args.debug:
                warnings.showwarning = _show_warning
                warnings.filterwarnings("ignore", module="PIL")  # of metadata, without a file's name
            status = run(args)
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        return _leave_broken_pipe()
    except KeyboardInterrupt as stop:
        kept = getattr(stop, "__notes__", [])[:1]  # the innermost place of unfinished work says where it is
        print("; ".join(["interrupted", *kept]), file=sys.stderr)
        return _EXIT_INTERRUPTED
    except MobileNetHubError as error:
        if args.debug:
            raise
        from mobilenet_hub.cli.options import as_flags

        return _refuse(as_flags(str(error), parser), lines=isinstance(error, DownloadError))
    except Exception as error:
        if args.debug:
            raise
        if isinstance(error, OSError) and error.filename:  # a folder that may not be entered, a name too long
            return _refuse(f"{error.filename}: {error.strerror}")
        return _refuse(f"unexpected {type(error).__name__}: {error} (add --debug for the traceback)")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _refuse(text: str, *, lines: bool = False) -> int:
    """Print an error on one line; one of several sources keeps its line for each."""
    text = text if lines else " ".join(text.split())
    print(f"mobilenet: {text}", file=sys.stderr)
    return _EXIT_NOT_DONE


if __name__ == "__main__":
    sys.exit(main())
