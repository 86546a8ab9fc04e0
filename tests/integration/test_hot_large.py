"""Large bodies that are read again and again are sent from memory: the same bytes, header lines,
ranges and conditions as from the disk, also to a slow reader while their memory is used for others,
within --memory; what is changed or deleted shows at once."""

import random
import socket

import pytest

import wire
from harness import BLOCK, noise, sanitized, wait_for

MIB = 1 << 20
PART = 2 * MIB  # what the node keeps together
SIZES = [300_000, MIB, PART - 1, PART, PART + 1, 12 * MIB + 12345]


def sent_hot(node):
    return node.stats()["memory"]["hot_blocks_sent_bytes"]


def heat(node, object_id, body):
    """Read it until all of it comes from memory."""

    def all_hot():
        before = sent_hot(node)
        assert node.http.get(object_id).body == body
        return sent_hot(node) - before >= len(body)

    wait_for(all_hot, f"{object_id} to be hot")


def lines(reply):
    return [(name, value) for name, value in reply.headers if name.lower() != "date"]


@pytest.mark.parametrize("size", SIZES)
def test_hot_as_cold(node, http, size):
    """Every kind of question is answered alike before and after the body has become hot."""
    body = noise(size, 201)
    object_id = http.stored(body, name="film.mp4")["id"]
    etag = http.get(object_id, method="HEAD").header("ETag")
    rnd = random.Random(size)
    spans = [(0, 0), (size - 1, size - 1), (0, size - 1), (BLOCK - 1, BLOCK)]
    for _ in range(12):
        first = rnd.randrange(size)
        spans.append((first, min(size - 1, first + rnd.choice((0, 5, BLOCK, 3 * BLOCK + 1, PART)))))
    asks = [("GET", {"Range": f"bytes={first}-{last}"}) for first, last in spans]
    asks += [(method, {name: value})
             for method in ("GET", "HEAD")
             for name, value in (("If-None-Match", etag), ("If-None-Match", '"other"'), ("If-Match", '"other"'),
                                 ("Range", f"bytes={size}-"), ("X-Nothing", "1"))]
    asks += [("GET", {"Range": "bytes=-1000", "If-Range": etag}), ("GET", {"Range": "bytes=5-", "If-Range": '"other"'})]

    def answers():
        found = [http.get(object_id, headers, method=method) for method, headers in asks]
        return [(reply.status, reply.body, lines(reply)) for reply in found]

    cold = answers()
    heat(node, object_id, body)
    before = sent_hot(node)
    hot = answers()
    assert sent_hot(node) > before
    for ask, one, other in zip(asks, cold, hot):
        assert one == other, ask
    for (first, last), (status, got, _) in zip(spans, hot):
        assert status == 206 and got == body[first:last + 1]
    parts = http.get(object_id, {"Range": f"bytes=0-9,{size // 2}-{size // 2 + 99},-7"})
    assert parts.status == 206 and body[size // 2:size // 2 + 100] in parts.body and len(parts.body) > 117


def test_slow_reader(nodes):
    """What a slow client has been promised stays as it was while others take its place."""
    node = nodes.start()
    body = noise(12 * MIB, 202)
    object_id = node.http.stored(body)["id"]
    others = [noise(17 * MIB + n, 203 + n) for n in range(3)]
    ids = [node.http.stored(other)["id"] for other in others]
    heat(node, object_id, body)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.settimeout(wire.PATIENCE_S)
    slow.connect(node.address)
    with slow, slow.makefile("rb") as stream:
        slow.sendall(wire.head("GET", f"/api/v1/get/{object_id}"))
        while stream.readline() != b"\r\n":
            pass
        got = stream.read(10000)
        for other_id, other in zip(ids, others):
            heat(node, other_id, other)
        assert node.http.get(object_id, {"Range": "bytes=0-9"}).body == body[:10]
        got += stream.read(len(body) - len(got))
    assert got == body


def test_change_and_delete(node, http):
    """A new name and a deletion show at once, however hot the body is."""
    body = noise(3 * MIB, 210)
    object_id = http.stored(body, name="old.txt")["id"]
    heat(node, object_id, body)
    assert http.get(object_id).header("X-Meta-Name") == "old.txt"
    changed = http.request("POST", f"/api/v1/meta/{object_id}", {"X-Meta-Name": "new.txt"})
    assert changed.status == 200
    got = http.get(object_id)
    assert got.header("X-Meta-Name") == "new.txt" and got.body == body
    assert http.delete(object_id).status == 200
    for method in ("GET", "HEAD"):
        gone = http.get(object_id, method=method)
        assert gone.status == 404 and gone.header("X-Meta-Deleted") == "true"


def test_memory_is_bounded(nodes):
    """Many large bodies, read often and in turn: all of the memory together stays within its limit."""
    node = nodes.start("--memory", "32MiB")
    idle = node.resident_bytes("VmRSS")
    pool = noise(9 * MIB, 220)
    ids = [node.http.stored(pool[i << 10:] + b"%d" % i)["id"] for i in range(6)]
    small = [node.http.stored(pool[i:i + 100000])["id"] for i in range(300)]
    for _ in range(4):
        for i, object_id in enumerate(ids):
            assert node.http.get(object_id).body == pool[i << 10:] + b"%d" % i
        for i, object_id in enumerate(small):
            assert node.http.get(object_id).body == pool[i:i + 100000]
        memory = node.stats()["memory"]
        assert memory["used_bytes"] <= memory["limit_bytes"] == 32 * MIB
    assert 0 < memory["hot_blocks_bytes"] < memory["used_bytes"]
    metrics = node.http.request("GET", "/metrics").body.decode()
    assert "\nobjstore_memory_hot_blocks_bytes %d\n" % memory["hot_blocks_bytes"] in metrics
    if not sanitized():
        assert node.resident_bytes() <= max(idle, 20 * MIB) + 64 * MIB


def test_damage_never_becomes_hot(nodes):
    """A damaged block is never sent, however often it is asked for; its neighbours are."""
    node = nodes.start()
    body = noise(4 * MIB, 230)
    object_id = node.http.stored(body)["id"]
    (path,) = node.large_files()
    at = path.read_bytes().find(body[:64]) + 20 * BLOCK + 7
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    for _ in range(5):
        with wire.Connection(node.address) as connection:
            connection.send(wire.head("GET", f"/api/v1/get/{object_id}"))
            with pytest.raises(wire.Broken) as broken:
                connection.read()
        got = broken.value.got  # a reset may take away what had arrived
        assert body.startswith(got) and len(got) <= 20 * BLOCK
    got = node.http.get(object_id, {"Range": f"bytes={21 * BLOCK}-{40 * BLOCK}"})
    assert got.status == 206 and got.body == body[21 * BLOCK:40 * BLOCK + 1]
