"""An HTTP proxy that does to chosen requests what networks and servers do on bad days.

It passes bytes on as they are, so signatures stay valid. A fault is named when it is set, applies to
requests that match, so many times, and each time is recorded in `hits`:

    status       answered with that status and headers, not passed on
    delay        passed on after so many seconds
    cut          the answer ends after so many bytes of its body (-1: before its header)
    stall        the same, but the connection stays open in silence
    corrupt      one byte of the answer's body is another
    garble       one byte of the request's body is another on its way to the server
    reset        the connection is reset after so many bytes of the request's body; not passed on
    lost         passed on and done there; the connection is reset instead of an answer
    rewrite      the answer's header is passed through a function
"""

import contextlib
import socket
import struct
import threading
import time

CHUNK = 64 << 10


class Fault:
    def __init__(self, kind, method=None, path="", times=None, after=0, seconds=0.0, status=500, headers="",
                 body=b"", change=None, query=None):
        self.kind, self.method, self.path, self.times = kind, method, path, times
        self.after, self.seconds, self.status, self.headers, self.body = after, seconds, status, headers, body
        self.change, self.query = change, query

    def matches(self, method, target):
        path, _, query = target.partition("?")
        return (self.method in (None, method) and self.path in path and self.times != 0
                and (self.query is None or self.query in query))


class Reader:
    """What comes on a socket: a header, then bodies of a known length."""

    def __init__(self, sock):
        self.sock, self.rest = sock, b""

    def head(self):
        while b"\r\n\r\n" not in self.rest:
            more = self.sock.recv(CHUNK)
            if not more:
                return None
            self.rest += more
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        return head + b"\r\n\r\n"

    def some(self, most):
        if not self.rest:
            self.rest = self.sock.recv(min(CHUNK, most))
        data, self.rest = self.rest[:most], self.rest[most:]
        return data


def field(head, name):
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


def length_of(head):
    return int(field(head, b"content-length") or 0)


class Gone(Exception):
    """This connection is over."""


class Proxy:
    def __init__(self, upstream_port, port=0):
        self.upstream = upstream_port
        self.lock = threading.Lock()
        self.faults, self.hits, self.requests, self.heads = [], [], [], []
        self.bytes_down = 0
        self.port = port
        self.listener = None
        self.open = set()
        self.closed = threading.Event()
        self.start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    # ---- For tests ----

    def fault(self, kind, **more):
        made = Fault(kind, **more)
        with self.lock:
            self.faults.append(made)
        return made

    def clear(self):
        with self.lock:
            self.faults.clear()

    def start(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def stop(self):
        """Away: connections are refused, open ones reset."""
        listener, self.listener = self.listener, None
        if listener:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self.lock:
            everyone = list(self.open)
        for sock in everyone:
            self.reset(sock)

    def close(self):
        self.closed.set()
        self.stop()

    # ---- Its threads ----

    def accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    @staticmethod
    def reset(sock):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.shutdown(socket.SHUT_RD)
        with contextlib.suppress(OSError):
            sock.close()

    def choose(self, method, target, head):
        with self.lock:
            self.requests.append((method, target))
            self.heads.append(head)
            for fault in self.faults:
                if fault.matches(method, target):
                    if fault.times is not None:
                        fault.times -= 1
                    self.hits.append((fault.kind, method, target))
                    return fault
        return None

    def serve(self, client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.open.add(client)
        reader = Reader(client)
        try:
            while True:
                head = reader.head()
                if head is None:
                    break
                self.exchange(client, reader, head)
        except (Gone, OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(client)
            with contextlib.suppress(OSError):
                client.close()

    def exchange(self, client, reader, head):
        method, target = head.split(b" ", 2)[:2]
        method, target = method.decode(), target.decode()
        fault = self.choose(method, target, head) or Fault("none")
        size = length_of(head)
        if fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault.kind == "reset" and fault.after == 0:
            self.reset(client)
            raise Gone
        waits = (field(head, b"expect") or b"").lower() == b"100-continue"
        if fault.kind == "status":
            if not waits:
                self.swallow(reader, size)
            self.answer(client, fault, method)
            if waits:
                raise Gone  # whether the body comes is the client's to choose
            return
        if waits:
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = b"\r\n".join(x for x in head.split(b"\r\n") if not x.lower().startswith(b"expect:"))
        with socket.create_connection(("127.0.0.1", self.upstream)) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.sendall(head)
            self.pass_body(client, reader, server, size, fault)
            self.pass_answer(client, Reader(server), method, fault)

    def swallow(self, reader, size):
        while size > 0:
            data = reader.some(size)
            if not data:
                raise Gone
            size -= len(data)

    @staticmethod
    def answer(client, fault, method):
        body = fault.body if method != "HEAD" else b""
        client.sendall(f"HTTP/1.1 {fault.status} X\r\nContent-Length: {len(fault.body)}\r\n"
                       f"Content-Type: application/xml\r\n{fault.headers}\r\n".encode() + body)

    def pass_body(self, client, reader, server, size, fault):
        done = 0
        while done < size:
            data = reader.some(size - done)
            if not data:
                raise Gone
            if fault.kind == "reset" and done + len(data) >= fault.after:
                self.reset(client)
                raise Gone
            if fault.kind == "garble" and done <= fault.after < done + len(data):
                data = bytearray(data)
                data[fault.after - done] ^= 1
            server.sendall(data)
            done += len(data)

    def pass_answer(self, client, reader, method, fault):
        head = reader.head()
        if head is None:
            raise Gone
        if fault.kind == "lost":
            self.reset(client)
            raise Gone
        if fault.kind == "rewrite":
            head = fault.change(head)
        if fault.kind in ("cut", "stall") and fault.after < 0:
            self.end(fault)
        client.sendall(head)
        chunked = (field(head, b"transfer-encoding") or b"").lower() == b"chunked"
        size = 0 if method == "HEAD" or head.split(b" ")[1] in (b"204", b"304") else length_of(head)
        done = 0
        while done < size or chunked:
            data = reader.some(size - done if not chunked else CHUNK)
            if not data:
                raise Gone
            if fault.kind in ("cut", "stall") and done + len(data) > fault.after:
                client.sendall(data[:fault.after - done])
                self.end(fault)
            if fault.kind == "corrupt" and done <= fault.after < done + len(data):
                data = bytearray(data)
                data[fault.after - done] ^= 1
            client.sendall(data)
            done += len(data)
            with self.lock:
                self.bytes_down += len(data)
            if chunked and data.endswith(b"0\r\n\r\n"):
                break

    def end(self, fault):
        if fault.kind == "stall":
            self.closed.wait(60)
        raise Gone
