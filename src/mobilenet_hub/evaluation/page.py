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
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from mobilenet_hub.errors import OutputError
from mobilenet_hub.host.files import replacing
from mobilenet_hub.host.ownership import MARK

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SHOWN = 500  # pictures on a page; each takes some 10 kB
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


def write_page(path: str | os.PathLike[str], text: str) -> None:
    """Write a page's file, whole or not at all; `check_file_place` says beforehand whether it may be.

    Raises:
        OutputError: it cannot be written; what was there is there still.
    """
    try:
        with replacing(Path(path)) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None


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


def thumbnail(path: str | os.PathLike[str] | BinaryIO) -> str:
    """Return a small JPEG of a photo in base64; empty where the file has gone, or is too large to show."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image.draft("RGB", (_PICTURE_SIZE, _PICTURE_SIZE))
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    return jpeg(upright)


def jpeg(picture: "Image | np.ndarray", size: int = _PICTURE_SIZE) -> str:
    """Return a picture as a JPEG in base64.

    Args:
        picture: in RGB; an array is uint8 [height, width, 3].
        size: the most pixels on the longer side; a larger picture is reduced.
    """
    from PIL import Image

    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.thumbnail((size, size))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def figure(source: str, alt: str, caption: str, file: str = "", hint: str = "") -> str:
    """Return a picture with what stands beneath it; without a source the words alone.

    Args:
        source: a JPEG in base64.
        alt: what it shows, for those who do not see it.
        caption: markup.
        file: a file's name, beneath the caption.
        hint: shown where the mouse rests on it.
    """
    image = f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{source}">' if source else ""
    title = f' title="{escape(hint)}"' if hint else ""
    name = f'<span class="file">{escape(file)}</span>' if file else ""
    return f"<figure{title}>{image}<figcaption>{caption}{name}</figcaption></figure>"
