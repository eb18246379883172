"""What the pages are made of: their frame, cards, tables, small pictures.

A page holds everything that it shows, for screens in light and dark and for paper. Nothing on it is fetched from
anywhere.
"""

import base64
import io
import os
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files

from mobilenet_hub.host.ownership import MARK

_PICTURE_SIZE = 192  # pixels on the longer side; shown at about 140


def page(title: str, lead: str, sections: Iterable[str]) -> str:
    """Return a whole page as HTML.

    Example:
        >>> "<h1>cats</h1>" in page("cats", "", [])
        True
    """
    return (
        f'<!doctype html>\n<!-- {MARK} -->\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head>\n<body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>\n'
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )


@cache
def _style() -> str:
    return files("mobilenet_hub.evaluation").joinpath("style.css").read_text("utf-8")


def card(heading: str, body: str, explanation: str) -> str:
    """Return a section with a heading."""
    text = f'<p class="explain">{escape(explanation)}</p>' if explanation else ""
    return f'<section class="card"><h2>{escape(heading)}</h2>{text}{body}</section>'


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """Return a table whose last `numbers` columns are aligned to the right."""
    kinds = [' class="number"' if index >= len(headings) - numbers else "" for index in range(len(headings))]
    head = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(kinds, headings, strict=True))
    lines = ("".join(f"<td{kind}>{escape(text)}</td>" for kind, text in zip(kinds, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def thumbnail(path: str | os.PathLike[str]) -> str:
    """Return a small JPEG of a photo in base64; empty where the file has gone meanwhile."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image.draft("RGB", (_PICTURE_SIZE, _PICTURE_SIZE))
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return ""
    upright.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE))
    stream = io.BytesIO()
    upright.save(stream, "JPEG", quality=80, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
