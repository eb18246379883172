"""Downloads from a real server that misbehaves on purpose."""

import base64
import hashlib
import io
import random
import time

import pytest
from servers import Answer, closed_port, serving

from mobilenet_hub.errors import DownloadError, OutputError
from mobilenet_hub.store.download import Policy, UnreachableError, download

QUICK = Policy(timeout_s=0.5, attempts=3, first_pause_s=0.01, longest_pause_s=0.05)
BODY = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "file"


def refused(server, target, *answers, path="/file", match=None, policy=QUICK):
    with pytest.raises(DownloadError, match=match) as caught:
        download(server.serve(path, *answers), target, policy=policy)
    assert not target.exists()
    return str(caught.value)


def test_an_honest_answer(server, target):
    done = download(server.serve("/file", Answer(BODY)), target, policy=QUICK)
    assert (done.size, done.sha256) == (len(BODY), SHA256)
    assert target.read_bytes() == BODY
    assert [file.name for file in target.parent.iterdir()] == ["file"]
    assert server.requests[0].headers["user-agent"].startswith("mobilenet-hub/")


def test_redirects_are_followed_and_the_last_address_is_kept(server, target):
    server.serve("/b", Answer(status=303, headers={"Location": "/c?signed=1"}))
    server.serve("/c", Answer(BODY))
    done = download(server.serve("/a", Answer(status=301, headers={"Location": "/b"})), target, policy=QUICK)
    assert done.url == f"{server.url}/c?signed=1"
    assert target.read_bytes() == BODY


def test_redirect_loops_end(server, target):
    server.serve("/b", Answer(status=302, headers={"Location": "/a"}))
    refused(server, target, Answer(status=302, headers={"Location": "/b"}), path="/a", match="circle")
    assert len(server.requests) < 20


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_to_other_schemes_are_refused(server, target, location):
    refused(server, target, Answer(status=302, headers={"Location": location}), match="not safe|circle")


def test_a_redirect_from_https_to_http_is_refused():
    import urllib.request

    from mobilenet_hub.store.download import _Redirects

    request = urllib.request.Request("https://example.org/x")
    with pytest.raises(DownloadError, match="not safe"):
        _Redirects().redirect_request(request, io.BytesIO(), 302, "Found", {}, "http://example.org/x")


@pytest.mark.parametrize("status", [403, 404, 410, 401])
def test_a_final_refusal_is_not_tried_again(server, target, status):
    refused(server, target, Answer(b"no", status), match=f"answered {status}")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_passing_failure_is_tried_again(server, target, status):
    url = server.serve("/file", Answer(b"busy", status), Answer(b"busy", status), Answer(BODY))
    download(url, target, policy=QUICK)
    assert target.read_bytes() == BODY


def test_a_lasting_failure_ends(server, target):
    text = refused(server, target, Answer(b"broken", 500))
    assert "500" in text
    assert "3 attempts" in text
    assert len(server.requests) == 3


def test_retry_after_is_honoured(server, target):
    policy = Policy(timeout_s=0.5, attempts=3, first_pause_s=0.01, longest_pause_s=1.5)
    url = server.serve("/file", Answer(b"later", 503, {"Retry-After": "1"}), Answer(BODY))
    started = time.monotonic()
    download(url, target, policy=policy)
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_a_cut_off_answer_is_resumed(server, target, etag):
    answers = [Answer(BODY, etag=etag, cut_after=100_000)] * 2 + [Answer(BODY, etag=etag)]
    download(server.serve("/file", *answers), target, policy=QUICK)
    assert target.read_bytes() == BODY
    ranges = [request.headers.get("range") for request in server.requests]
    assert ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert server.requests[1].headers.get("if-range") == etag


def test_progress_forgives_earlier_failures(server, target):
    download(server.serve("/file", Answer(BODY, etag='"v1"', cut_after=70_000)), target, policy=QUICK)
    assert target.read_bytes() == BODY
    assert len(server.requests) == 5


def test_a_file_that_changed_in_between_is_fetched_whole(server, target):
    other = BODY[::-1]
    url = server.serve("/file", Answer(BODY, etag='"v1"', cut_after=100_000), Answer(other, etag='"v2"'))
    download(url, target, policy=QUICK)
    assert target.read_bytes() == other


def test_a_server_without_ranges_sends_everything_again(server, target):
    url = server.serve("/file", Answer(BODY, ranges=False, cut_after=100_000), Answer(BODY, ranges=False))
    download(url, target, policy=QUICK)
    assert target.read_bytes() == BODY


def test_a_wrong_range_starts_over(server, target):
    wrong = Answer(BODY[5:], 206, {"Content-Range": f"bytes 5-{len(BODY) - 1}/{len(BODY)}"})
    refused(server, target, Answer(BODY, etag='"v1"', cut_after=100_000), wrong, match="another range")


def test_a_range_that_no_longer_exists_starts_over(server, target):
    answers = [Answer(BODY, etag='"v1"', cut_after=100_000), Answer(b"", 416), Answer(BODY, etag='"v1"')]
    download(server.serve("/file", *answers), target, policy=QUICK)
    assert target.read_bytes() == BODY


def test_what_a_killed_process_received_is_resumed(server, target):
    url = server.serve("/file", Answer(BODY, etag='"v1"', cut_after=100_000))
    with pytest.raises(DownloadError):
        download(url, target, policy=Policy(attempts=1))
    server.serve("/file", Answer(BODY, etag='"v1"'))
    download(url, target, policy=QUICK)
    assert target.read_bytes() == BODY
    assert server.requests[-1].headers["range"] == "bytes=100000-"


def test_the_part_of_another_address_is_not_used(server, target):
    with pytest.raises(DownloadError):
        download(server.serve("/other", Answer(BODY[::-1], cut_after=1000)), target, policy=Policy(attempts=1))
    download(server.serve("/file", Answer(BODY)), target, policy=QUICK)
    assert target.read_bytes() == BODY


def test_a_claimed_length_that_never_comes(server, target):
    refused(server, target, Answer(BODY, ranges=False, claimed_length=len(BODY) + 10), match="ended after 300000 of")


def test_more_than_a_module_may_have(server, target):
    policy = Policy(timeout_s=0.5, attempts=1, max_bytes=100_000)
    refused(server, target, Answer(BODY), match="more than the 100000", policy=policy)
    refused(server, target, Answer(BODY, no_length=True), match="more than the 100000", policy=policy)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(hashlib.md5(BODY).digest()).decode()}"},
        {"Content-MD5": base64.b64encode(hashlib.md5(BODY).digest()).decode()},
        {"Digest": f"sha-256={base64.b64encode(hashlib.sha256(BODY).digest()).decode()}"},
        {"Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_stated_checksums_are_held(server, target, headers):
    download(server.serve("/file", Answer(BODY, headers=headers)), target, policy=QUICK)
    target.unlink()
    flipped = bytes([BODY[0] ^ 1]) + BODY[1:]
    refused(server, target, Answer(flipped, headers=headers), match="states")


def test_a_web_page_is_not_an_archive(server, target):
    page = Answer(b"<html>Sign in</html>", headers={"Content-Type": "text/html; charset=utf-8"})
    refused(server, target, page, match="web page")


def test_a_server_that_does_not_answer(server, target):
    started = time.monotonic()
    refused(server, target, Answer(BODY, delay_s=5), policy=Policy(timeout_s=0.2, attempts=2, first_pause_s=0.01))
    assert time.monotonic() - started < 3


def test_a_slow_but_steady_server_is_waited_for(server, target):
    slow = Answer(BODY[:20_000], chunk=1000, chunk_delay_s=0.05)  # one second, twice the timeout
    download(server.serve("/file", slow), target, policy=QUICK)
    assert target.read_bytes() == BODY[:20_000]


def test_a_trickle_is_not_waited_for(server, target):
    trickle = Answer(BODY, ranges=False, chunk=1, chunk_delay_s=0.1)
    started = time.monotonic()
    refused(server, target, trickle, match="only . bytes", policy=Policy(timeout_s=0.3, attempts=1))
    assert time.monotonic() - started < 3


def test_a_server_that_hangs_up_without_an_answer(server, target):
    hangs_up = Answer(status=0)
    download(server.serve("/file", hangs_up, hangs_up, Answer(BODY)), target, policy=QUICK)
    assert target.read_bytes() == BODY
    with pytest.raises(UnreachableError, match="no valid answer"):
        download(server.serve("/other", hangs_up), target.with_name("other"), policy=QUICK)


def test_nobody_listens(target):
    url = f"http://127.0.0.1:{closed_port()}/file"
    with pytest.raises(DownloadError, match="no connection"):
        download(url, target, policy=QUICK)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd", ""])
def test_other_schemes_are_refused(url, target):
    with pytest.raises(DownloadError, match="not an http or https"):
        download(url, target, policy=QUICK)


def test_an_unwritable_target(server, tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="blocked"):
        download(server.serve("/file", Answer(BODY)), tmp_path / "blocked" / "file", policy=QUICK)
