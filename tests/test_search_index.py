"""The index: as good as no index, extended, and never believed where something changed or broke."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from feature_folders import clustered, write_features

from mobilenet_hub.search import codes, similar
from mobilenet_hub.search.codes import OFFSET, SCALE, Basis, Codes, largest
from mobilenet_hub.search.features import Features, directions
from mobilenet_hub.search.index import INDEX_FILE, open_index
from mobilenet_hub.search.similar import Searcher

COUNT = 3000


@pytest.fixture(scope="module")
def vectors():
    return clustered(COUNT)


@pytest.fixture(autouse=True)
def always_an_index(monkeypatch):
    monkeypatch.setattr(similar, "_SMALL", 0)


def names(searcher, queries, k=10):
    return [[match.path for match in matches] for matches in searcher.nearest(queries, k)]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("backend", ["numpy", "simsimd"])
def test_recall(tmp_path, vectors, half, backend, monkeypatch):
    if backend == "simsimd":
        pytest.importorskip("simsimd", reason="needs the extra mobilenet-hub[search]")
    else:
        monkeypatch.setattr(codes, "import_simsimd", lambda: None)
    folder = write_features(tmp_path / "f", vectors, half=half, shard_size=512)
    queries = np.maximum(vectors[::30] * (1 + 0.2 * np.random.default_rng(1).standard_normal((100, 96))), 0)
    indexed, exact = Searcher(folder), Searcher(folder, exact=True)
    found, truth = names(indexed, queries), names(exact, queries)
    assert (folder / "index" / INDEX_FILE).exists()
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert recall >= 0.999
    assert names(indexed, queries) == found


def test_backends_see_the_same_bits(vectors, monkeypatch):
    simsimd = pytest.importorskip("simsimd", reason="needs the extra mobilenet-hub[search]")
    basis = Basis.of(directions(vectors))
    made = Codes(*basis.encode(vectors))
    query = directions(vectors[:3])

    def best():
        return [(numbers.tolist(), scores.tolist()) for numbers, scores in made.best(basis, query, len(vectors))]

    monkeypatch.setattr(codes, "import_simsimd", lambda: None)
    expected = best()
    code, row = (values[0] for values in basis.encode(query))
    whole = (made.codes.astype(np.int64) @ code.astype(np.int64)).astype(np.float32)
    estimates = whole * (row[SCALE] * made.rows[:, SCALE]) + made.rows[:, OFFSET] + np.float32(query[0] @ basis.mean)
    assert expected[0][1] == estimates[expected[0][0]].tolist()
    monkeypatch.undo()
    assert best() == expected
    for name in ("turin", "sapphire", "genoa", "ice", "skylake"):  # what is left is AVX2
        simsimd.disable_capability(name)
    try:
        assert best() == expected
    finally:
        for name in ("skylake", "ice", "genoa", "turin"):
            simsimd.enable_capability(name)


def test_new_shards_are_added_and_the_old_ones_kept(tmp_path, vectors):
    folder = write_features(tmp_path / "f", vectors, shard_size=512, limit=2048)
    with pytest.warns(UserWarning, match="not complete"):
        Searcher(folder)
    before = json.loads((folder / "index" / INDEX_FILE).read_text())
    write_features(folder, vectors, shard_size=512)
    searcher = Searcher(folder)
    after = json.loads((folder / "index" / INDEX_FILE).read_text())
    assert after["segments"][:1] == before["segments"]
    assert len(after["segments"]) == 2
    assert names(searcher, vectors[[2999, 5]], 1) == [["photos/002999.jpg"], ["photos/000005.jpg"]]


def test_a_changed_shard_is_noticed_by_content_not_by_name(tmp_path, vectors):
    folder = write_features(tmp_path / "f", vectors, shard_size=512)
    Searcher(folder)
    other = write_features(tmp_path / "g", np.roll(vectors, 1, axis=0), shard_size=512)
    shard = folder / "part-00001.parquet"
    times = shard.stat()
    shutil.copy(other / shard.name, shard)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))  # as some tools that copy do
    assert names(Searcher(folder), vectors[[599]], 1) == [["photos/000600.jpg"]]


def test_a_copied_or_touched_collection_keeps_its_index(tmp_path, vectors):
    folder = write_features(tmp_path / "f", vectors, shard_size=512)
    Searcher(folder)
    segment = next((folder / "index").glob("segment-*/codes.npy"))
    os.utime(folder / "part-00002.parquet")
    made = segment.stat().st_mtime_ns
    assert names(Searcher(folder), vectors[[7]], 1) == [["photos/000007.jpg"]]
    assert segment.stat().st_mtime_ns == made
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    inode = next((copied / "index").glob("segment-*/codes.npy")).stat().st_ino
    assert names(Searcher(copied), vectors[[7]], 1) == [["photos/000007.jpg"]]
    assert next((copied / "index").glob("segment-*/codes.npy")).stat().st_ino == inode


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "nonsense"])
@pytest.mark.parametrize("name", ["codes.npy", "rows.npy", "runs.npy", "basis", INDEX_FILE])
def test_a_damaged_index_is_made_anew(tmp_path, vectors, damage, name):
    folder = write_features(tmp_path / "f", vectors[:600], shard_size=200)
    Searcher(folder)
    pattern = {"basis": "basis-*.npy", INDEX_FILE: INDEX_FILE}.get(name, f"segment-*/{name}")
    file = next((folder / "index").glob(pattern))
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        file.write_bytes({"cut": data[:middle], "flip": flipped, "nonsense": b"{}"}[damage])
    assert names(Searcher(folder), vectors[[599, 3]], 1) == [["photos/000599.jpg"], ["photos/000003.jpg"]]
    index, why = open_index(Features(folder))
    assert why is None
    assert index.rows == 600


def test_codes_of_other_rows_are_found_out(tmp_path, vectors):
    """Stamps and digests in order, and yet not of these vectors: the canaries disagree."""
    folder = write_features(tmp_path / "f", vectors[:600], shard_size=200)
    Searcher(folder)
    segment = next((folder / "index").glob("segment-*"))
    np.save(segment / "codes.npy", np.roll(np.load(segment / "codes.npy"), 1, axis=0))
    described = json.loads((folder / "index" / INDEX_FILE).read_text())
    from mobilenet_hub.search.index import Stamp

    stamp = Stamp.of(segment / "codes.npy")
    described["segments"][0]["files"]["codes.npy"] = {n: getattr(stamp, n) for n in Stamp.__slots__}
    (folder / "index" / INDEX_FILE).write_text(json.dumps(described))
    assert names(Searcher(folder), vectors[[599]], 1) == [["photos/000599.jpg"]]
    assert np.array_equal(np.load(next((folder / "index").glob("segment-*/codes.npy")))[0],
                          Codes(*open_index(Features(folder))[0].basis.encode(vectors[:1])).codes[0])  # fmt: skip


def test_a_folder_that_cannot_be_written_is_searched_all_the_same(tmp_path, vectors):
    folder = write_features(tmp_path / "f", vectors[:600], shard_size=200)
    (folder / "index").write_text("in the way")
    searcher = Searcher(folder)
    assert "index cannot be written" in searcher.note
    assert names(searcher, vectors[[599]], 1) == [["photos/000599.jpg"]]


def test_a_full_disk_leaves_the_old_index_or_none(tmp_path, vectors):
    folder = write_features(tmp_path / "f", vectors, shard_size=512)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"  # no file beyond: as a disk with no room
        "from mobilenet_hub.search import similar; similar._SMALL = 0\n"
        f"s = similar.Searcher({str(folder)!r}); print(s.note)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert list((folder / "index").iterdir()) == []
    assert names(Searcher(folder), vectors[[3]], 1) == [["photos/000003.jpg"]]


def test_killed_at_any_moment(tmp_path, vectors):
    folder = write_features(tmp_path / "f", np.tile(vectors, (20, 1)), shard_size=2048, paths=None)
    code = (
        "from mobilenet_hub.search import similar; similar._SMALL = 0; print('ready', flush=True)\n"
        f"similar.Searcher({str(folder)!r}); print('done', flush=True)"
    )
    for number in range(8):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.04 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    searcher = Searcher(folder)
    assert searcher.note is None
    assert names(searcher, vectors[[3]], 1) == [["photos/000003.jpg"]]
    assert [entry.name for entry in (folder / "index").iterdir() if entry.name.startswith(".")] == []


def test_a_stray_shard_is_named(tmp_path, vectors):
    folder = write_features(tmp_path / "f", vectors[:600], shard_size=200)
    shutil.copy(folder / "part-00000.parquet", folder / "part-00009.parquet")
    with pytest.warns(UserWarning, match="part-00009.parquet is not in the manifest"):
        Searcher(folder)


def test_rows_without_a_direction_are_nobodys_neighbours(tmp_path, vectors):
    odd = vectors[:300].copy()
    odd[0], odd[1, 3], odd[2, 5] = 0, np.nan, np.inf
    folder = write_features(tmp_path / "f", odd, shard_size=100)
    for exact in (False, True):
        searcher = Searcher(folder, exact=exact)
        everything = names(searcher, vectors[[100]], 300)[0]
        assert len(everything) == 297
        assert not {f"photos/00000{i}.jpg" for i in range(3)} & set(everything)
        assert searcher.nearest(odd[:2], 5) == [[], []]


def test_equal_photos_come_in_their_order(tmp_path):
    same = np.tile(clustered(1), (20000, 1))
    folder = write_features(tmp_path / "f", same, shard_size=4096)
    for exact in (False, True):
        start = time.monotonic()
        found = names(Searcher(folder, exact=exact), same[:1], 10)[0]
        assert found == [f"photos/{i:06d}.jpg" for i in range(10)]
        assert time.monotonic() - start < 60  # bounded; it takes a fraction of a second


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_rows(tmp_path, count):
    folder = write_features(tmp_path / "f", clustered(3)[:count])
    for exact in (False, True):
        assert len(names(Searcher(folder, exact=exact), clustered(3)[:1], 10)[0]) == count


def test_the_largest_of_equal_ones_are_the_first():
    scores = np.array([2, 5, 5, 1, 5, -np.inf])
    assert sorted(largest(scores, 2).tolist()) == [1, 2]
    assert sorted(largest(scores, 9).tolist()) == [0, 1, 2, 3, 4]
