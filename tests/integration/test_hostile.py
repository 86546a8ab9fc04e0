"""Clients that mean harm, on raw sockets against the real program. Of every case: the answers and
whether the connection stays, no second request smuggled in, a fresh connection served, no fact
changed; and of all together: no file descriptor, temporary file or memory left behind."""

import json
import os
import select
import socket
import threading
import time

import pytest

import wire
from harness import FIGURES, sanitized, ulid, wait_for
from hostile import BIG_BYTES, DONE, Case, Trap, statuses
from hostile_table import RESETS, SLOW, TABLES, UNREAD

ROWS = [(table, name) for table, rows in TABLES.items() for name in rows]
DEADLINE = "1s"  # of each phase, instead of 10 to 75 seconds


@pytest.fixture(scope="module")
def trap(shared_node):
    made = Trap(shared_node)
    yield made
    made.assert_nothing_left()


@pytest.fixture(scope="module", autouse=True)
def figures():
    yield
    FIGURES.append(f"hostile clients: {sum(DONE.values())} cases (" +
                   ", ".join(f"{count} {table}" for table, count in DONE.items()) + ")")


@pytest.mark.parametrize("table,name", ROWS)
def test_requests(node, trap, table, name):
    """Each row of the table."""
    answers = trap.spring(TABLES[table][name], table)
    if table == "ranges" and TABLES[table][name].keep:
        assert sum(len(reply.body) for reply in answers) <= BIG_BYTES + (16 << 10)


@pytest.mark.parametrize("name", RESETS)
def test_resets(node, trap, name):
    """The client breaks the connection at each phase: nothing of its request stays."""
    case, read = RESETS[name]
    trap.reset(case, read, "resets")


# ---- Slow clients ----


def crawl(connection, drip):
    """Send DRIP again and again until the other side has ended; all that came."""
    got, end = b"", time.monotonic() + wire.PATIENCE_S
    while time.monotonic() < end:
        readable, _, _ = select.select([connection.sock], [], [], 0.05)
        try:
            part = connection.sock.recv(1 << 16) if readable else None
            if part == b"":
                return got
            if drip and not readable:
                connection.send(drip)
        except (ConnectionResetError, BrokenPipeError):
            return got
        got += part or b""
    return b"it was let go on"


def test_slow_clients(nodes):
    """Slow header, slow body, idle, all at once: each is ended at its deadline with its answer, the
    others are served meanwhile, and nothing stays."""
    trap = Trap(nodes.start("--http-deadline", DEADLINE))
    node, results = trap.node, {}

    def client(name, begin, drip):
        with wire.Connection(node.address) as connection:
            connection.send(trap.bytes_of(Case(begin, tail=False), ulid().encode()))
            results[name] = crawl(connection, drip)

    with node.unchanged():
        threads = [threading.Thread(target=client, args=(name, begin, drip))
                   for name, (begin, drip, _) in SLOW.items()]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with wire.Connection(node.address) as other:
                assert other.request("GET", f"/api/v1/get/{trap.victim.decode()}").status == 200
        for name, (_, _, expected) in SLOW.items():
            assert statuses(results[name]) == expected, (name, results[name])
            assert not expected or expected[-1] < 400 or b"\r\nConnection: close\r\n" in results[name], name
            DONE["slow"] += 1
    trap.assert_nothing_left()


def test_refused_clients_that_keep_their_end_open(nodes):
    """Who is refused and then neither sends nor closes is let go of, after the node's patience."""
    trap = Trap(nodes.start())
    with wire.Connection(trap.node.address) as connection:
        connection.send(b"POST /api/v1/put HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert statuses(connection.read_raw()) == [400]
        trap.assert_nothing_left()  # while our end is open
    DONE["slow"] += 1


@pytest.mark.parametrize("name", UNREAD)
def test_slow_readers(nodes, name):
    """Who asks for much and takes nothing is cut off, and what was kept for it is free again."""
    trap = Trap(nodes.start("--http-deadline", DEADLINE))
    readers = [socket.socket() for _ in range(8)]
    try:
        with trap.node.unchanged():
            for reader in readers:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.connect(trap.node.address)
                reader.setblocking(False)
                try:
                    reader.send(trap.bytes_of(Case(UNREAD[name], tail=False), ulid().encode()))
                except BlockingIOError:
                    pass
            wait_for(lambda: trap.node.stats()["http"]["connections"] > 1, "the readers to be connected")
            trap.assert_nothing_left()
    finally:
        for reader in readers:
            reader.close()
    DONE["slow"] += 1


# ---- What clients say about objects ----

HOSTILE_TEXTS = {
    "traversal": "../../../../etc/passwd", "absolute": "/etc/passwd", "backslashes": "..\\..\\boot.ini", "dots": "..",
    "option": "--help", "short option": "-rf", "quotes": '"; filename="x', "shell": "$(reboot); `reboot` | reboot &",
    "HTML": "<script>alert(1)</script>", "SQL": "'; DROP TABLE objects; --", "escapes": "%0d%0aX-Injected:%201",
    "C escapes": "a\\r\\nX-Injected: 1", "line separator": "a\u2028X-Injected: 1", "right to left": "\u202etxt.exe",
    "byte order": "\ufeffa", "format": "%s%n%x", "comma": "a, b", "semicolon": "a; b=c", "encoded word": "=?utf-8?q?=0D=0A?=",
    "header": "X-Injected: 1",
}
BREAKS = {"CR LF": "\r\n", "LF": "\n", "CR": "\r", "CR LF CR LF": "\r\n\r\n"}
NAMES = {"Date", "Content-Length", "Connection", "Content-Type", "Accept-Ranges", "ETag", "Last-Modified", "Cache-Control",
         "X-Content-Type-Options", "Content-Security-Policy", "Content-Disposition", "Digest", "Repr-Digest"}


def served_as_it_was(node, object_id, body):
    """GET and the document of an object: no header but those we know, no line too many."""
    with wire.Connection(node.address) as connection:
        reply = connection.request("GET", f"/api/v1/get/{object_id}")
        assert reply.status == 200 and reply.body == body
        strange = [n for n, _ in reply.headers if n not in NAMES and not n.startswith("X-Meta-")]
        assert not strange and not reply.header("X-Meta-Injected"), reply
        assert len({n for n, _ in reply.headers}) == len(reply.headers), reply
        document = connection.request("GET", f"/api/v1/meta/{object_id}")
        assert document.status == 200
        return reply, document.json()


@pytest.mark.parametrize("case", HOSTILE_TEXTS)
def test_hostile_names_are_only_names(node, http, trap, case):
    """A name is a text: it comes back as it was, leads nowhere, and adds no header."""
    name, files = HOSTILE_TEXTS[case], sorted(p.name for p in node.files.rglob("*"))
    for headers in ([("X-Meta-Name", name)],
                    [("X-Meta-Name*", "UTF-8''" + "".join(f"%{b:02x}" for b in name.encode()))]):
        object_id = http.stored(case.encode(), headers)["id"]
        reply, document = served_as_it_was(node, object_id, case.encode())
        assert document["name"] == name
        assert http.delete(object_id).status == 200
    assert sorted(p.name for p in node.files.rglob("*")) == files
    DONE["names and meta"] += 1


@pytest.mark.parametrize("case", list(HOSTILE_TEXTS) + list(BREAKS))
def test_hostile_user_meta_is_escaped(node, http, trap, case):
    """User meta goes back in one header, as JSON that says the same and breaks no line."""
    text = HOSTILE_TEXTS.get(case) or f"a{BREAKS[case]}X-Injected: 1{BREAKS[case]}"
    meta = {"k": text, text: "v"}
    object_id = http.stored(b"x", user_meta=json.dumps(meta))["id"]
    reply, document = served_as_it_was(node, object_id, b"x")
    value = reply.header("X-Meta-UserMeta")
    assert json.loads(value) == meta and document["user_meta"] == meta
    assert not any(ord(c) < 0x20 or ord(c) == 0x7f for c in value)
    assert http.delete(object_id).status == 200
    DONE["names and meta"] += 1


@pytest.mark.parametrize("broken", ["CR LF", "LF", "CR"])
@pytest.mark.parametrize("header", ["X-Meta-Name", "X-Meta-UserMeta", "Content-Type", "X-Meta-ID", "ETag"])
def test_line_breaks_in_headers(node, trap, header, broken):
    """A line break in a value: alone it is refused; as CR LF it is the client's own next header, which
    has no meaning and does not come back."""
    data = (b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header.encode() + b": a" +
            BREAKS[broken].encode() + b"X-Injected: 1\r\n\r\n")
    case = Case(data, 200, tail=False) if broken == "CR LF" else Case(data, 400)
    assert b"Injected" not in trap.spring(case, "names and meta")


@pytest.mark.parametrize("broken", ["%0d%0a", "%0a", "%0d", "%00", "%0d%0aContent-Length:%200%0d%0a%0d%0a", "%7f", "%c2%85"])
def test_line_breaks_in_encoded_names(node, http, trap, broken):
    """Nor do they get in by the encoded form."""
    with node.unchanged():
        reply = http.put(b"x", {"X-Meta-Name*": f"UTF-8''a{broken}X-Injected:%201"})
        assert reply.status == 400 and reply.code()
        assert http.set_meta(trap.victim.decode(), {"X-Meta-Name*": f"UTF-8''a{broken}"}).status == 400
    DONE["names and meta"] += 1


@pytest.mark.parametrize("media", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript", "text/xml"])
def test_active_content_is_sandboxed(node, http, media):
    """What a browser would run is served in a sandbox and never guessed at."""
    object_id = http.stored(b"<script>alert(1)</script>", {"Content-Type": media})["id"]
    reply, _ = served_as_it_was(node, object_id, b"<script>alert(1)</script>")
    assert reply.header("X-Content-Type-Options") == "nosniff"
    assert reply.header("Content-Security-Policy") == "sandbox"
    assert http.delete(object_id).status == 200
    DONE["names and meta"] += 1


@pytest.mark.parametrize("text", ["-h", "--help", "-rf", "--all", "--version", "*", "..", "../../etc/passwd", "%2e%2e",
                                  "@/etc/passwd", "a b", "a\r\nX-Injected: 1"])
def test_ids_that_look_like_options(node, trap, text):
    """objctl: behind -- they are ids, and no good ones; nothing is asked of the node."""
    with node.unchanged():
        for command in ("get", "meta", "rm"):
            done = node.ctl(command, "--", text)
            assert done.returncode == 64 and not done.stdout and done.stderr.strip(), (command, done)
        done = node.ctl("put", f"--id={text}", "/dev/null")
        assert done.returncode == 64 and not done.stdout, done
    DONE["options"] += 1


# ---- Afterwards ----


def anonymous_bytes(node):
    return node.resident_bytes("RssAnon")


def test_nothing_is_left_behind(node, trap):
    """All of it again and again: no file descriptor, no temporary file, no memory more than after the
    first rounds."""
    def everything():
        for table, name in ROWS:
            with wire.Connection(node.address) as connection:
                try:
                    connection.send(trap.bytes_of(TABLES[table][name], ulid().encode()))
                    connection.half_close()
                except OSError:
                    continue
                connection.read_raw(1 << 27)
        for case, _ in RESETS.values():
            trap.break_off(case)
        trap.assert_nothing_left()

    # Kept requests end in bytes of their own here, so nothing of theirs may be carried out, either.
    with node.unchanged():
        for _ in range(2):
            everything()
        before = anonymous_bytes(node)
        for _ in range(4):
            everything()
        after = anonymous_bytes(node)
    count = 4 * (len(ROWS) + len(RESETS))
    if not sanitized():
        assert after - before < 512 << 10, (before, after)
    FIGURES.append(f"hostile clients: {count} more connections, then {after - before:+d} bytes of anonymous memory, "
                   f"{len(os.listdir(f'/proc/{node.process.pid}/fd')) - trap.before['fds']:+d} file descriptors")
