"""What nodes owe the cloud, here a directory: a put of level 1 or 2 is there when it is answered 200;
whatever dies or is away meanwhile, it gets there, once, and what is deleted is marked or removed."""

import contextlib
import os

import pytest

from cluster import Cluster
from harness import INLINE, noise, wait_for
from test_cluster_acks import Asking, replicas

ONE = {"X-Meta-ConsistencyLevel": "1"}
TWO = {"X-Meta-ConsistencyLevel": "2"}


class Bucket:
    """The directory that stands for the cloud. A body comes first in its file; what the cloud is told
    of it lies behind."""

    def __init__(self, path):
        self.path = path

    def keys(self):
        found = []
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if name != ".objstore-cloud"]
            found += [os.path.relpath(os.path.join(folder, name), self.path) for name in names]
        return sorted(found)

    def bodies(self):
        return [key for key in self.keys() if not key.startswith(".deleted/")]

    def marks(self):
        return [key[len(".deleted/"):] for key in self.keys() if key.startswith(".deleted/")]

    def has(self, key, body):
        try:
            with open(self.path / key, "rb") as file:
                return file.read(len(body)) == body
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def away(self):
        """Nobody reaches it for a while."""
        hidden = self.path.with_name(self.path.name + ".away")
        self.path.rename(hidden)
        yield
        hidden.rename(self.path)


@pytest.fixture
def bucket(tmp_path):
    return Bucket(tmp_path / "bucket")


@pytest.fixture
def make(nodes, bucket):
    def make(count, *options):
        cluster = Cluster(nodes, count, options=["--cloud", f"dir:{bucket.path}", *options])
        return cluster.start()

    return make


def put(member, body, headers, **more):
    reply = member.http.put(body, {**headers, **more})
    assert reply.status in (200, 201, 202), reply
    return reply, reply.json()["id"]


def pending(member, object_id):
    return member.http.meta(object_id).json()["pending"]


def owes_deletes(member):
    """Marks and purges."""
    stats = member.stats()["outbox"]
    return stats["marks"] + stats["purges"]


# ---- All well ----


@pytest.mark.parametrize("size", [0, 1, 1000, INLINE, INLINE + 1, 5 << 20])
@pytest.mark.parametrize("level", [ONE, TWO])
def test_there_when_answered(make, bucket, size, level):
    """Goal: 200 to a put of level 1 or 2 means that the cloud has exactly these bytes; nothing is owed."""
    node = make(1)[0]
    body = noise(size)
    reply, object_id = put(node, body, level)
    assert reply.status == 200
    assert reply.json()["pending"] == []
    assert replicas(reply) == (1, 1)
    assert bucket.bodies() == [object_id]
    assert bucket.has(object_id, body)


def test_level_0_stays_here(make, bucket):
    """Goal: a body of level 0 never gets there, until its level is raised: then 200 means that it is."""
    node = make(1)[0]
    body = noise(1000)
    reply, object_id = put(node, body, {})
    assert reply.status == 200 and bucket.bodies() == []
    reply = node.http.request("POST", f"/api/v1/meta/{object_id}", ONE)
    assert reply.status == 200 and reply.json()["pending"] == []
    assert bucket.has(object_id, body)


def test_raised_elsewhere(make, bucket):
    """Goal: a level raised on a node without the body is answered 200 once the node that has it has
    uploaded it."""
    cluster = make(2)
    body = noise(2000)
    _, object_id = put(cluster[0], body, {})
    wait_for(lambda: cluster[1].http.meta(object_id).status == 200, "the other to hear of it")
    reply = cluster[1].http.request("POST", f"/api/v1/meta/{object_id}", ONE)
    assert reply.status == 200, reply
    assert bucket.has(object_id, body)


def test_prefix(make, bucket):
    """Goal: keys begin with --cloud-prefix, those of marks, too."""
    node = make(1, "--cloud-prefix", "team/one")[0]
    _, object_id = put(node, b"x", ONE)
    _, gone = put(node, b"y", ONE)
    assert node.http.delete(gone).status == 200
    wait_for(lambda: f"team/one/.deleted/{gone}" in bucket.keys(), "the mark")
    assert f"team/one/{object_id}" in bucket.keys()


# ---- Deletes ----


def test_delete_marks(make, bucket):
    """Goal: a delete leaves the copy, and writes the mark; one of what was never there writes none."""
    node = make(1)[0]
    body = noise(100)
    _, kept = put(node, body, ONE)
    _, local = put(node, body, {})
    for object_id in (kept, local):
        assert node.http.delete(object_id).status == 200
    wait_for(lambda: bucket.marks() == [kept], "the mark")
    assert bucket.has(kept, body)


def test_purge(make, bucket):
    """Goal: a delete with X-Meta-Purge removes the copy, and marks; it may also be asked for by a second
    delete, and of any node."""
    cluster = make(2)
    _, first = put(cluster[0], noise(100), ONE)
    _, second = put(cluster[0], noise(100), ONE)
    assert cluster[0].http.delete(first, {"X-Meta-Purge": "1"}).status == 200
    wait_for(lambda: bucket.bodies() == [second], "the purge")
    assert cluster[0].http.delete(second).status == 200
    wait_for(lambda: bucket.marks() == sorted([first, second]), "both marks")
    assert bucket.bodies() == [second]
    wait_for(lambda: cluster[1].is_gone(second), "the other to hear of it")
    assert cluster[1].http.delete(second, {"X-Meta-Purge": "1"}).status == 200
    wait_for(lambda: bucket.bodies() == [], "the purge of the second delete")


# ---- The cloud away ----


def test_away_alone(make, bucket):
    """Goal: while the cloud is away a lone node answers 202 with 1/2, at once when it has noticed; all of
    it gets there afterwards."""
    node = make(1)[0]
    with bucket.away():
        bodies = {}
        for n in range(8):
            body = noise(1000 + n)
            reply, object_id = put(node, body, ONE, **{"X-Meta-Timeout": "2"})
            assert reply.status == 202
            assert replicas(reply) == (1, 2)
            assert "cloud" in reply.json()["pending"]
            bodies[object_id] = body
        asking = Asking(node, lambda http: http.put(b"late", {**ONE, "X-Meta-Timeout": "30"}))
        assert asking.end().status == 202
        assert asking.took_s < 10
        assert bucket.keys() == []
    wait_for(lambda: len(bucket.bodies()) == 9, "all to get there", 60)
    assert all(bucket.has(*item) for item in bodies.items())
    wait_for(lambda: all(not pending(node, object_id) for object_id in bodies), "nothing to be pending")


def test_away_in_a_cluster(make, bucket):
    """Goal: while the cloud is away 202 of level 1 follows the second copy; and with the author's disk
    gone for good the other holder brings it there."""
    cluster = make(3)
    body = noise(300000)
    with bucket.away():
        reply, object_id = put(cluster[0], body, ONE)
        assert reply.status == 202
        assert replicas(reply) == (2, 2)
        assert reply.json()["pending"] == ["cloud"]
        cluster[0].kill()
        cluster[0].wipe()
    wait_for(lambda: bucket.has(object_id, body), "the other holder to bring it there", 90)
    wait_for(lambda: not pending(cluster[1], object_id), "that to be known")


def test_outbox_copies_1(make, bucket):
    """Goal: with --outbox-copies=1 no second copy is made or waited for."""
    cluster = make(2, "--outbox-copies", "1")
    with bucket.away():
        for _ in range(6):
            reply, _ = put(cluster[0], noise(10), ONE, **{"X-Meta-Timeout": "0.5"})
            assert reply.status == 202
            assert replicas(reply) == (1, 1)


def test_writeback(make, bucket):
    """Goal: with --commit=writeback a put is answered 202 after the second copy, and gets there later;
    X-Meta-Ack: cloud waits for it all the same."""
    cluster = make(2, "--commit", "writeback")
    body = noise(5000)
    reply, object_id = put(cluster[0], body, ONE)
    assert reply.status in (200, 202)
    assert reply.json()["replicas"]["have"] == 2 or reply.json()["pending"] == []
    wait_for(lambda: bucket.has(object_id, body), "it to get there")
    reply, object_id = put(cluster[0], body, ONE, **{"X-Meta-Ack": "cloud"})
    assert reply.status == 200
    assert bucket.has(object_id, body)


# ---- Crashes ----


def test_killed_between(make, bucket):
    """Goal: whatever was acknowledged before a kill -9 gets to the cloud after the restart, and what had
    got there by then is not taken for missing."""
    node = make(1)[0]
    bodies = {}
    with bucket.away():
        for n in range(20):
            body = noise(200 + 30000 * n)
            reply, object_id = put(node, body, ONE, **{"X-Meta-Timeout": "0"})
            assert reply.status == 202
            bodies[object_id] = body
        node.kill()
    node.start()
    wait_for(lambda: len(bucket.bodies()) > 3, "some to get there")
    node.kill()
    node.start()
    wait_for(lambda: all(bucket.has(*item) for item in bodies.items()), "all to get there", 60)
    assert bucket.bodies() == sorted(bodies)
    wait_for(lambda: not any(pending(node, object_id) for object_id in bodies), "nothing to be pending")


def test_author_away(make, bucket):
    """Goal: what a node owes that does not answer any more another holder uploads: of level 2, all are."""
    cluster = make(3)
    body = noise(4000)
    with bucket.away():
        reply, object_id = put(cluster[0], body, TWO, **{"X-Meta-Ack": "all"})
        assert reply.status == 200
        cluster[0].kill()
    wait_for(lambda: bucket.has(object_id, body), "another to bring it there", 90)
    wait_for(lambda: not pending(cluster[1], object_id), "that to be known")
    cluster[0].start()
    wait_for(lambda: not pending(cluster[0], object_id), "its author to know, too")


def test_purged_meanwhile(make, bucket):
    """Goal: what is deleted with a purge while it is owed never stays in the cloud, whichever comes
    first."""
    node = make(1)[0]
    with bucket.away():
        ids = [put(node, noise(100000), ONE, **{"X-Meta-Timeout": "0"})[1] for _ in range(10)]
        for object_id in ids[:5]:
            assert node.http.delete(object_id, {"X-Meta-Purge": "1"}).status == 200
        node.kill()
    node.start()
    for object_id in ids[5:]:
        assert node.http.delete(object_id, {"X-Meta-Purge": "1"}).status == 200
    wait_for(lambda: not bucket.bodies() and set(bucket.marks()) <= set(ids) and not owes_deletes(node),
             "all of it to be gone", 60)
