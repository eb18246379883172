"""The client of benchmarks/serve.py: many connections in one thread, requests made beforehand, answers checked.

It costs about 20 us a request, so that a server on the same cores keeps them.
"""

import selectors
import socket
import time


def request(path, body, headers=()):
    """Return the bytes of a POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class _Connection:
    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number, self.start = 0, 0.0
        self.received = b""
        self.left = memoryview(b"")

    def answer(self):
        """Take what has come; return (status, body) once it is whole."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.received[:end].lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self.received) < end + 4 + length:
            return None
        body, self.received = self.received[end + 4 :], b""
        return int(head[9:12]), body


def load(address, requests, *, connections, count=None, seconds=None, rate=None):
    """Send requests, each from the list in turn, on so many connections; return [(number, status, body, seconds)].

    Args:
        address: (host, port).
        requests: bytes of requests.
        connections: how many at a time; each sends its next request when it has its answer.
        count: how many requests; None: for `seconds`.
        seconds: how long to begin requests.
        rate: begin so many a second, on whichever connection is free, and count from when each was due; None: at once.
    """
    chooser = selectors.DefaultSelector()
    idle = [_Connection(address) for _ in range(connections)]
    everyone = list(idle)
    results, sent = [], 0
    begin = time.perf_counter()

    def more():
        return sent < count if count is not None else time.perf_counter() < begin + seconds

    def due():
        return begin + sent / rate if rate else 0.0

    def push(connection):
        connection.socket.setblocking(False)
        try:
            done = connection.socket.send(connection.left)
        except BlockingIOError:
            done = 0
        connection.left = connection.left[done:]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.left else 0)
        try:
            chooser.modify(connection.socket, events, connection)
        except KeyError:
            chooser.register(connection.socket, events, connection)

    busy = 0
    while busy or more():
        while idle and more() and due() <= time.perf_counter():
            connection = idle.pop()
            connection.number = sent
            connection.start = due() if rate else time.perf_counter()
            connection.left = memoryview(requests[sent % len(requests)])
            sent += 1
            busy += 1
            push(connection)
        wait = max(0.0, due() - time.perf_counter()) if rate and idle and more() else None
        for key, events in chooser.select(wait):
            connection = key.data
            if events & selectors.EVENT_WRITE:
                push(connection)
            if events & selectors.EVENT_READ and (answer := connection.answer()):
                results.append((connection.number, *answer, time.perf_counter() - connection.start))
                idle.append(connection)
                busy -= 1
    for connection in everyone:
        connection.socket.close()
    return results, time.perf_counter() - begin
