"""Pictures in an object store: the same as on a disk, in the order of their keys, whatever fails on the way."""

import io
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa  # noqa: TID253
import pytest
from object_store import FAULTS, Faulty, before, client_of, moto
from pyarrow import parquet  # noqa: TID253
from small_photos import jpeg, make_work

from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.host import s3, stores
from mobilenet_hub.host.object_path import ObjectPath
from mobilenet_hub.host.stores import StoreError
from mobilenet_hub.images.ahead import ahead
from mobilenet_hub.images.batches import decode_batches
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.inputs import items

pytest.importorskip("boto3", reason="needs moto's server: pip install 'mobilenet-hub[interop]'")
pytest.importorskip("moto.server", reason="needs moto's server: pip install 'mobilenet-hub[interop]'")

FILES = {f"p/{n:02d}.jpg": jpeg(n) for n in range(12)}
OTHERS = {
    "p/sub/a.JPG": jpeg(20), "p/sub/hash0123": jpeg(21), "p/sub/notes.txt": b"text", "p/sub/noname": b"text",
    "p/.hidden/b.jpg": jpeg(22), "p/@eaDir/b.jpg": jpeg(22), "p/00-x/c.jpg": jpeg(23), "p/bad.jpg": b"no picture",
    "p/ü [1]*.jpg": jpeg(24),
}  # fmt: skip


def packed():
    """Return the photos in archives and a table."""
    tar, zipped, table = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    rows = {"path": list(FILES), "image": list(FILES.values())}
    parquet.write_table(pa.table(rows), table, row_group_size=5)
    return {"t/a.tar": tar.getvalue(), "t/a.zip": zipped.getvalue(), "t/a.parquet": table.getvalue()}


@pytest.fixture(scope="module")
def store():
    with moto() as url:
        client = client_of(url, "photos")
        for key, data in {**FILES, **OTHERS, **packed()}.items():
            client.put_object(Bucket="photos", Key=key, Body=data)
        yield url


@pytest.fixture
def proxy(store, monkeypatch):
    with before(store, monkeypatch, attempts=4) as faulty:
        yield faulty


def keys(*inputs):
    return [item.key.removeprefix("s3://photos/") for item in items([f"s3://photos/{name}" for name in inputs])]


def content(*inputs):
    """Return what reading each gives, or why there is nothing to read; many at once, as decoding has it."""
    found = items([f"s3://photos/{name}" for name in inputs])
    read = ahead(
        (item.key.removeprefix("s3://photos/"), item.remote, lambda item=item: _outcome(item)) for item in found
    )
    return dict(read)


def _outcome(item):
    try:
        return item.read()
    except ImageError as error:
        return error.reason


PICTURES = sorted(
    [*FILES, "p/sub/a.JPG", "p/sub/hash0123", "p/00-x/c.jpg", "p/bad.jpg", "p/ü [1]*.jpg"], key=str.encode
)


def test_a_prefix_is_searched_as_a_folder(proxy, either):
    assert keys("p") == keys("p/") == PICTURES
    passed_over = Counter()
    list(items(["s3://photos/p"], passed_over=passed_over))
    assert passed_over == {".txt": 1, "": 1}
    assert content("p") == {name: {**FILES, **OTHERS}[name] for name in PICTURES}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("p/*.jpg", [*FILES, "p/bad.jpg", "p/ü [1]*.jpg"]),
        ("p/0[1-3].jpg", ["p/01.jpg", "p/02.jpg", "p/03.jpg"]),
        ("p/0[!1-9].jpg", ["p/00.jpg"]),
        ("p/?[01].jpg", ["p/00.jpg", "p/01.jpg", "p/10.jpg", "p/11.jpg"]),
        ("p/s*", ["p/sub/a.JPG", "p/sub/hash0123"]),
        ("p/**/*.jpg", [*FILES, "p/00-x/c.jpg", "p/bad.jpg", "p/ü [1]*.jpg"]),
        ("p/sub/*.txt", ["p/sub/notes.txt"]),
        ("p/.hid*/*", ["p/.hidden/b.jpg"]),
        ("p/ü [1]*.jpg", ["p/ü [1]*.jpg"]),
    ],
)
def test_patterns(proxy, either, pattern, wanted):
    assert keys(pattern) == sorted(wanted, key=str.encode)


@pytest.mark.parametrize("name", ["t/a.tar", "t/a.zip", "t/a.parquet"])
def test_archives_and_tables_are_read_by_ranges(proxy, name):
    got = content(name)
    assert list(got.values()) == list(FILES.values())
    assert list(got) == list(FILES) if name.endswith("parquet") else [f"{name}/{file}" for file in FILES]
    assert keys("t/a.*") == [*FILES, *(f"t/a.{kind}/{name}" for kind in ("tar", "zip") for name in FILES)]


def test_many_are_under_way_at_once(proxy):
    """Each answer takes 50 ms: one after the other, the 17 pictures with two requests each would take 1.7 s."""
    running, most = [0], [0]

    def slow(method, path, number):
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.05)
        running[0] -= 1

    proxy.rule = slow
    batches = list(decode_batches(items(["s3://photos/p"]), Preprocessing(32)))
    assert [key for batch in batches for key in batch.inputs] == [f"s3://photos/{name}" for name in PICTURES]
    assert most[0] >= 8


def test_a_photo_is_one_request(proxy):
    """And two where its name does not tell that it is one; a page of names is one more."""
    assert len(content("p/")) == len(PICTURES)
    unclear = ("p/sub/noname", "p/sub/hash0123")
    assert len([path for _, path in proxy.requests if "list-type" not in path]) == len(PICTURES) + len(unclear)
    assert {method for method, _ in proxy.requests} == {"GET"}


def test_keys_that_no_disk_has(proxy, either, store):
    """An empty part, or one of dots: where pyarrow alone would ask for another object, or none, that is said."""
    odd = {"//a.jpg": jpeg(30), "o//b.jpg": jpeg(31), "o/./c.jpg": jpeg(32)}
    client = client_of(store, "photos")
    for key, data in odd.items():
        client.put_object(Bucket="photos", Key=key, Body=data)
    try:
        if sys.modules.get("botocore"):
            assert {key: content(key)[key] for key in odd} == odd
            assert content("o") == {key: odd[key] for key in ("o/./c.jpg", "o//b.jpg")}
        else:
            for key in odd:
                assert "pip install 'mobilenet-hub[s3]'" in content(key)[key]
            with pytest.raises(StoreError, match=r"s3://photos/o has a key .* pip install 'mobilenet-hub\[s3\]'"):
                keys("o")
    finally:
        for key in odd:
            client.delete_object(Bucket="photos", Key=key)
    assert main(["embed", "s3://photos/p", "-o", "s3://photos/a//out", "--module", "starter"]) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_once_is_tried_again(proxy, fault):
    seen = set()

    def once(method, path, number):
        known = (method, path) in seen
        seen.add((method, path))
        return None if known else fault

    proxy.rule = once
    wanted = {name: {**FILES, **OTHERS}[name] for name in PICTURES}
    assert content("p") == wanted
    for name in ("t/a.tar", "t/a.zip", "t/a.parquet"):
        assert list(content(name).values()) == list(FILES.values())


@pytest.mark.parametrize("fault", [500, 503, "lost", "cut", 403])
@pytest.mark.parametrize("name", ["p", "p/03.jpg", "t/a.tar", "t/a.zip", "t/a.parquet"])
def test_a_store_that_fails_is_no_bad_picture(proxy, monkeypatch, fault, name):
    """It fails for good from some request on: the run stops, and lists no photo as bad."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.rule = lambda method, path, number: fault
    with pytest.raises(StoreError, match="access is denied" if fault == 403 else "store"):
        list(decode_batches(items([f"s3://photos/{name}"]), Preprocessing(32)))
    proxy.rule = lambda method, path, number: fault if method == "GET" and ("p/03" in path or "t/" in path) else None
    if fault != "cut" or name == "p/03.jpg":
        with pytest.raises(StoreError):
            list(decode_batches(items([f"s3://photos/{name}"]), Preprocessing(32)))


@pytest.mark.parametrize("fault", ["hang", "stall"])
def test_a_store_that_never_answers_ends_a_run(proxy, either, monkeypatch, fault):
    for module in (stores, s3):
        monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.rule = lambda method, path, number: fault if method == "GET" and "p/03" in path else None
    with pytest.raises(StoreError, match="does not answer, or the connection breaks"):
        content("p")


def test_names_that_mean_nothing(proxy):
    for name, error in (("s3://", "names no bucket"), ("s3:///x", "names no bucket")):
        with pytest.raises(InputError, match=error):
            list(items([name]))
    for name in ("s3://nobody/p", "s3://nobody/p/1.jpg", "s3://nobody/*.jpg", "s3://nobody"):
        with pytest.raises(StoreError, match="there is no bucket nobody"):
            [item.read() for item in items([name])]
    assert content("none", "none.jpg", "*.none") == {
        "none": "no such object, and no pictures below it", "none.jpg": "no such object", "*.none": "matches no object",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        (400, "ExpiredToken", "AWS_ACCESS_KEY_ID|credentials have expired"),
        (400, "AuthorizationHeaderMalformed", "set AWS_REGION to the bucket's"),
        (301, "PermanentRedirect", "set AWS_REGION to the bucket's"),
        (403, "SignatureDoesNotMatch", "access is denied. Credentials are taken from AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_a_store_refuses_it_says_why(proxy, either, status, code, wanted):
    """A HEAD is answered without a text: where botocore is there, what is asked first is no HEAD, or asked again."""
    proxy.rule = lambda method, path, number: (status, code)
    for ask in (lambda: keys("p"), lambda: content("p/01.jpg"), ObjectPath.parse("s3://photos/out/.lock").tag):
        with pytest.raises(StoreError, match=wanted) as error:
            ask()
        assert not sys.modules.get("botocore") or status == 301 or code in str(error.value)


@pytest.mark.parametrize(
    ("address", "name"), [("s3://b/k", "AWS_SECRET_ACCESS_KEY"), ("gs://b/k", "GOOGLE_APPLICATION_CREDENTIALS")]
)
def test_credentials_are_asked_for_by_their_name(address, name):
    assert f" {name}" in str(stores.refusal(stores.Address.parse(address), "PERMISSION_DENIED"))


def test_a_server_with_a_certificate_of_ones_own(proxy, either, tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout"
    made = [*words.split(), tmp_path / "key.pem", "-out", tmp_path / "own.pem"]
    subprocess.run(["openssl", *made], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem", tmp_path / "key.pem")
    secure = Faulty(f"http://{proxy.store}")
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", secure.url.replace("http:", "https:"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="does not answer"):
        content("p/01.jpg")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "own.pem"))
    stores._filesystem.cache_clear()  # a process reads the variable once
    s3._direct.cache_clear()
    s3._opened.cache_clear()
    try:
        assert content("p/01.jpg", "t/a.zip")["p/01.jpg"] == FILES["p/01.jpg"]
        assert ObjectPath.parse("s3://photos/out/.lock").tag() is None
    finally:
        secure.shutdown()
        secure.server_close()


def test_who_may_read_need_not_list(proxy, either):
    proxy.rule = lambda method, path, number: 403 if "list-type" in path else None
    assert list(content("t/a.tar").values()) == list(FILES.values())
    assert content("p/01.jpg") == {"p/01.jpg": FILES["p/01.jpg"]}


WORDS = """
train {} | train p -o {} | convert {} -o m | convert m -o {} | export m --format onnx -o {} | similar {} --in f
similar a.jpg --in {} | dedupe {} | check {} | evaluate m {} | serve {} | embed a.jpg -o f --module {}
classify a --explain {} | info {} | pull {} | bench {}
"""


@pytest.mark.parametrize("words", [line.strip() for line in WORDS.replace("\n", "|").split("|") if line.strip()])
@pytest.mark.parametrize("address", ["s3://bucket/photos", "gs://bucket/m", "s3:/bucket/photos"])
def test_no_command_takes_an_address_for_a_path(tmp_path, monkeypatch, capsys, words, address):
    monkeypatch.chdir(tmp_path)
    assert main([word.format(address) for word in words.split()]) == 2
    assert "object store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_verb_of_python_does(tmp_path, monkeypatch):
    import mobilenet_hub as hub

    monkeypatch.chdir(tmp_path)
    make_work(tmp_path, 3, {})
    before = sorted(tmp_path.rglob("*"))
    for address in ("s3://bucket/x", Path("s3://bucket/x")):
        for call in (
            lambda a: hub.convert("m", a), lambda a: hub.train("photos", a), lambda a: hub.train(a, "out"),
            lambda a: hub.convert(a, "out"), lambda a: hub.export("m", "onnx", a), lambda a: hub.evaluate("m", a),
            lambda a: hub.check(a), lambda a: hub.dedupe(a),
        ):  # fmt: skip
            with pytest.raises(InputError, match="object store"):
                call(address)
    assert sorted(tmp_path.rglob("*")) == before
