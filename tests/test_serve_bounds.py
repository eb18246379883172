"""What bounds the server: the queue, bodies, slow and malformed clients, its end, bursts; nothing is lost or wrong."""

import http.client
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving import CAT, JPEG, LONG, form, photos, running

from mobilenet_hub.inference.classify import Classifier

NEAR = 2e-2  # scores alone and in a batch; bf16 rounds sums that differ


def raw(server, data, timeout=30):
    """Send bytes, return all that comes back until the server closes."""
    with socket.create_connection((server.host, server.port), timeout=timeout) as connection:
        parts = []
        try:
            connection.sendall(data)
            while part := connection.recv(65536):
                parts.append(part)
        except (TimeoutError, ConnectionResetError):
            pass
    return b"".join(parts)


@pytest.fixture(scope="module")
def server():
    with running("--max-body", "1MB", "--queue", "16", "--timeout", "3") as started:
        yield started


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET \x00 HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        b"GET /v2?%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET http://evil.example/v2/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /v2/models/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_an_error_and_nothing_else(server, data):
    answer = raw(server, data)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert b'{"error":' in answer
    assert server.get("/v2/health/ready")[0] == 200


def test_headers_without_end_are_refused(server):
    answer = raw(server, b"GET /v2 HTTP/1.1\r\n" + b"X-A: " + b"a" * 200_000)
    assert answer.startswith(b"HTTP/1.1 431")


def test_bodies_that_are_too_long_are_refused(server):
    status, answer, _ = server.post("/classify", b"\xff" * 1_000_001, JPEG)
    assert (status, "1000000" in answer["error"]) == (413, True)
    head = b"POST /classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: image/jpeg\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    answer = raw(server, head + (b"10000\r\n" + b"a" * 65536 + b"\r\n") * 20)
    assert answer.startswith(b"HTTP/1.1 413")
    assert raw(server, b"POST /classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 411")


def test_more_images_than_the_queue_holds_are_refused(server):
    status, answer, _ = server.post("/classify", *form([("x", b"x")] * 17))
    assert (status, "--queue" in answer["error"]) == (413, True)


def test_a_picture_bomb_is_refused_from_its_header(server):
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    Image.new("1", (20_000, 12_000)).save(stream, "PNG")
    status, answer, _ = server.post("/classify", stream.getvalue(), JPEG)
    assert status == 400
    assert "million" in answer["error"]


def test_a_slow_client_is_cut_off_and_delays_nobody(server):
    """Two hundred send a byte a second: some never end their headers, some their bodies."""
    slow = []
    for index in range(200):
        connection = socket.create_connection((server.host, server.port))
        start = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n"
        connection.sendall(start + (b"Content-Length: 50000\r\n\r\n" if index % 2 else b""))
        slow.append(connection)
    data = CAT.read_bytes()
    begun = time.monotonic()
    answered = 0
    while time.monotonic() < begun + 2:
        for connection in slow:
            connection.send(b"a")
        assert server.post("/classify", data, JPEG)[0] == 200
        answered += 1
    assert answered > 10
    for connection in slow:
        connection.settimeout(10)
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408"), answer
        connection.close()


def test_keep_alive_outlives_a_proxys(server):
    connection = server.connect()
    for _ in range(1):
        connection.request("GET", "/v2")
        assert connection.getresponse().read()
        time.sleep(5.5)  # longer than the 5 seconds after which uvicorn would close
    connection.request("GET", "/v2")
    assert connection.getresponse().read()
    connection.close()


def classified(server, data, expected):
    """Return the status of a request; a good answer must be the classifier's."""
    connection = server.connect()
    try:
        connection.request("POST", "/classify?top=1", data, JPEG)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200:
            import json

            (prediction,) = json.loads(body)["predictions"]
            np.testing.assert_allclose(prediction["scores"][0], expected, atol=NEAR)
        elif answer.status == 503:
            assert answer.getheader("Retry-After")
        return answer.status
    finally:
        connection.close()


def test_a_burst_beyond_the_queue_gets_503_and_no_wrong_answer(server):
    files = photos(8)
    expected = [p.scores[0] for p in Classifier("starter").classify(files, 1)]
    with ThreadPoolExecutor(160) as clients:
        answers = list(clients.map(lambda i: classified(server, files[i % 8], expected[i % 8]), range(320)))
    assert set(answers) <= {200, 503}
    assert answers.count(200) >= 16
    assert server.get("/v2/health/ready")[0] == 200
    text = server.get("/metrics")[1].decode()
    assert "mobilenet_queue_images 0\n" in text
    assert "mobilenet_held_bytes 0\n" in text


def test_the_end_answers_what_was_accepted():
    """Twenty clients ask without a pause while the server is told to end: each request that was sent is answered."""
    data = CAT.read_bytes()
    lost, statuses = [], []
    with running() as server:
        end = threading.Event()

        def ask():
            connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
            try:
                while not end.is_set():
                    try:
                        connection.request("POST", "/classify", data, JPEG)
                    except ConnectionRefusedError:  # it no longer listens: nothing was accepted
                        return
                    answer = connection.getresponse()
                    answer.read()
                    statuses.append(answer.status)
                    if answer.getheader("Connection") == "close":
                        return
            except Exception as error:
                lost.append(error)
            finally:
                connection.close()

        clients = [threading.Thread(target=ask) for _ in range(20)]
        for client in clients:
            client.start()
        time.sleep(0.5)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        took = time.monotonic() - began
        end.set()
        for client in clients:
            client.join()
    assert not lost
    assert set(statuses) == {200, 503}
    assert took < 15


def test_not_ready_from_the_moment_it_is_told_to_end_and_a_second_signal_ends_it():
    with running("--timeout", "30") as server:
        kept = server.connect()
        kept.request("GET", "/v2/health/ready")
        assert kept.getresponse().read() == b'{"ready":true}'
        slow = socket.create_connection((server.host, server.port))
        slow.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: 100\r\n\r\n")
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        kept.request("GET", "/v2/health/ready")
        answer = kept.getresponse()
        assert (answer.status, answer.read()) == (503, b'{"ready":false}')
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == -signal.SIGTERM
        slow.close()
        kept.close()


def client():
    """Return the client of the benchmark: many connections in one thread, none of its time in threads' locks."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import serve_client

    return serve_client


@pytest.mark.slow
def test_every_answer_under_load_is_the_classifiers():
    """32 connections without a pause, then bursts of ten times what the queue holds (SERVE_LONG: for a minute)."""
    import json

    files = photos(12)
    expected = Classifier("starter").classify(files, 5)
    requests = [client().request("/classify?top=5", data, ["Content-Type: image/jpeg"]) for data in files]
    with running() as server:
        address = (server.host, server.port)
        answers, _ = client().load(address, requests, connections=32, seconds=60 if LONG else 3)
        assert {status for _, status, _, _ in answers} == {200}
        for _ in range(5 if LONG else 1):
            burst, _ = client().load(address, requests, connections=640, count=1280)
            assert len(burst) == 1280
            assert {status for _, status, _, _ in burst} == {200, 503}
            answers += burst
    checked = 0
    for number, status, body, _ in answers:
        answer = json.loads(body)
        if status == 503:
            assert "the queue is full" in answer["error"]
            continue
        (prediction,) = answer["predictions"]
        right = expected[number % len(files)]
        known = dict(zip(right.labels, right.scores, strict=True))
        np.testing.assert_allclose(prediction["scores"], right.scores, atol=NEAR)
        # Two that are nearly as likely may change places.
        for label, score in zip(prediction["labels"], prediction["scores"], strict=True):
            assert abs(known.get(label, score) - score) < NEAR
        checked += 1
    assert checked > 100


@pytest.mark.slow
def test_memory_stays_flat_over_many_requests():
    """20,000 requests of 32 connections, of good and bad pictures: the second half takes no more than the first."""
    load, request = client().load, client().request
    total = 20_000 if LONG else 6000
    with running("starter") as server:
        bodies = [*photos(6), b"no picture", CAT.read_bytes()[:2000]]
        requests = [request("/classify", body, ["Content-Type: image/jpeg"]) for body in bodies]

        def resident():
            lines = server.get("/metrics")[1].decode().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("process_resident"))

        load((server.host, server.port), requests, connections=32, count=total // 4)
        before = resident()
        answers, _ = load((server.host, server.port), requests, connections=32, count=total * 3 // 4)
        assert len(answers) == total * 3 // 4
        assert {status for _, status, _, _ in answers} == {200, 400}
        assert resident() < 1.1 * before
