"""`mobilenet serve [MODULE...]`: modules over HTTP, with a page."""

import argparse
import re

from mobilenet_hub.cli.options import add_computing
from mobilenet_hub.cli.parser import mark_seldom
from mobilenet_hub.errors import InputError
from mobilenet_hub.host.environment import setting

EXAMPLES = (
    "mobilenet serve",
    "mobilenet serve my_module --port 8000 --watch",
    "mobilenet serve --teach my_classes",
)

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
_TOKEN = "MOBILENET_HUB_TOKEN"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="what to serve (default: starter)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8080, help="the port; 0: any that is free (default: 8080)")
    parser.add_argument(
        "--queue", type=int, default=64, metavar="N", help="images waiting at a time; more get 503 (default: 64)"
    )
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="seconds for a request (default: %(default)g)"
    )
    parser.add_argument(
        "--max-body", type=byte_count, default="20MB", metavar="SIZE", help="the largest request (default: 20MB)"
    )
    parser.add_argument("--no-page", action="store_true", help="no web page")
    add_computing(parser)
    parser.add_argument("--index", metavar="FEATURES", help="answer /similar from what `mobilenet embed` wrote")
    parser.add_argument("--watch", action="store_true", help="open a module anew when its folder is replaced")
    parser.add_argument("--teach", metavar="FOLDER", help="let the page train modules, with its photos in FOLDER")
    access = parser.add_argument_group("who may ask")
    access.add_argument(
        "--token", metavar="T", help=f"demand this token; better in {_TOKEN}, where `ps` does not see it"
    )
    access.add_argument("--cors", action="append", default=[], metavar="ORIGIN", help="let pages of ORIGIN ask")
    parser.add_argument("--log-json", action="store_true", help="a line of JSON on standard error for each request")
    mark_seldom(parser, "--queue", "--timeout", "--max-body", "--cors", "--log-json")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    from mobilenet_hub.serve.limits import Limits
    from mobilenet_hub.serve.run import Settings, serve
    from mobilenet_hub.serve.served import Options

    _check(args)
    settings = Settings(
        modules=args.modules or ["starter"],
        host=args.host,
        port=args.port,
        limits=Limits(args.queue, args.timeout, args.max_body),
        options=Options(args.precision, args.image_size, args.fit, args.threads, args.any_size, args.engine),
        token=args.token if args.token is not None else setting(_TOKEN) or None,
        origins=tuple(origin.lower() for origin in args.cors),
        page=not args.no_page,
        index=args.index,
        watch=args.watch,
        teach=args.teach,
        log_json=args.log_json,
    )
    serve(settings, lambda line: print(line, flush=True))
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.queue < 1:
        raise InputError(f"--queue must be 1 or more, not {args.queue}")
    if not 0 < args.timeout <= 3600:
        raise InputError(f"--timeout must be above 0 and at most 3600 seconds, not {args.timeout:g}")
    if args.token is not None and (not args.token or args.token.strip() != args.token or not args.token.isprintable()):
        raise InputError(
            "--token must be a text without blanks around it, and not empty: is the variable set that it came from?"
        )
    for origin in args.cors:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
            raise InputError(f"--cors must be an origin such as https://example.org, or *, not {origin!r}")


def byte_count(text: str) -> int:
    """Read a number of bytes.

    Raises:
        argparse.ArgumentTypeError: it is none.

    Example:
        >>> byte_count("20MB"), byte_count("64KiB"), byte_count("1000")
        (20000000, 65536, 1000)
    """
    found = re.fullmatch(r"(\d{1,12})\s*([KMG]I?)?B?", text.strip().upper())
    value = int(found[1]) * _UNITS[found[2] or ""] if found else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, as 20MB or 500KB")
    return value
