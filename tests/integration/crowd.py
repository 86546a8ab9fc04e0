"""Many clients at once that want the same bytes: one thread, plain sockets, each body compared as it comes."""

import contextlib
import resource
import selectors
import socket
import time

import harness

PIECE = 256 << 10  # read at once, and what the kernel keeps for each client


class Reader:
    """One client: it asks, and compares what comes with what it ought to be."""

    def __init__(self, address, request, status, body):
        self.request, self.status, self.body = request, status, body
        self.head, self.at = b"", 0
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        self.sock.settimeout(harness.PATIENCE_S)
        self.sock.connect(address)
        self.sock.setblocking(False)

    def ask(self):
        assert self.sock.send(self.request) == len(self.request)

    def take(self):
        """What can be read now; true: that was all."""
        data = self.sock.recv(PIECE)
        assert data, f"cut off at byte {self.at} of {len(self.body)}: {self.head[:300]!r}"
        if b"\r\n\r\n" not in self.head:
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return False
            head, data = self.head.split(b"\r\n\r\n", 1)
            self.head = head + b"\r\n\r\n"
            assert head.startswith(b"HTTP/1.1 %d " % self.status), (head, data[:300])
            assert b"\r\nContent-Length: %d\r\n" % len(self.body) in self.head, head
        assert self.body.startswith(data, self.at), f"wrong bytes beyond byte {self.at}"
        self.at += len(data)
        return self.at == len(self.body)


def ask(members, count, object_id, body, headers=None, status=200, bytes_range=None):
    """COUNT clients, spread over MEMBERS, ask for the object at once, and all of them get BODY;
    BYTES_RANGE: for these two bytes of it and what lies between. HEADERS: of each request."""
    headers = dict(headers or {})
    if bytes_range:
        headers["Range"] = f"bytes={bytes_range[0]}-{bytes_range[1]}"
        body, status = body[bytes_range[0]:bytes_range[1] + 1], 206
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET /api/v1/get/{object_id} HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    end = time.monotonic() + 5 * harness.PATIENCE_S
    with selectors.DefaultSelector() as waiting, contextlib.ExitStack() as stack:
        readers = []
        for i in range(count):
            reader = Reader(members[i % len(members)].address, request, status, body)
            stack.callback(reader.sock.close)
            waiting.register(reader.sock, selectors.EVENT_READ, reader)
            readers.append(reader)
        for reader in readers:
            reader.ask()
        while waiting.get_map():
            assert time.monotonic() < end, f"{len(waiting.get_map())} of {count} wait still"
            for key, _ in waiting.select(1):
                if key.data.take():
                    waiting.unregister(key.fileobj)
