"""What a file is where its name does not tell, and what every command that searches folders says it passed over."""

import io
import json
import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies
from PIL import Image
from reference_network import random_weights

from mobilenet_hub.cli.main import main
from mobilenet_hub.images.content import begins_as_picture
from mobilenet_hub.images.inputs import count, items
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module

KINDS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF")


def picture(number, kind="PNG"):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
    Image.fromarray(pixels).resize((60, 50)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_without_a_suffix_is_known_by_its_content(kind):
    assert begins_as_picture(picture(1, kind))


@given(strategies.one_of(strategies.binary(max_size=40), strategies.text(max_size=40).map(str.encode)))
def test_other_bytes_are_no_picture(data):
    if not data.startswith((b"\xff", b"\x89", b"GIF", b"II", b"MM", b"BM", b"RIFF", b"\0")) and data[4:8] != b"ftyp":
        assert not begins_as_picture(data)


def test_texts_that_begin_like_pictures_are_none():
    for text in (
        b"BM is short for British Museum",
        b"II. The second chapter",
        b"RIFF and RAFF",
        b"PK",
        b"",
        b"\xff\xd8",
    ):
        assert not begins_as_picture(text)


ODD_NAMES = ("IMG_1", "2019.05.12", "photo.jpg_large", "photo.jpg?w=64", "1.2", "no suffix at all", "a.1")
FOLLOWED = ("two.mpo", "three.pjpeg", "four.apng", "five.hif", "six.JXL", "seven.jp2", "eight.HEICS")
PASSED_OVER = {
    "a.txt": ".txt",
    "b.TXT": ".txt",
    "c.json": ".json",
    "inner.zip": ".zip",
    "raw.dng": ".dng",
    "README": "",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Photos of odd names beside files that are none, though some of them hold the bytes of a photo."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "photos" / "more"
    place.mkdir(parents=True)
    for number, name in enumerate((*ODD_NAMES, *FOLLOWED)):
        (place / name).write_bytes(picture(number))
    for name in PASSED_OVER:
        (place / name).write_bytes(b"no picture" if name == "README" else picture(99))
    for name in ("Thumbs.db", "desktop.ini", ".hidden", ".DS_Store", "@SynoResource"):
        (place / name).write_bytes(picture(99))
    if hasattr(os, "mkfifo"):
        os.mkfifo(place / "pipe")  # which is not waited for
    return tmp_path / "photos"


def archive(folder, kind):
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if kind == "zip":
        with zipfile.ZipFile("photos.packed", "w", zipfile.ZIP_DEFLATED) as packed:
            for file in files:
                packed.write(file, file.relative_to(folder.parent))
    else:
        with tarfile.open("photos.packed", kind) as packed:
            for file in files:
                packed.add(file, file.relative_to(folder.parent))
    return "photos.packed"


@pytest.mark.parametrize("kind", ["folder", "glob", "zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_names_that_say_nothing_are_looked_into(folder, kind):
    """In folders and in archives, which are known by their content too."""
    inputs = {"folder": "photos", "glob": "photos/*"}.get(kind) or archive(folder, kind)
    passed_over = Counter()
    found = {Path(item.key).name: item.read() for item in items([inputs], passed_over=passed_over)}
    assert found == {name: picture(number) for number, name in enumerate((*ODD_NAMES, *FOLLOWED))}
    expected = Counter(PASSED_OVER.values())
    if kind in ("folder", "glob"):
        expected[""] += hasattr(os, "mkfifo")
    assert passed_over == expected
    assert count([inputs]) in (len(found), None)


COMMANDS = (
    "classify photos",
    "classify photos --json",
    "classify photos -o labels.csv",
    "embed photos -o features",
    "embed photos -o features --json",
    "dedupe photos",
    "similar photos --in made",
    "evaluate module labelled",
    "check labelled",
    "train labelled -o trained --module module --test 0.3",
)


@pytest.mark.parametrize("words", COMMANDS)
def test_what_is_passed_over_is_counted_once_at_the_end(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 2, labels=("ant", "bee"))
    write_module(tmp_path / "module", Module(config, random_weights(config.network)))
    for number in range(24):
        for file in (f"photos/{number}.png", f"labelled/{('ant', 'bee')[number % 2]}/{number}.png"):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_bytes(picture(number))
    for place in ("photos", "labelled/ant"):
        for name in ("1.txt", "2.txt", "3.json", "README"):
            Path(place, name).write_text("no picture")
        for name in ("Thumbs.db", "desktop.ini"):
            Path(place, name).write_bytes(picture(1))
    if "made" in words:
        assert main(["embed", "photos", "--module", "module", "-o", "made", "--quiet"]) == 0
    module = [] if "module" in words or "similar" in words else ["--module", "module"]
    status = main([*words.split(), *module])
    told = capsys.readouterr()
    assert status == (1 if words.startswith("check") else 0), told.err  # which finds that the photos are few
    line = "4 files that are no pictures were passed over: 2 .txt, 1 .json, 1 without a suffix"
    assert told.err.count("passed over") == told.err.count(line) == 1
    if "--json" in words:
        assert json.loads(told.out)["passed_over"] == {".txt": 2, ".json": 1, "": 1}
    assert "passed over" not in told.out.replace('"passed_over"', "")
