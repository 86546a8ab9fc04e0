"""A small HTTP/1.1 client of our own: it sends exactly the bytes it is given, well-formed or not, and
tells exactly what came back. Libraries would refuse to send most of what the tests need, and would
hide how an answer was framed."""

import json
import os
import socket

# A sanitizer build is about ten times slower, and the machine may be busy: this bounds a hang, it
# never decides a test.
PATIENCE_S = float(os.environ.get("OBJSTORE_TEST_PATIENCE", "60"))


class Broken(Exception):
    """The connection ended before the answer did. `got` is what had arrived of the body."""

    def __init__(self, why, got=b""):
        super().__init__(why)
        self.got = got


class Reply:
    def __init__(self, status, reason, version, headers, body, interim):
        self.status, self.reason, self.version = status, reason, version
        self.headers, self.body, self.interim = headers, body, interim

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def header(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def json(self):
        return json.loads(self.body)

    def code(self):
        """The error's code, after checking the shape that every error has."""
        document = self.json()
        assert list(document) == ["error"], document
        error = document["error"]
        assert set(error) == {"code", "message"}, error
        assert error["code"] and error["message"]
        assert error["code"] == error["code"].lower() and " " not in error["code"]
        assert self.header("Content-Type") == "application/json"
        return error["code"]

    def __repr__(self):
        return f"<Reply {self.status} {self.headers} {self.body[:300]!r}>"


class Connection:
    """One connection, used for as many requests as both sides like."""

    def __init__(self, address, timeout=None):
        self.sock = socket.create_connection(address, timeout or PATIENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.sock.makefile("rb")

    def close(self):
        self.stream.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.sock.sendall(data)

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def _line(self):
        line = self.stream.readline(65536)
        if not line.endswith(b"\r\n"):
            raise Broken(f"the answer ended in a header: {line!r}")
        return line[:-2]

    def _head(self):
        line = self._line()
        version, status, reason = line.decode("latin-1").split(" ", 2)
        headers = []
        while line := self._line():
            name, value = line.split(b":", 1)
            assert name == name.strip() and value.startswith(b" "), line
            headers.append((name.decode("ascii"), value.strip().decode("utf-8", "surrogateescape")))
        return version, int(status), reason, headers

    def _exactly(self, count):
        data = bytearray()
        try:
            while len(data) < count:
                part = self.stream.read1(min(count - len(data), 1 << 18))
                if not part:
                    break
                data += part
        except ConnectionResetError:
            pass  # a cut may look like this, too
        if len(data) != count:
            raise Broken(f"{len(data)} bytes of {count}", bytes(data))
        return bytes(data)

    def read(self, method="GET", until_continue=False):
        """The next answer; interim ones are listed in it. UNTIL_CONTINUE: a 100 is an answer, too."""
        interim = []
        version, status, reason, headers = self._head()
        while status < 200 and not until_continue:
            interim.append(status)
            version, status, reason, headers = self._head()
        names = {n.lower(): v for n, v in headers}
        assert "transfer-encoding" not in names, "our answers always carry a length"
        body = b""
        if status >= 200 and status not in (204, 304) and method != "HEAD":
            body = self._exactly(int(names["content-length"]))
        return Reply(status, reason, version, headers, body, interim)

    def read_raw(self, limit=1 << 26):
        """Everything until the other side closes."""
        data = bytearray()
        try:
            while len(data) < limit:
                part = self.stream.read1(1 << 16)
                if not part:
                    return bytes(data)
                data += part
        except ConnectionResetError:
            return bytes(data)
        raise Broken("it does not end")

    def at_end(self):
        """The other side has closed, and sent nothing more before."""
        try:
            return self.stream.read(1) == b""
        except ConnectionResetError:
            return True

    def request(self, method, path, headers=(), body=None):
        self.send(head(method, path, headers, None if body is None else len(body)))
        if body:
            self.send(body)
        return self.read(method)


def head(method, path, headers=(), length=None, host="localhost"):
    """A request header. HEADERS: a dict or pairs; values str (sent as UTF-8) or bytes."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    lines = [f"{method} {path} HTTP/1.1".encode(), f"Host: {host}".encode()]
    for name, value in pairs:
        if not isinstance(value, bytes):
            value = str(value).encode()
        lines.append(name.encode() + b": " + value)
    if length is not None:
        lines.append(f"Content-Length: {length}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunked(body, size):
    """BODY in the chunked coding, in chunks of SIZE."""
    out = b""
    for at in range(0, len(body), size):
        part = body[at : at + size]
        out += b"%x\r\n" % len(part) + part + b"\r\n"
    return out + b"0\r\n\r\n"


class Client:
    """Requests on a connection that is kept alive; a new one where the server closed it."""

    def __init__(self, address):
        self.address = address
        self.connection = None

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def request(self, method, path, headers=(), body=None):
        fresh = self.connection is None
        try:
            if fresh:
                self.connection = Connection(self.address)
            reply = self.connection.request(method, path, headers, body)
        except (Broken, OSError) as error:
            self.close()
            # An idle connection may have been closed meanwhile; that is no answer of the server's.
            if fresh or getattr(error, "got", b""):
                raise
            return self.request(method, path, headers, body)
        except BaseException:
            self.close()
            raise
        if reply.header("Connection", "").lower() == "close":
            self.close()
        return reply

    def put(self, body, headers=(), method="POST", **meta):
        """META: id, name, level, user_meta (a dict or text)."""
        pairs = list(headers.items() if isinstance(headers, dict) else headers)
        names = {"id": "X-Meta-ID", "name": "X-Meta-Name", "level": "X-Meta-ConsistencyLevel",
                 "user_meta": "X-Meta-UserMeta"}
        for key, value in meta.items():
            value = json.dumps(value) if isinstance(value, dict) else value
            pairs.append((names[key], value))
        return self.request(method, "/api/v1/put", pairs, body)

    def stored(self, body, *args, **meta):
        """As put, for what must succeed: the document."""
        reply = self.put(body, *args, **meta)
        assert reply.status in (200, 202), reply
        return reply.json()

    def get(self, object_id, headers=(), method="GET"):
        return self.request(method, f"/api/v1/get/{object_id}", headers)

    def meta(self, object_id):
        return self.request("GET", f"/api/v1/meta/{object_id}")

    def set_meta(self, object_id, headers):
        return self.request("POST", f"/api/v1/meta/{object_id}", headers, b"")

    def delete(self, object_id, headers=()):
        return self.request("POST", f"/api/v1/delete/{object_id}", headers, b"")

    def stats(self):
        reply = self.request("GET", "/api/v1/stats")
        assert reply.status == 200, reply
        return reply.json()
