"""Bytes that rot on the disk: never served, counted, found by verify, repaired by putting again."""

import os

import pytest

import wire
from harness import BLOCK, INLINE, noise, sha256, wait_for


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x40]))
        os.fsync(file.fileno())


def find(paths, needle):
    """Where the stored bytes lie: (path, offset), exactly once."""
    found = []
    for path in paths:
        data = path.read_bytes()
        at = data.find(needle)
        if at >= 0:
            found.append((path, at))
    assert len(found) == 1, found
    return found[0]


class Store:
    """A node with objects of several sizes, and their places on the disk."""

    def __init__(self, nodes, *options):
        self.node = nodes.start(*options)
        self.objects = {}
        for size in (1, 900, BLOCK, 3 * BLOCK + 99, INLINE, INLINE + 1, 2 << 20, 5 << 20):
            body = noise(size, 111)
            self.objects[size] = (self.node.http.stored(body, name=f"{size}.bin")["id"], body)

    def place(self, size):
        _, body = self.objects[size]
        paths = self.node.segments() if size <= INLINE else self.node.large_files()
        return find(paths, body[:64])

    def damage(self, size, offset):
        path, at = self.place(size)
        flip(path, at + offset)

    def good(self, *but):
        """Everything else is untouched."""
        for size, (object_id, body) in self.objects.items():
            if size not in but:
                got = self.node.http.get(object_id)
                assert got.status == 200 and got.body == body, size


def read(node, object_id, headers=()):
    """A GET that may end in an error or a cut: (status, bytes received, whole)."""
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("GET", f"/api/v1/get/{object_id}", headers))
        try:
            reply = connection.read()
            return reply.status, reply.body, True
        except wire.Broken as broken:
            return 206 if headers else 200, broken.got, False


CASES = [(900, 0), (900, 899), (BLOCK, BLOCK // 2), (3 * BLOCK + 99, 2 * BLOCK + 5),
         (3 * BLOCK + 99, 3 * BLOCK + 98), (INLINE, 1), (INLINE + 1, 0), (INLINE + 1, INLINE), (2 << 20, BLOCK * 7 + 11),
         (2 << 20, (2 << 20) - 1), (5 << 20, 3 << 20)]


@pytest.mark.parametrize("size,offset", CASES)
def test_a_flipped_bit(nodes, size, offset):
    """One bit of a body: no wrong byte leaves the node (an error, or the answer is cut before it), it
    is counted, objctl verify names it, the others are untouched, and putting the bytes again
    repairs it for good."""
    store = Store(nodes)
    node = store.node
    object_id, body = store.objects[size]
    node.stop()
    store.damage(size, offset)
    done = node.ctl("verify")
    assert done.returncode == 1 and object_id in done.stdout + done.stderr, done
    node.start()
    for _ in range(3):
        status, got, whole = read(node, object_id)
        assert not (status == 200 and whole), "the damaged body came whole"
        if status == 200:
            assert body.startswith(got) and len(got) <= offset // BLOCK * BLOCK
        else:
            assert status in (404, 500, 503), status
            assert got != body and b'"error"' in got
    faults = node.stats()["faults"]
    assert faults["bad_blocks"] >= 1, faults
    store.good(size)
    meta = node.http.meta(object_id)
    assert meta.status == 200 and meta.json()["sha256"] == sha256(body)
    reply = node.http.put(body, id=object_id)
    assert reply.status == 200, reply
    assert node.http.get(object_id).body == body
    assert node.stats()["faults"]["repaired"] >= 1
    store.good()
    node.kill()
    node.start()
    store.good()
    node.stop()
    done = node.ctl("verify")
    assert done.returncode == 0, done


def test_ranges_beside_the_damage(nodes):
    """Blocks that are whole are served as ranges though another block of the body is rotten."""
    store = Store(nodes)
    node, size = store.node, 5 << 20
    object_id, body = store.objects[size]
    node.stop()
    store.damage(size, 40 * BLOCK + 7)
    node.start()
    status, got, whole = read(node, object_id, {"Range": f"bytes={41 * BLOCK}-{43 * BLOCK}"})
    assert status == 206 and whole and got == body[41 * BLOCK:43 * BLOCK + 1]
    status, got, whole = read(node, object_id, {"Range": f"bytes={40 * BLOCK + 100}-{40 * BLOCK + 200}"})
    assert status >= 400 and whole
    status, got, whole = read(node, object_id, {"Range": f"bytes={39 * BLOCK}-{40 * BLOCK + 200}"})
    assert not (whole and status == 206)


def test_damage_while_it_runs(nodes):
    """Damage under a running node: what memory holds verified may be served right, wrong bytes
    never."""
    store = Store(nodes)
    node = store.node
    store.good()
    for size in (900, 2 << 20):
        store.damage(size, size // 2)
    for size in (900, 2 << 20):
        object_id, body = store.objects[size]
        status, got, whole = read(node, object_id)
        if status == 200 and whole:
            assert got == body
        elif status == 200:
            assert body.startswith(got)
    store.good(900, 2 << 20)


@pytest.mark.parametrize("how", ["gone", "empty", "short", "no trailer"])
def test_a_large_file_that_is_not_whole(nodes, how):
    """A large body's file missing or cut: an error or a cut answer, never a wrong end; put again, it
    is back."""
    store = Store(nodes)
    node, size = store.node, 2 << 20
    object_id, body = store.objects[size]
    path, _ = store.place(size)
    node.stop()
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "short": data[:1 << 20], "no trailer": data[:-40]}[how])
    assert node.ctl("verify").returncode == 1
    node.start()
    status, got, whole = read(node, object_id)
    assert not (status == 200 and whole) and (status != 200 or body.startswith(got))
    store.good(size)
    assert node.http.put(body, id=object_id).status == 200
    store.good()
    node.restart()
    store.good()


@pytest.mark.parametrize("back", [16, 60, 200])
def test_damage_of_what_stands_before_a_body(nodes, back):
    """Damage in a record's header or event: the body is not served wrong, and the node starts and
    serves the rest, since SQLite knows the facts."""
    store = Store(nodes)
    node = store.node
    object_id, body = store.objects[900]
    node.stop()
    store.damage(900, -back)
    node.start()
    status, got, whole = read(node, object_id)
    assert (status == 200 and got == body) or status >= 400
    store.good(900)
    assert node.http.put(body, id=object_id).status == 200
    store.good()


def test_scrubbing_finds_it(nodes):
    """Scrubbing reads everything in its interval and counts what is rotten, without any client."""
    store = Store(nodes)
    node = store.node
    node.stop()
    store.damage(900, 5)
    store.damage(2 << 20, 5)
    node.start("--scrub-interval=1s")
    wait_for(lambda: node.stats()["scrub"]["errors"] >= 2, "scrubbing to find both")
    assert node.stats()["faults"]["bad_blocks"] >= 2
    store.good(900, 2 << 20)


def test_a_rotten_batch_in_the_middle_of_the_log(nodes):
    """A whole stretch of an old segment overwritten: reported, the rest of the log still counts after
    kill and in a rebuild; nothing behind it is lost."""
    store = Store(nodes, "--segment-bytes=1MiB")
    node = store.node
    path, at = store.place(3 * BLOCK + 99)
    later = {node.http.stored(noise(50000, i))["id"]: noise(50000, i) for i in range(100)}
    assert node.segments()[-1] != path
    node.stop()
    with open(path, "r+b") as file:
        file.seek(at - 100)
        file.write(noise(1500, 5))
    node.start()
    for object_id, body in later.items():
        assert node.http.get(object_id).body == body
    store.good(3 * BLOCK + 99)
    object_id, body = store.objects[3 * BLOCK + 99]
    status, got, _ = read(node, object_id)
    assert status >= 400
    assert node.http.put(body, id=object_id).status == 200
    store.good()
