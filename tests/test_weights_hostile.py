"""Files made to hurt: zip archives, HDF5, TensorFlow.js and graphs that ask for more than they hold, and damaged ones.

Each is refused with an error of this package, soon, and in little memory; nothing is written outside.
"""

import io
import json
import os
import random
import shutil
import stat
import struct
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from tensorflow_files import blob, node, placeholder

from mobilenet_hub.errors import CorruptFileError, MobileNetHubError
from mobilenet_hub.weights.archive import Limits, unpack
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.head import Dense, head_weights
from mobilenet_hub.weights.reading import Unusable
from mobilenet_hub.weights.tensorflow.graph_operations import TensorFlowGraph
from mobilenet_hub.weights.tensorflow.protobuf import Message

SMALL = Limits(total_bytes=1 << 20, members=20, ratio=50, ratio_from=1 << 16)
SECONDS, BYTES = 5, 100 << 20
MANY = 60_000


def zipped(*members, kind=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as archive:
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, data in members:
            archive.writestr(name, data)
    return bytearray(buffer.getvalue())


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target


def with_field(data, signature, at, form, value):
    """Overwrite a field of the last header of a kind."""
    struct.pack_into(form, data, data.rindex(signature) + at, value)
    return data


def overlapping():
    """Many members that are the same bytes: David Fifield's bomb, where headers differ and contents do not."""
    one = zipped(("a", bytes(1 << 18)))
    start = one.index(b"PK\1\2")
    entry, end = one[start : one.index(b"PK\5\6")], one[one.index(b"PK\5\6") :]
    entries = b"".join(entry.replace(b"a", bytes([97 + at]), 1) if at else entry for at in range(16))
    struct.pack_into("<HHII", end, 8, 16, 16, len(entries), start)
    return one[:start] + entries + end


FILE = ("labels.txt", b"cat\ndog\n")
CENTRAL, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"
ZIPS = {
    "bomb": lambda: zipped(("a", bytes(1 << 23))),
    "bombs": lambda: zipped(*((f"{at}", bytes(1 << 17)) for at in range(15))),
    "overlapping": overlapping,
    "many members": lambda: zipped(*((f"{at}", b"") for at in range(30))),
    "a list of members that fills the memory": lambda: zipped(*((f"{at:050}", b"") for at in range(MANY)), kind=0),
    "nothing but folders": lambda: zipped(("a/", b"")),
    "outside": lambda: zipped(("../a", b"x")),
    "outside from within": lambda: zipped(("a/../../b", b"x")),
    "absolute": lambda: zipped(("/etc/a", b"x")),
    "of windows": lambda: zipped(("c:\\a", b"x")),
    "a device": lambda: zipped(("aux.txt", b"x")),
    "a link": lambda: zipped(link("a", "/etc/passwd")),
    "a link and a file through it": lambda: zipped(link("a", "/tmp"), ("a/b", b"x")),
    "twice": lambda: zipped(FILE, FILE),
    "twice but for case": lambda: zipped(FILE, ("LABELS.txt", b"x")),
    "a file that is a folder": lambda: zipped(("a", b"x"), ("a/b", b"x")),
    "encrypted": lambda: with_field(with_field(zipped(FILE), CENTRAL, 8, "<H", 1), LOCAL, 6, "<H", 1),
    "packed otherwise": lambda: zipped(FILE, kind=zipfile.ZIP_LZMA),
    "an unknown way of packing": lambda: with_field(zipped(FILE), CENTRAL, 10, "<H", 97),
    "a member before the beginning": lambda: with_field(zipped(FILE), CENTRAL, 42, "<I", 0xFFFFFFF0),
    "a member that says too much": lambda: with_field(zipped(FILE), CENTRAL, 24, "<I", 1 << 30),
    "zip64 without its numbers": lambda: with_field(zipped(FILE), CENTRAL, 24, "<I", 0xFFFFFFFF),
    "members of another number": lambda: with_field(zipped(FILE), END, 12, "<I", 1 << 20),
    "a wrong checksum": lambda: with_field(zipped(FILE), CENTRAL, 16, "<I", 1),
    "cut off": lambda: zipped(("a", os.urandom(5000)))[:-3000],
    "cut off at its end": lambda: zipped(("a", os.urandom(500)))[:-10],
}


@pytest.mark.parametrize("make", ZIPS.values(), ids=ZIPS)
def test_hostile_zips(make, tmp_path):
    archive = tmp_path / "model.zip"
    archive.write_bytes(make())
    tracemalloc.start()
    begun = time.monotonic()
    with pytest.raises(CorruptFileError, match=r"model\.zip"):
        unpack(archive, tmp_path / "out" / "model", SMALL)
    assert time.monotonic() - begun < SECONDS and tracemalloc.get_traced_memory()[1] < BYTES
    tracemalloc.stop()
    assert [path.name for path in tmp_path.rglob("*")] in (["model.zip"], ["model.zip", "out"], ["out", "model.zip"])
    with pytest.raises(MobileNetHubError, match=r"model\.zip"):
        load_source(archive)


def test_an_archive_within_an_archive_is_not_opened(tmp_path):
    inner = zipped(FILE)
    for _ in range(5):
        inner = zipped(("inner.zip", inner))
    (tmp_path / "model.zip").write_bytes(inner)
    with pytest.raises(MobileNetHubError, match="holds nothing that can be converted"):
        load_source(tmp_path / "model.zip")


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_keras_file_whose_parts_occur_twice(name, tmp_path):
    parts = [("config.json", b"{}"), ("model.weights.h5", b"x"), (name, b"[]")]
    (tmp_path / "model.keras").write_bytes(zipped(*parts))
    with pytest.raises(CorruptFileError, match="2 members called"):
        load_source(tmp_path / "model.keras", image_size=96)


def test_a_keras_file_that_is_a_bomb(tmp_path):
    parts = [("config.json", b" " * (40 << 20)), ("model.weights.h5", b"x")]
    (tmp_path / "model.keras").write_bytes(zipped(*parts))
    with pytest.raises(CorruptFileError, match="announces"):
        load_source(tmp_path / "model.keras", image_size=96)


def test_groups_of_hdf5_within_themselves(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "model.h5", "w") as root:
        inner = root.create_group("layers")
        for at in range(40):
            inner[f"again_{at}"] = root["layers"]
    begun = time.monotonic()
    with pytest.raises(CorruptFileError, match="in itself"):
        load_source(tmp_path / "model.h5", image_size=96)
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("place", ["model_weights", "layers/conv2d/vars"])
def test_links_of_hdf5_to_a_file_that_never_answers(place, tmp_path):
    """Only to look whether it is there would wait for ever."""
    h5py = pytest.importorskip("h5py")
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(tmp_path / "model.h5", "w") as root:
        root[place] = h5py.ExternalLink(str(tmp_path / "pipe.h5"), "/")
    with pytest.raises(MobileNetHubError, match=r"model\.h5"):
        load_source(tmp_path / "model.h5", image_size=96)


def test_files_of_weights_that_are_named_many_times(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(1 << 20))
    weights = [{"name": "a/kernel", "shape": [1 << 28], "dtype": "float32"}]
    manifest = [{"paths": ["w.bin"] * 1024, "weights": weights}]
    model = {"format": "layers-model", "modelTopology": {"model_config": {}}, "weightsManifest": manifest}
    (tmp_path / "model.json").write_text(json.dumps(model))
    tracemalloc.start()
    with pytest.raises(CorruptFileError, match="named twice"):
        load_source(tmp_path / "model.json")
    assert tracemalloc.get_traced_memory()[1] < BYTES
    tracemalloc.stop()


def test_functions_that_call_each_other_twice_each():
    """Two to the power of thirty calls in a thousand bytes."""
    functions = []
    for at in range(28):
        body = b""
        returned = "x"
        if at:
            call = {"f": blob(10, blob(1, f"f{at - 1}"))}
            body = blob(3, node("once", "PartitionedCall", ["x"], **call))
            body += blob(3, node("twice", "PartitionedCall", ["once:output:0"], **call))
            returned = "twice:output:0"
        signature = blob(1, f"f{at}") + blob(2, blob(1, "x")) + blob(3, blob(1, "y"))
        functions.append(blob(1, blob(1, signature) + body + blob(4, blob(1, "y") + blob(2, returned))))
    nodes = [placeholder((1, 8, 8, 3)), node("end", "PartitionedCall", ["input"], f=blob(10, blob(1, "f27")))]
    graph = b"".join(blob(1, one) for one in nodes) + blob(2, b"".join(functions))
    begun = time.monotonic()
    with pytest.raises(ValueError, match="without end"):
        TensorFlowGraph(Message(graph)).tensor("end:0")
    assert time.monotonic() - begun < 2 * SECONDS


def test_more_hidden_layers_than_anybody_has():
    steps = [one for _ in range(20) for one in (Dense(np.ones((4, 4), np.float32)), "relu")]
    with pytest.raises(Unusable, match="at most 16"):
        head_weights([*steps, Dense(np.ones((4, 2), np.float32))], "MobilenetV1", 4)


REAL = ("tfl_2023_04", "tfq_2022_02", "zip_tflite_2022", "poets_b_lite", "tmh5_2020_04", "tfjs_2020_06")


def damaged(data, chance):
    """Return what a bad disk, a cut transfer or a bad will makes of a file."""
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(min(len(data), chance.choice([64, 1024, 20_000, len(data)])))
        at = len(data) - 1 - at if chance.random() < 0.3 else at
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + 4] = struct.pack("<I", chance.choice([0, 1, 2**32 - 1, 2**31, 2**24]))
            case 2:
                data[at : at + 8] = struct.pack("<Q", chance.choice([2**63, 2**64 - 1, 2**40]))
            case 3:
                data[at:at] = data[at : at + chance.randrange(1, 64)]
            case 4:
                del data[max(1, at) :]
    return data


@pytest.mark.parametrize("name", REAL)
def test_damaged_files_of_other_people(name, shared, tmp_path):
    manifest = json.loads(shared("realfiles/manifest.json").read_text())
    source = shared("realfiles") / next(one["source"] for one in manifest if one["id"] == name)
    for seed in range(12):
        chance = random.Random(seed)
        target = tmp_path / str(seed) / source.name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.parent.mkdir()
            shutil.copy(source, target)
        file = target if target.is_file() else chance.choice(sorted(target.iterdir()))
        file.write_bytes(damaged(file.read_bytes(), chance))
        begun = time.monotonic()
        try:
            load_source(target)
        except MobileNetHubError as error:
            assert str(target) in str(error) or file.name in str(error)
        assert time.monotonic() - begun < SECONDS * 2  # of a machine that does something else, too
