"""OUT in an object store: the bytes of an output on a disk; whole or absent, one writer, whatever fails."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from object_store import FAULTS, before, client_of, moto, process
from servers import closed_port
from small_photos import make_work

from mobilenet_hub.bulk.manifest import Manifest
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import OutputError
from mobilenet_hub.host.lease import leased
from mobilenet_hub.host.object_path import ObjectPath
from mobilenet_hub.host.s3 import ChangedError
from mobilenet_hub.images.inputs import items

pytest.importorskip("boto3", reason="needs moto's server: pip install 'mobilenet-hub[interop]'")
pytest.importorskip("moto.server", reason="needs moto's server: pip install 'mobilenet-hub[interop]'")

ROUNDS = int(os.environ.get("MOBILENET_HUB_TEST_ROUNDS", "3"))  # of killing, and of failing; more by hand
BAD = {"003.jpg": b"no picture", "019.jpg": b""}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    make_work(folder, 30, BAD)
    return folder


@pytest.fixture(scope="module")
def store():
    with moto() as url:
        yield url


@pytest.fixture
def client(store):
    """An empty bucket."""
    client = client_of(store, "bucket")
    for entry in client.list_objects_v2(Bucket="bucket").get("Contents", ()):
        client.delete_object(Bucket="bucket", Key=entry["Key"])
    return client


@pytest.fixture
def proxy(store, work, client, monkeypatch):
    monkeypatch.chdir(work)
    with before(store, monkeypatch, attempts=3) as faulty:
        yield faulty


def words(output, *more, command="embed"):
    return [
        command,
        "photos",
        "-o",
        str(output),
        "--module",
        "m",
        "--precision",
        "f32",
        "--shard-size",
        "8",
        "--quiet",
        *more,
    ]


def run(output, *more, expect=1, command="embed"):
    assert main(words(output, *more, command=command)) == expect


def stored(client, prefix):
    """Return the objects whose keys begin so, but for the empty ones that stand for folders."""
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", ())]
    bodies = {key: client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys if not key.endswith("/")}
    return {key.removeprefix(prefix).removeprefix("/"): body for key, body in bodies.items()}


def on_disk(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_of_shards(proxy, client, tmp_path, either):
    run(tmp_path / "out")
    run("s3://bucket/a/out")
    assert stored(client, "a/out") == on_disk(tmp_path / "out")
    count = len(proxy.requests)
    run("s3://bucket/a/out")  # nothing is left to do
    assert stored(client, "a/out") == on_disk(tmp_path / "out")
    assert not [path for method, path in proxy.requests[count:] if method == "PUT" and "part-" in path]
    assert main(words("s3://bucket/a/out", "--fit", "stretch")) == 2


@pytest.mark.parametrize(
    ("command", "name"), [("embed", "f.parquet"), ("embed", "f.npy"), ("classify", "l.csv"), ("classify", "l.jsonl")]
)
def test_one_file(proxy, client, tmp_path, command, name):
    run(tmp_path / name, command=command)
    run(f"s3://bucket/{name}", command=command)
    assert stored(client, "") == on_disk(tmp_path)
    run(f"s3://bucket/{name}", command=command)
    assert stored(client, "") == on_disk(tmp_path)


def test_parts_in_a_bucket_and_merging_in_and_out_of_it(proxy, client, tmp_path):
    run(tmp_path / "whole")
    for part in (2, 0, 1):
        run("s3://bucket/parts", "--part", f"{part}/3", expect=1 if part in (0, 2) else 0)
        run(f"s3://bucket/own{part}", "--part", f"{part}/3", expect=1 if part in (0, 2) else 0)
    assert (
        main(["merge", *(f"s3://bucket/own{part}" for part in range(3)), "-o", str(tmp_path / "here"), "--quiet"]) == 1
    )
    assert main(["merge", *(f"s3://bucket/own{part}" for part in range(3)), "-o", "s3://bucket/there", "--quiet"]) == 1
    assert main(["merge", "s3://bucket/parts", "--quiet"]) == 1
    assert (
        on_disk(tmp_path / "here") == stored(client, "there") == stored(client, "parts") == on_disk(tmp_path / "whole")
    )


def test_what_is_not_ours_stays(proxy, client, capsys):
    client.put_object(Bucket="bucket", Key="out/photo.jpg", Body=b"mine")
    client.put_object(Bucket="bucket", Key="f.parquet", Body=b"mine")
    client.put_object(Bucket="bucket", Key="locked/.lock", Body=b"mine")
    for output in ("s3://bucket/out", "s3://bucket/f.parquet", "s3://bucket/locked"):
        assert main(words(output)) == 2
        assert "another" in (said := capsys.readouterr().err) or "new folder" in said
    assert stored(client, "") == {"out/photo.jpg": b"mine", "f.parquet": b"mine", "locked/.lock": b"mine"}
    assert main(words("s3://nobody/out")) == 2
    assert "there is no bucket nobody" in capsys.readouterr().err


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_fails_once(proxy, client, tmp_path, fault):
    """At every stage: listing, the lease, each shard, the list of the skipped, the manifest, the end."""
    run(tmp_path / "out")
    seen = set()

    def once(method, path, number):
        known = (key := (method, path.split("&X-Amz")[0])) in seen
        seen.add(key)
        return None if known else fault

    proxy.rule = once
    run("s3://bucket/out")
    assert stored(client, "out") == on_disk(tmp_path / "out")


@pytest.mark.parametrize("fault", [503, "lost"])
def test_a_store_that_goes_away_at_any_moment(proxy, client, tmp_path, capsys, monkeypatch, fault):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    run(tmp_path / "out")
    run("s3://bucket/counted")
    total = len(proxy.requests)
    for moment in [total * (attempt + 1) // (ROUNDS + 1) for attempt in range(ROUNDS)]:
        for key in stored(client, "out"):
            client.delete_object(Bucket="bucket", Key=f"out/{key}")
        start = len(proxy.requests)
        proxy.rule = lambda method, path, number: fault if number > start + moment else None  # noqa: B023
        assert main(words("s3://bucket/out")) == 2
        assert "s3://bucket/out" in capsys.readouterr().err
        for shard in json.loads(stored(client, "out").get("manifest.json", b'{"shards": []}'))["shards"]:
            assert stored(client, "out")[shard["file"]] == on_disk(tmp_path / "out")[shard["file"]]
        proxy.rule = lambda method, path, number: None
        run("s3://bucket/out")
        assert stored(client, "out") == on_disk(tmp_path / "out")


def test_a_full_temporary_folder_is_named(proxy, client, tmp_path, capsys, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", small], check=False).returncode:
        pytest.skip("needs to mount a small disk")
    try:
        monkeypatch.setattr("tempfile.tempdir", str(small))
        for output in ("s3://bucket/out", "s3://bucket/f.parquet"):
            assert main(words(output)) == 2
            assert f"no space left in {small}" in capsys.readouterr().err
        assert not [name for name in stored(client, "") if "part-" in name or name == "f.parquet"]
        monkeypatch.undo()
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.slow
def test_killed_at_any_moment(proxy, client, tmp_path):
    run(tmp_path / "out")
    command = [sys.executable, "-m", "mobilenet_hub.cli.main", *words("s3://bucket/out")]
    moment = random.Random(7)
    for _ in range(ROUNDS):
        for key in stored(client, "out"):
            client.delete_object(Bucket="bucket", Key=f"out/{key}")
        for _ in range(3):
            started = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            with suppress(subprocess.TimeoutExpired):
                started.wait(moment.uniform(0.6, 3.0))
            started.send_signal(signal.SIGKILL)
            started.wait()
        run("s3://bucket/out")
        assert stored(client, "out") == on_disk(tmp_path / "out")


def test_a_second_writer_is_refused(proxy, client, either):
    lock, place = ObjectPath.parse("s3://bucket/out/.lock"), ObjectPath.parse("s3://bucket/out")
    code = (
        "import sys, time\nfrom mobilenet_hub.host.lease import leased\n"
        "from mobilenet_hub.host.object_path import ObjectPath\n"
        "with leased(*map(ObjectPath.parse, sys.argv[1:])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock), str(place)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"process {owner.pid} is writing s3://bucket/out"), leased(lock, place):
            pass
        owner.kill()
    start = time.monotonic()
    with leased(lock, place):  # of a dead process of this machine: taken at once
        assert time.monotonic() - start < 5
        with pytest.raises(OutputError, match="this process is writing"), leased(lock, place):
            pass
    assert "out/.lock" not in stored(client, "")


def test_a_writer_that_was_thought_dead_is_noticed(proxy, client, either):
    """Both have read the same manifest; the one that writes second is told, and what the first wrote stays."""
    file = ObjectPath.parse("s3://bucket/out/manifest.json")
    first = Manifest({"fit": "center"})
    first.write(file)
    one, other = Manifest.read(file), Manifest.read(file)
    one.skipped_bytes, other.skipped_bytes = 1, 22
    one.write(file)
    with pytest.raises(ChangedError, match="written by somebody else"):
        other.write(file)
    one.skipped_bytes = 333
    one.write(file)
    with pytest.raises(ChangedError, match="written by somebody else"):
        first.write(file)
    assert Manifest.read(file) == one


def test_the_same_in_googles_store(work, tmp_path, monkeypatch, capsys):
    """With an emulator of Google's: its client in pyarrow is another one, and knows no conditions."""
    pytest.importorskip("gcp_storage_emulator", reason="needs an emulator: pip install 'mobilenet-hub[interop]'")
    from pyarrow.fs import GcsFileSystem

    monkeypatch.chdir(work)
    port = closed_port()
    code = "from gcp_storage_emulator.__main__ import main; main()"
    start = ["-c", code, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=bucket"]
    with process(start, port) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        client = GcsFileSystem(anonymous=True, endpoint_override=url.removeprefix("http://"), scheme="http")
        run(tmp_path / "out")
        run("gs://bucket/out")
        run("gs://bucket/out")
        for path in (tmp_path / "out").iterdir():
            with client.open_input_file(f"bucket/out/{path.name}") as stream:
                assert stream.read() == path.read_bytes()
            with client.open_output_stream(f"bucket/copies/{path.name}.jpg") as stream:
                stream.write(path.read_bytes())
        assert [item.key for item in items(["gs://bucket/c*/part-0*"])] == [
            f"gs://bucket/copies/part-0000{number}.parquet.jpg" for number in range(4)
        ]
        assert next(items(["gs://bucket/out/skipped.csv"])).read() == (tmp_path / "out" / "skipped.csv").read_bytes()
        assert main(["embed", "gs://nobody/photos", "-o", str(tmp_path / "no"), "--module", "m"]) == 2
        assert "there is no bucket nobody" in capsys.readouterr().err
