"""Connections: what smuggles, floods, waits, or offers other protocols gets an error or an answer, and nothing else."""

import asyncio
import re
import socket
import time
from contextlib import ExitStack, closing

import pytest
from serving import CAT, JPEG, LONG, form, photos, running

HEAD = b"POST /classify?top=1 HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"


@pytest.fixture(scope="module")
def server():
    with running("--timeout", "2") as started:
        yield started


def connected(server):
    return socket.create_connection((server.host, server.port), timeout=20)


def received(connection):
    """Return all that comes until the server closes, or sends nothing for a second."""
    connection.settimeout(1)
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except (TimeoutError, ConnectionError):
        pass
    return b"".join(parts)


def post(data, *headers):
    return b"".join([HEAD, *(h + b"\r\n" for h in headers), b"Content-Length: %d\r\n\r\n" % len(data), data])


# What proxies and servers have read differently: where one sees one request, the other sees two.
@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: 0x5\r\n\r\nhello",
        HEAD + b"Content-Length: 18446744073709551616\r\n\r\nhello",
        HEAD + b"Content-Length: \r\n\r\nhello",
        HEAD + b"Content-Length : 5\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"Transfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"Content-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\n-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\n5 \r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\n5\nhello\n0\n\n",
        CHUNKED + b"\r\n5\r\nhelloXX0\r\n\r\n",
        b"GET /v2 HTTP/1.1\nHost: a\n\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n\r\n",  # RFC 9112, 3.2: without a host, or with two, 400
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /v2\r\n\r\n",  # HTTP/0.9
        b"GET /v2 HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        b"FOO /v2 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_proxies_and_servers_read_differently_is_refused_and_the_connection_closed(server, data):
    with connected(server) as connection:
        connection.sendall(data + b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b'{"error":' in answer
    assert answer.count(b"HTTP/1.1 ") == 1  # what followed is no request
    assert b"connection: close" in answer


def pieces(data, *cuts):
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize("address", [b"/classify?top=3", b"/embed", b"/classify?module=none", b"/classify?top=0"])
def test_a_request_gets_the_same_answer_whichever_way_it_comes(server, address):
    data = CAT.read_bytes()
    whole = post(data, b"X-Request-Id: a").replace(b"/classify?top=1", address)
    head = whole.index(b"\r\n\r\n") + 4
    chunked = (CHUNKED + b"X-Request-Id: a\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)).replace(
        b"/classify?top=1", address
    )
    ways = [
        [whole],
        pieces(whole, 30),
        pieces(whole, head),
        pieces(whole, head + 1, head + 2000, head + 9000),
        [chunked],
        [post(data, b"X-Request-Id: a", b"Expect: 100-continue").replace(b"/classify?top=1", address)],
    ]
    answers = set()
    for way in ways:
        with connected(server) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in way:
                connection.sendall(piece)
                time.sleep(0.05)
            answer = received(connection).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        answers.add(re.sub(rb"date: [^\r]+\r\n", b"", answer))
    assert len(answers) == 1, answers


def test_what_is_wrong_with_a_request_ends_no_connection(server):
    wrong = [
        post(b"\xff\xd8" + bytes(100_000)).replace(b"top=1", b"top=none"),
        post(b"\xff\xd8" + bytes(100_000)),
        post(bytes(100_000)).replace(b"image/jpeg", b"text/plain"),
        post(b""),
    ]
    with connected(server) as connection:
        connection.sendall(b"".join(wrong) + post(CAT.read_bytes()))  # pipelined
        assert re.findall(rb"HTTP/1.1 (\d+)", received(connection)) == [b"422", b"400", b"415", b"400", b"200"]
    with connected(server) as connection:
        for data, status in zip([*wrong, post(CAT.read_bytes())], [422, 400, 415, 400, 200], strict=True):
            connection.sendall(data)
            connection.settimeout(20)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 %d" % status)


def test_an_idle_connection_is_closed_and_one_in_use_is_not(monkeypatch):
    from mobilenet_hub.serve import connection as subject
    from mobilenet_hub.serve.app import Access, App
    from mobilenet_hub.serve.limits import Limits
    from mobilenet_hub.serve.served import Modules, Options
    from mobilenet_hub.serve.state import State

    monkeypatch.setattr(subject, "KEEP_ALIVE_S", 1.0)
    modules = Modules()
    modules.add("starter", Options())
    state = State(modules, Limits(), 1)
    ask = b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n"

    async def used() -> None:
        server = subject.server_for(App(state, Access()), state)
        server.config.load()
        about = {"config": server.config, "server_state": server.server_state, "app_state": {}}
        make = lambda: server.config.http_protocol_class(**about)  # noqa: E731
        async with await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0) as listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            for _ in range(3):  # two seconds, and never one without a request
                writer.write(ask)
                assert (await reader.read(1 << 16)).startswith(b"HTTP/1.1 200")
                await asyncio.sleep(0.7)
            writer.write(ask[:20])  # a head has a time of its own
            await asyncio.sleep(0.7)
            writer.write(ask[20:])
            assert (await reader.read(1 << 16)).startswith(b"HTTP/1.1 200")
            begun = time.monotonic()
            assert await asyncio.wait_for(reader.read(), 20) == b""
            assert time.monotonic() - begun > 0.9
            writer.close()

    try:
        asyncio.run(used())
    finally:
        state.batcher.close()


def test_pipelined_requests_are_answered_in_their_order(server):
    files = photos(6)
    with connected(server) as connection:
        connection.sendall(b"".join(post(data, b"X-Request-Id: r%d" % n) for n, data in enumerate(files)))
        answer = received(connection)
    assert answer.count(b"HTTP/1.1 200") == 6
    places = [answer.index(b"x-request-id: r%d\r\n" % n) for n in range(6)]
    assert places == sorted(places)


def test_a_pipelined_body_that_comes_later_is_waited_for(server):
    data = CAT.read_bytes()
    whole = post(data)
    with connected(server) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n" + whole[:-1000])
        time.sleep(1.5)
        connection.sendall(whole[-1000:])
        assert received(connection).count(b"HTTP/1.1 200") == 2


def test_a_request_that_offers_http2_keeps_its_body(server):
    """As Java's client sends its first, and curl with --http2."""
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    data = CAT.read_bytes()
    for cut in (len(post(data, *offer)), 40, 250):  # whole, within the head, within the body
        with connected(server) as connection:
            connection.sendall(post(data, *offer)[:cut])
            time.sleep(0.05)
            connection.sendall(post(data, *offer)[cut:] + post(data))
            answer = received(connection)
        assert answer.count(b"HTTP/1.1 200") == 2, answer
        assert answer.count(b"Egyptian cat") == 2
    with connected(server) as connection:
        socket_offer = b"GET /v2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        connection.sendall(socket_offer * 500)
        assert received(connection).count(b"HTTP/1.1 200") == 500


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (CHUNKED + b"\r\n5\r\nhello\r\n0\r\n", b"X-A: " + b"a" * 1000 + b"\r\n"),  # trailers
        (CHUNKED + b"\r\n5;", b"a" * 1000),  # an extension of a chunk
        (b"", b"\r\n" * 500),  # blank lines before a request
        (b"GET /v2 HTTP/1.1\r\n", b"X-A: " + b"a" * 1000 + b"\r\n"),
        (b"GET /", b"a" * 1000),
    ],
)
def test_what_never_ends_is_cut_off_and_takes_no_memory(server, start, more):
    before = server.most_memory()
    with connected(server) as connection:
        connection.settimeout(5)
        begun, sent = time.monotonic(), 0
        with pytest.raises(ConnectionError):
            connection.sendall(start)
            while time.monotonic() < begun + 20:
                sent += connection.send(more * 200)
    assert server.most_memory() < before + 60_000_000, sent


def test_blank_lines_keep_no_connection(server):
    with connected(server) as connection:
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() < begun + 20:
                connection.sendall(b"\r\n")
                time.sleep(0.2)
        assert time.monotonic() < begun + 6


def test_more_connections_than_files_are_refused_and_the_others_answered():
    with running(files=160) as server, closing(server.connect()) as kept:
        kept.request("GET", "/v2")
        assert kept.getresponse().read()
        data = CAT.read_bytes()
        with ExitStack() as many:
            for _ in range(200):
                many.enter_context(connected(server))
            kept.request("POST", "/classify", data, JPEG)
            assert kept.getresponse().read().startswith(b'{"module"'), server.log()
            status, answer, headers = server.get("/v2")
            assert (status, headers["retry-after"]) == (503, "1")
            assert "connections" in answer["error"]
        end = time.monotonic() + 10
        while server.post("/classify", data, JPEG)[0] != 200:
            assert time.monotonic() < end
        assert server.log() == ""


def test_a_client_that_does_wrong_fills_no_log(server):
    with connected(server) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        received(connection)
    server.post("/classify", b"x", {"Content-Type": "multipart/form-data; boundary=a"})
    assert server.log() == ""


@pytest.mark.skipif(not LONG, reason="waits for minutes; set SERVE_LONG")
def test_a_client_that_takes_its_answer_slowly_is_cut_off():
    """Of an answer that the system's buffers do not hold: what they hold costs the server nothing."""
    body, headers = form([(str(n), photos(1)[0]) for n in range(700)])
    with running("--queue", "1000", "--max-body", "1GB", "--timeout", "60") as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((server.host, server.port))
        kind = headers["Content-Type"].encode()
        head = b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (kind, len(body)) + body)
        begun, taken = time.monotonic(), 0
        with pytest.raises(ConnectionError):
            while time.monotonic() < begun + 240:
                taken += len(connection.recv(1))
                time.sleep(0.01)
        assert time.monotonic() - begun > 25
        assert taken < 100_000
        assert server.get("/v2/health/ready")[0] == 200
