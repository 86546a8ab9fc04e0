"""A full disk, on a small file system of its own: puts say 507, everything else goes on."""

import os

import pytest

import wire
from harness import INLINE, Namespace, noise, sha256, wait_for

DISK_MIB = 200


@pytest.fixture(params=["tmpfs"])
def small_disk(nodes, request):
    """A node whose files lie on a disk of DISK_MIB."""
    try:
        space = nodes.namespace("mount")
        made = space.run(["mount", "-t", request.param, "-o", f"size={DISK_MIB}m", "none", "/mnt"])
    except OSError as error:
        pytest.skip(f"no mount namespace here: {error}")
    if made.returncode:
        pytest.skip(f"no small file system here: {made.stderr}")
    assert isinstance(space, Namespace)
    node = nodes.make(state="/mnt/state", files="/mnt/files", namespace=space, options=["--segment-bytes=4MiB"])
    node.start()
    # From outside the same directories have another path; objctl is not used here.
    node.files = space.path("/mnt/files")
    node.command_files = "/mnt/files"
    plain = node.command

    def command(*extra):
        node.files, outside = "/mnt/files", node.files
        try:
            return plain(*extra)
        finally:
            node.files = outside

    node.command = command
    return node


def free_bytes(node):
    disk = os.statvfs(node.files)
    return disk.f_bavail * disk.f_frsize


def fill(node, size):
    """Put bodies of SIZE until one is refused: (the ids with their seeds, the refusal)."""
    stored = {}
    for seed in range(DISK_MIB * (2 << 20) // max(size, 1 << 16)):
        reply = node.http.put(noise(size, seed))
        if reply.status != 200:
            return stored, reply
        stored[reply.json()["id"]] = seed
    raise AssertionError("the disk is not full")


@pytest.mark.parametrize("size", [100000, 2 << 20], ids=["small bodies", "large bodies"])
def test_disk_full(small_disk, size):
    """With less than the reserve free (max(256 MiB, 1 %), at most 10 % of the disk) puts are refused
    with 507, before their body is sent; gets, changes, deletes and restarts work; no temporary file
    is left; once space is freed puts work again."""
    node = small_disk
    stored, refused = fill(node, size)
    assert refused.status == 507 and refused.code(), refused
    # A tenth of this disk is kept, and not much more; segments and SQLite make it coarse.
    reserve = DISK_MIB * (1 << 20) // 10
    assert reserve - (8 << 20) <= free_bytes(node) <= reserve + (16 << 20) + size
    wait_for(lambda: abs(node.stats()["disk_stats"]["bytes_free"] - free_bytes(node)) < 1 << 20, "stats to say so")
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {"Expect": "100-continue"}, 30 << 20))
        assert connection.read(until_continue=True).status == 507
    assert not node.temporaries()
    for object_id, seed in stored.items():
        assert sha256(node.http.get(object_id).body) == sha256(noise(size, seed))
    first, *rest = stored
    assert node.http.set_meta(first, {"X-Meta-Name": "renamed"}).status == 200
    node.restart()
    assert node.http.get(first).header("X-Meta-Name") == "renamed"
    # A clean stop gives some space back; then it is full again.
    more, refused = fill(node, size)
    assert refused.status == 507 and len(more) < len(stored) // 2
    stored.update(more)
    rest += more
    for object_id in rest[: len(rest) * 3 // 4]:
        assert node.http.delete(object_id).status == 200

    def put_again():
        reply = node.http.put(noise(size, 9998))
        assert reply.status in (200, 507), reply
        return reply.status == 200

    # Freed space comes back with the next checkpoint, which a clean stop makes.
    node.restart()
    wait_for(put_again, "space to be freed")
    assert node.http.get(first).body == noise(size, stored[first])
    node.kill()
    node.start()
    for object_id in (first, *rest[len(rest) * 3 // 4:]):
        assert node.http.get(object_id).body == noise(size, stored[object_id])


def test_a_body_larger_than_the_disk(small_disk):
    """A body that cannot fit is refused before it is sent where its length is known; where it is not,
    in its middle, and nothing of it stays."""
    node = small_disk
    before = node.http.stored(noise(INLINE * 2))["id"]
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {}, 1 << 40))
        assert connection.read().status == 507
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {"Transfer-Encoding": "chunked"}))
        piece = wire.chunked(noise(1 << 20), 1 << 20)[:-5]
        with pytest.raises(OSError):
            for _ in range(DISK_MIB * 2):
                connection.send(piece)
    wait_for(lambda: not node.temporaries(), "the upload's file to go")
    # Its name goes a moment before its space does.
    wait_for(lambda: node.http.put(b"small").status == 200, "its space to be free")
    assert node.http.get(before).body == noise(INLINE * 2)
