"""Publishing: a folder that any static web server serves as TF Hub did, and that MOBILENET_HUB_MIRROR can name.

`https://host/<handle>?tf-hub-format=compressed` is the file <handle>: a .tar.gz of the SavedModel, without an ending.
docs/export.md has what a server must be told.
"""

import gzip
import io
import os
import re
import tarfile
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.exporting import tf_hub
from mobilenet_hub.exporting.output import PROOF_FILE, Place, finished_at
from mobilenet_hub.exporting.proof import Proof, prove
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.host.files import replacing
from mobilenet_hub.weights.archive import unpack

HEADERS_FILE = "_headers"  # as Netlify and Cloudflare Pages read it
_AS_GZIP = "  Content-Type: application/gzip\n"
_OUR_RULES = re.compile(rb"(/\S+\n" + _AS_GZIP.encode() + rb")*")
_HANDLE = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)+", re.ASCII)


def publish(request: Request, site: str | os.PathLike[str], *, overwrite: bool = False) -> Proof:
    """Add a module to a site; other modules there stay.

    Args:
        request: the module, and the handle to publish it under (None: its own).
        site: the site's folder, made where it is missing.
        overwrite: replace the module where the site has it already.

    Raises:
        InputError: the module has no handle and none was given, or it is no path.
        OutputError: the site has the handle already, or cannot be written.
        ProofError: the SavedModel does not give what the module gives; nothing was kept.
    """
    handle = _checked_handle(request)
    root = Path(site).expanduser().absolute()
    archive = root / handle
    if archive.is_dir():
        raise OutputError(f"{archive} is a folder: the site has modules below that handle")
    if archive.exists() and not overwrite:
        raise OutputError(f"{archive} exists; publish another version, or replace it with overwrite=True")
    with finished_at(Place(archive, archive.name, is_file=True, overwrite=overwrite)) as work:
        with tempfile.TemporaryDirectory(dir=work.parent) as scratch:
            model, unpacked = Path(scratch) / "model", Path(scratch) / "unpacked"
            tf_hub.write(request, model)
            (work / archive.name).write_bytes(_packed(model))
            unpack(work / archive.name, unpacked)  # what visitors get is what is proven
            size = (work / archive.name).stat().st_size
            proof = prove(request, tf_hub.load(request, unpacked), archive, size)
        proof = replace(proof, choices={**proof.choices, "handle": handle})
        proof.write(work / PROOF_FILE)
    _add_headers(root / HEADERS_FILE, handle)
    return proof


def _checked_handle(request: Request) -> str:
    handle = request.handle or request.config.handle
    if handle is None:
        raise InputError(
            "a site needs a name to publish the module under, as publisher/name/1: give it with handle=NAME"
        )
    handle = handle.removeprefix("https://tfhub.dev/")
    if not _HANDLE.fullmatch(handle):
        raise InputError(f"the handle must be words of letters, digits, - _ and . joined by /, not {handle!r}")
    return handle


def _packed(folder: Path) -> bytes:
    """Return a folder as .tar.gz, the same bytes for the same files: no dates, no owners."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            entry = archive.gettarinfo(path, path.relative_to(folder).as_posix())
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            entry.mode = 0o755 if path.is_dir() else 0o644
            if path.is_dir():
                archive.addfile(entry)
            else:
                with path.open("rb") as content:
                    archive.addfile(entry, content)
    return buffer.getvalue()


def _add_headers(file: Path, handle: str) -> None:
    """Have hosts that read such a file send the archive as what it is: its name has no ending to tell it by.

    A file that holds anything but such rules is the user's, and stays.
    """
    rule = f"/{handle}\n{_AS_GZIP}".encode()
    try:
        there = file.read_bytes() if file.exists() else b""
        if rule in there:
            return
        if not _OUR_RULES.fullmatch(there):
            said = rule.decode().strip().replace("\n", " / ")
            warnings.warn(f"{file} has rules of your own and stays as it is; add to it: {said}", stacklevel=2)
            return
        with replacing(file) as stream:
            stream.write(there + rule)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}") from None
