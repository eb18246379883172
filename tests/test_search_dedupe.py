"""Copies are found, kept apart from what is alike, grouped as stars, and moved with a way back."""

import csv
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from feature_folders import clustered, write_features
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

import mobilenet_hub as hub
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError
from mobilenet_hub.search import stars
from mobilenet_hub.search.dedupe import Keep
from mobilenet_hub.search.features import Features, directions
from mobilenet_hub.search.hashes import hashes_of, signs
from mobilenet_hub.search.stars import find_stars
from mobilenet_hub.search.threshold import Threshold, measure_threshold


def picture(seed, size=(160, 160)):
    """Something with shapes and colours, another for each seed."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(coarse)
    for _ in range(6):
        left, top, right, bottom = (int(v) for v in random.integers(0, size[0], 4))
        box = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        draw.ellipse(box, fill=tuple(int(v) for v in random.integers(0, 256, 3)))
    return coarse


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(60):
        picture(number).save(folder / f"{number:02d}.png")
    copies = folder / "copies"
    copies.mkdir()
    first = picture(0)
    first.save(copies / "jpeg.jpg", quality=40)
    first.convert("L").save(copies / "gray.jpg", quality=90)
    ImageOps.mirror(first).save(copies / "mirrored.png")
    first.resize((100, 100)).save(copies / "small.png")
    first.save(copies / "pixels.bmp")
    exif = Image.Exif()
    exif[0x112] = 6
    first.rotate(90, expand=True).save(copies / "turned.jpg", quality=95, exif=exif)
    shutil.copy(folder / "01.png", copies / "file.png")
    os.link(folder / "02.png", copies / "hard.png")
    (copies / "soft.png").symlink_to(folder / "02.png")
    (copies / "broken.jpg").write_bytes(b"\xff\xd8\xffno")
    return folder


def test_every_kind_of_copy(photos):
    found = hub.dedupe(photos, keep="first")
    kinds = {Path(group.keep).name: {Path(o.path).name: o.kind for o in group.others} for group in found}
    assert kinds["00.png"] == {
        **dict.fromkeys(["jpeg.jpg", "gray.jpg", "mirrored.png", "small.png", "turned.jpg"], "near"),
        "pixels.bmp": "same pixels",
    }
    assert kinds["01.png"] == {"file.png": "same file"}
    assert len(found) == 2
    assert found.links == 2
    assert [Path(name).name for name, _ in found.skipped] == ["broken.jpg"]
    assert found.photos == 69


def test_a_jpeg_saved_again_without_loss_has_the_same_pixels(tmp_path):
    """The network sees a large JPEG at a reduced scale and its PNG whole: their features differ a little."""
    picture(1, (900, 700)).save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "b.png")
        image.save(tmp_path / "c.jpg", quality=89)
    found = hub.dedupe(tmp_path, keep="first")
    kinds = {Path(other.path).name: other.kind for group in found for other in group.others}
    assert kinds == {"b.png": "same pixels", "c.jpg": "near"}


def test_which_one_is_kept(photos, tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    big, small = picture(1, (300, 300)), picture(1, (300, 300)).resize((150, 150))
    small.save(folder / "a.png")
    big.save(folder / "b.png")
    os.utime(folder / "b.png", (1e9, 1e9))
    kept: dict[Keep, str] = {"largest": "b.png", "oldest": "b.png", "first": "a.png"}
    for keep, name in kept.items():
        assert Path(hub.dedupe(folder, keep=keep)[0].keep).name == name
    os.utime(folder / "a.png", (9e8, 9e8))
    assert Path(hub.dedupe(folder, keep="oldest")[0].keep).name == "a.png"
    with pytest.raises(InputError, match="largest, oldest, first"):
        hub.dedupe(folder, keep="best")  # type: ignore[arg-type]


def test_the_command_moves_only_in_a_second_call_and_back(photos, tmp_path, capsys):
    folder = Path(shutil.copytree(photos, tmp_path / "p", symlinks=True))
    groups = tmp_path / "groups.csv"
    assert main(["dedupe", str(folder), "-o", str(groups), "--keep", "first", "--quiet"]) == 1  # one is broken
    before = sorted(p for p in folder.rglob("*") if p.is_file())
    rows = list(csv.DictReader(groups.read_text().splitlines()))
    assert {row["kind"] for row in rows} == {"", "same file", "same pixels", "near"}
    copies = [row["path"] for row in rows if row["keep"] == "false"]
    assert main(["dedupe", "--from", str(groups), "--move-to", str(tmp_path / "moved"), "--quiet"]) == 0
    assert not any(Path(path).exists() for path in copies)
    assert all(Path(row["path"]).exists() for row in rows if row["keep"] == "true")
    log = next((tmp_path / "moved").glob("moved-*.csv"))
    assert main(["dedupe", "--from", str(groups), "--move-to", str(tmp_path / "moved"), "--quiet"]) == 1  # all gone
    assert main(["dedupe", "--undo", str(log), "--quiet"]) == 0
    assert sorted(p for p in folder.rglob("*") if p.is_file()) == before
    assert main(["dedupe", str(folder), "--from", str(groups), "--move-to", "x"]) == 2


def test_nothing_is_moved_where_the_one_to_keep_is_gone(tmp_path):
    for name in "ab":
        picture(1).save(tmp_path / f"{name}.png")
    groups = tmp_path / "g.csv"
    assert main(["dedupe", str(tmp_path), "-o", str(groups), "--keep", "first", "--quiet"]) == 0
    (tmp_path / "a.png").unlink()
    assert main(["dedupe", "--from", str(groups), "--move-to", str(tmp_path / "m"), "--quiet"]) == 1
    assert (tmp_path / "b.png").exists()


def test_all_forms_of_the_output(photos, tmp_path):
    for name in ("g.csv", "g.jsonl", "g.parquet", "g.html"):
        assert main(["dedupe", str(photos), "-o", str(tmp_path / name), "--quiet"]) == 1
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["g.csv", "g.html", "g.jsonl", "g.parquet"]
    from mobilenet_hub.search.tables import read_table

    tables = [read_table(tmp_path / f"g.{kind}") for kind in ("csv", "jsonl", "parquet")]
    assert len({tuple(row["path"] for row in table) for table in tables}) == 1
    page = (tmp_path / "g.html").read_text()
    assert page.count("data:image/jpeg;base64") == len(tables[0])
    assert "http" not in page.replace("http-equiv", "")


def test_an_embedded_collection_and_another(photos, tmp_path):
    assert main(["embed", str(photos), "-o", str(tmp_path / "all"), "--quiet"]) == 1
    assert main(["embed", str(photos / "copies"), "-o", str(tmp_path / "some"), "--quiet"]) == 1
    found = hub.dedupe(tmp_path / "all")
    assert len(found) == 2
    assert found.hashed == 69
    inside = hub.dedupe(tmp_path / "some", against=tmp_path / "all", threshold=0.9999)
    assert {Path(other.path).parent.name for group in inside for other in group.others} <= {"copies"}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_photos(tmp_path, count):
    folder = tmp_path / "p"
    folder.mkdir()
    for number in range(count):
        picture(number).save(folder / f"{number}.png")
    assert len(hub.dedupe(folder)) == 0


def test_photos_all_equal_and_flat_ones(tmp_path):
    for number in range(30):
        picture(1).save(tmp_path / f"{number:02d}.png")
    found = hub.dedupe(tmp_path, keep="first")
    assert [len(group.others) for group in found] == [29]
    assert found.threshold.source == "too few photos to measure"


def stars_of(folder, vectors, cosine=0.97):
    threshold = Threshold(cosine, cosine, None, "given")
    return find_stars(Features(folder), np.arange(len(vectors)), threshold)


def planted(count, features=64):
    vectors = clustered(count, features)
    random = np.random.default_rng(5)
    copies = random.choice(np.arange(1, count), count // 10, replace=False)
    source = copies - 1
    vectors[copies] = vectors[source] * (1 + 0.02 * random.standard_normal((len(copies), features)))
    return vectors


def test_cells_find_what_comparing_all_finds(tmp_path, monkeypatch):
    vectors = planted(6000)
    folder = write_features(tmp_path / "f", vectors, shard_size=2048)
    whole = stars_of(folder, vectors)
    monkeypatch.setattr(stars, "_WHOLE", 500)
    cells = stars_of(folder, vectors)
    is_copy = whole.centre != np.arange(6000)
    assert is_copy.sum() >= 500
    same = (cells.centre != np.arange(6000)) == is_copy
    assert same.mean() > 0.999
    exact = directions(vectors)
    copies = np.flatnonzero(cells.centre != np.arange(6000))
    true = np.einsum("ij,ij->i", exact[copies], exact[cells.centre[copies]])
    assert np.abs(true - cells.similarity[copies]).max() < 1e-5
    assert true.min() >= 0.97 - 1e-5
    assert np.array_equal(cells.centre[cells.centre], cells.centre)  # stars, no chains


def test_hashes_tell_copies_from_photos_of_one_subject(tmp_path):
    """Rows at a cosine of 0.9 with row 0; what decides is in how many bits their hashes differ."""
    turned = np.array([[1, 0], *[[0.9, np.sqrt(1 - 0.81)]] * 3], np.float32)
    features = Features(write_features(tmp_path / "f", turned))
    plain = np.uint64(0x7FFF_FFFF_0000_0001)
    hashes = np.array([[plain ^ np.uint64(2**bits - 1), 0x5555_5555_5555_5555] for bits in (0, 20, 21, 40)], np.uint64)
    threshold = Threshold(0.92, 0.5, 1e-6, "measured", (0.89, 0.95))
    assert find_stars(features, np.arange(4), threshold, hashes).centre.tolist()[:2] == [0, 0]
    for row in (2, 3):
        assert find_stars(features, np.array([0, row, 1, 5 - row]), threshold, hashes).centre[row] != 0
    given = Threshold(0.89, 0.5, None, "given")
    assert find_stars(features, np.arange(4), given, hashes).centre.tolist() == [0, 0, 0, 0]


def test_very_many_equal_photos_take_little_time(tmp_path):
    vectors = np.tile(clustered(1, 64), (100_000, 1))
    folder = write_features(tmp_path / "f", vectors, half=True, shard_size=16384)
    start = time.monotonic()
    found = stars_of(folder, vectors)
    assert np.array_equal(found.centre, np.zeros(100_000))
    assert time.monotonic() - start < 120  # bounded; it takes a few seconds


def test_vectors_without_a_direction_are_no_copies(tmp_path):
    vectors = clustered(50, 16)
    vectors[3:6], vectors[7:9] = np.nan, 0
    folder = write_features(tmp_path / "f", vectors)
    assert np.array_equal(stars_of(folder, vectors, 0.999999).centre, np.arange(50))
    measure_threshold(Features(folder))


def test_what_means_nothing_is_refused(tmp_path):
    features = Features(write_features(tmp_path / "f", clustered(50, 16)))
    for options in ({"given": 1.5}, {"given": 0}, {"false_pairs": 0}, {"false_pairs": 2}):
        with pytest.raises(InputError, match="must be"):
            measure_threshold(features, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not both"):
        measure_threshold(features, 1e-6, 0.9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), side=st.sampled_from([64, 96, 160, 224, 33]))
def test_hashes_of_mirrored_and_scaled_pictures(seed, side):
    one = picture(seed)
    images = [one, ImageOps.mirror(one), one.resize((side, side), Image.Resampling.LANCZOS), one.convert("L")]
    plain, mirrored, scaled, gray = (hashes_of(np.asarray(i.convert("RGB"))[np.newaxis])[0] for i in images)
    assert plain[0] == mirrored[1]

    def differ(a, b):
        return int(64 - (signs(a[:1]) @ signs(b[:1]).T)[0, 0]) // 2

    assert differ(plain, scaled) <= 6  # of 63 bits
    assert differ(plain, gray) <= 2


def test_a_flat_picture_is_like_nothing():
    assert hashes_of(np.full((2, 40, 40, 3), 7, np.uint8)).tolist() == [[0, 0], [0, 0]]
    assert not (signs(np.zeros(2, np.uint64)) @ signs(np.zeros(2, np.uint64)).T).any()


def test_the_threshold_is_measured_near_where_it_lies(tmp_path):
    """A tenth of the photos are much alike: far pairs say nothing of how near theirs are (three times as many)."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((8000, 12)).astype(np.float32)
    vectors[random.random(8000) < 0.1, 4:] = 0
    turned = vectors @ np.linalg.qr(random.standard_normal((64, 64)))[0][:12].astype(np.float32)
    features = Features(write_features(tmp_path / "f", turned, half=False, shard_size=4096))
    cosine = measure_threshold(features, 1e-4).cosine
    rows = directions(turned)
    near = np.count_nonzero(np.triu(rows @ rows.T >= cosine, 1))
    allowed = 1e-4 * 8000 * 7999 / 2
    assert 0.3 * allowed < near < 1.5 * allowed


PROMISE = {"imagenette_small.zip": 3}  # times what is expected: Poisson, and a few that really are near


@pytest.mark.slow
def test_the_promise_of_false_pairs(shared, tmp_path):
    """On photos that are all different, no more pairs than the share that was asked for says, within chance."""
    archive = shared("datasets/imagenette_small.zip")
    assert main(["embed", str(archive), "-o", str(tmp_path / "f"), "--quiet"]) == 0
    for share in (1e-5, 1e-4):
        found = hub.dedupe(tmp_path / "f", false_pairs=share)
        copies = sum(len(group.others) for group in found)
        assert found.expected_false_pairs is not None
        assert copies <= PROMISE["imagenette_small.zip"] * found.expected_false_pairs
