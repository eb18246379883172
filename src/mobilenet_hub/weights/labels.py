"""The labels that people keep beside a model's file, and those that are inside it.

Teachable Machine writes labels.txt and metadata.json, retrain.py retrained_labels.txt or output_labels.txt, LiteRT's
metadata a text file behind the model. They are taken where there are as many as classes.
"""

import io
import json
import re
import zipfile
import zlib
from pathlib import Path

from mobilenet_hub.errors import CorruptFileError
from mobilenet_hub.weights.archive import zip_of

FILES = ("labels.txt", "retrained_labels.txt", "output_labels.txt", "label.txt", "class_names.txt", "classes.txt")
METADATA_FILE = "metadata.json"
_NUMBERED = re.compile(r"(\d+)[\s:,]+(\S.*)")
_MAX_BYTES = 16 << 20


def plain_labels(text: str) -> tuple[str, ...]:
    r"""Return the labels of a text with one a line; numbers before them go where every line i begins with i.

    Example:
        >>> plain_labels("0 Cat\n1 Dog\n"), plain_labels("500\n100\n")
        (('Cat', 'Dog'), ('500', '100'))
    """
    lines = [" ".join(line.split()) for line in text.removeprefix("\ufeff").strip().splitlines()]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if all(one and int(one[1]) == at for at, one in enumerate(numbered)):
        return tuple(one[2] for one in numbered if one)
    return tuple(lines)


def labels_beside(path: Path, num_classes: int) -> tuple[str, ...] | None:
    """Return the labels that lie in a model's folder, or beside it, if there are as many as classes.

    Args:
        path: the model's file, or its folder.
        num_classes: how many there must be.
    """
    for folder in (path, path / "assets", path.parent) if path.is_dir() else (path.parent,):
        for name in (*FILES, METADATA_FILE):
            if (labels := _read(folder / name)) and len(labels) == num_classes:
                return labels
    return None


def labels_inside(data: bytes, num_classes: int) -> tuple[str, ...] | None:
    """Return the labels that are attached to a LiteRT file as a zip archive behind it, if there are as many as classes.

    Source: tensorflow/lite/schema/metadata_schema.fbs, AssociatedFile.
    """
    try:
        with zip_of(io.BytesIO(data), Path("labels")) as archive:
            for info in archive.infolist()[:16]:
                if info.filename.lower().endswith(".txt") and info.file_size <= _MAX_BYTES:
                    labels = plain_labels(archive.read(info).decode("utf-8"))
                    if len(labels) == num_classes:
                        return labels
    except (CorruptFileError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError):
        return None
    except (ValueError, OSError):
        return None
    return None


def _read(file: Path) -> tuple[str, ...] | None:
    """Return the labels of a file, None where it is none or says something else."""
    try:
        if not file.is_file() or file.stat().st_size > _MAX_BYTES:
            return None
        data = file.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
        if file.name != METADATA_FILE:
            return plain_labels(text)
        labels = json.loads(text).get("labels")
        return tuple(" ".join(str(label).split()) for label in labels) if isinstance(labels, list) else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
