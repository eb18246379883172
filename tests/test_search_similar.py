"""`similar` from the command line: every form of its output, odd names, archives; and who may not ask."""

import csv
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from feature_folders import MADE_WITH, write_features
from pyarrow import parquet  # noqa: TID253
from test_search_dedupe import picture

import mobilenet_hub as hub
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError
from mobilenet_hub.search.tables import read_table

FIT = "pad"
NAMES = ["a.png", "b,c.png", 'q"q.png', "two\nlines.png", "=cmd.png", "#h.png", os.fsdecode(b"n\xff.png")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(NAMES):
        with (folder / name).open("wb") as stream:
            picture(number).save(stream, "PNG")
    return folder


@pytest.fixture(scope="module")
def features(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "features"
    assert main(["embed", str(photos), "-o", str(folder), "--quiet"]) == 0
    return folder


def test_every_form(photos, features, tmp_path, capsys):
    words = ["similar", str(photos), "--in", str(features), "-k", "2", "--quiet"]
    for kind in ("csv", "jsonl", "parquet", "html"):
        assert main([*words, "-o", str(tmp_path / f"s.{kind}")]) == 0
    tables = [read_table(tmp_path / f"s.{kind}") for kind in ("csv", "jsonl", "parquet")]
    seen = [[(row["photo"], int(row["rank"]), row["path"]) for row in table] for table in tables]
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 2 * len(NAMES)
    assert all(photo == path for photo, rank, path in seen[0] if rank == 1)
    page = (tmp_path / "s.html").read_text()
    assert page.count("data:image/jpeg;base64") == 3 * len(NAMES)
    assert "http:" not in page
    assert "https:" not in page
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["photos"]) == len(NAMES)


def test_photos_of_an_archive_are_on_the_page(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("p.zip", "w") as archive:
        for name in NAMES[:3]:
            archive.write(photos / name, f"inside/{name}")
    assert main(["embed", "p.zip", "-o", "f", "--quiet"]) == 0
    assert main(["similar", "p.zip", "--in", "f", "-k", "3", "-o", "s.html", "--quiet"]) == 0
    assert Path("s.html").read_text().count("data:image/jpeg;base64") == 12
    assert main(["dedupe", "p.zip", "--threshold", "0.01", "-o", "g.html", "--quiet"]) == 0
    assert Path("g.html").read_text().count("data:image/jpeg;base64") == 3


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"weights_sha256": "1" * 64}, "weights have SHA-256 111111111111"),
        ({"precision": "int8"}, "was made in int8"),
        ({"module": "nowhere/at all"}, "is not found from here"),
        ({"fit": None}, "does not say which fit"),
        ({"image_size": None}, "does not say which image_size"),
    ],
)
def test_another_module_is_refused_with_the_reason(tmp_path, photos, features, changed, reason):
    table = parquet.read_table(next(features.glob("*.parquet")))
    made = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    prefix = next(key for key in made if key.endswith("weights_sha256")).removesuffix("weights_sha256")
    for name, value in changed.items():
        made.pop(prefix + name)
        if value is not None:
            made[prefix + name] = value
    parquet.write_table(table.replace_schema_metadata(made), tmp_path / "f.parquet")
    with pytest.raises(InputError, match=reason):
        hub.similar(photos / "a.png", tmp_path / "f.parquet")
    assert main(["similar", str(photos / "a.png"), "--in", str(tmp_path / "f.parquet")]) == 2


def test_queries_have_the_size_fit_and_precision_of_the_collection(photos, tmp_path):
    words = ["embed", str(photos), "--image-size", "96", "--fit", FIT, "--precision", "f32", "--quiet"]
    assert main([*words, "-o", str(tmp_path / "f")]) == 0
    found = hub.similar(photos / "b,c.png", tmp_path / "f", k=1)[0][0]
    assert Path(found.path).name == "b,c.png"
    assert found.similarity > 0.99999
    searcher = hub.Searcher(tmp_path / "f")
    assert (searcher.embedder.image_size, searcher.embedder.fit) == ((96, 96), FIT)


def test_a_stream_of_photos(photos, features, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xffno")
    searcher, skipped = hub.Searcher(features), []
    stream = searcher.stream([tmp_path, photos], 1, skipped=skipped)
    assert [name for name, matches in stream if matches[0].path == name] == [str(photos / n) for n in sorted(NAMES[:6])]
    assert [Path(name).name for name, _ in skipped] == ["bad.jpg"]
    with pytest.raises(hub.ImageError):
        list(searcher.stream([tmp_path], 1))


def test_shards_in_another_order_are_noticed(tmp_path, monkeypatch):
    from mobilenet_hub.search import similar

    monkeypatch.setattr(similar, "_SMALL", 0)
    vectors = np.random.default_rng(0).random((300, 16), np.float32)
    folder = write_features(tmp_path / "f", vectors, shard_size=100)
    hub.Searcher(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"].reverse()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = hub.Searcher(folder).nearest(vectors[[5, 299]], 1)
    assert [matches[0].path for matches in found] == ["photos/000005.jpg", "photos/000299.jpg"]
    assert MADE_WITH["fit"] == "center"


def test_names_in_tables_are_no_formulas(photos, features, tmp_path, monkeypatch):
    """A spreadsheet computes what begins with =, + or @; the path means the same with ./ before it."""
    monkeypatch.chdir(photos)
    assert main(["similar", "=cmd.png", "--in", str(features), "-o", str(tmp_path / "s.csv"), "--quiet"]) == 0
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text("utf-8").splitlines()))
    assert {row["photo"] for row in rows} == {"./=cmd.png"}
