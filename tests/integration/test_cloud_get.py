"""What no node has is read from the cloud, here a directory: known objects without a header, unknown
ones where the client says so; deleted ones never, wrong ones never whole; and an absent cloud is said."""

import threading

import pytest

import wire
from cluster import Cluster
from harness import INLINE, noise, sha256, ulid, wait_for
from test_cloud_upload import ONE, TWO, Bucket, put

FETCH = {"X-Meta-Fetch": "true"}
PART = 8 << 20


@pytest.fixture
def bucket(tmp_path):
    return Bucket(tmp_path / "bucket")


@pytest.fixture
def make(nodes, bucket):
    def make(count, *options):
        return Cluster(nodes, count, options=["--cloud", f"dir:{bucket.path}", *options]).start()

    return make


def get(member, object_id, headers=None):
    return member.http.get(object_id, headers or {})


def lose(cluster, index):
    """That node's disks; it comes back as another one."""
    cluster[index].stop()
    cluster[index].wipe()
    others = [m for m in cluster.members if m.process]
    cluster[index].seeds = others[:1]
    wait_for(lambda: not any(row["state"] == "alive" for m in others for row in m.stats()["cluster"]["members"]
                             if row["id"] not in {o.id for o in others}), "the others to see that it is gone")


@pytest.mark.parametrize("size", [1, 1000, INLINE, INLINE + 1, 16 << 20])
def test_the_holder_is_gone(make, size):
    """Goal: a body of level 1 whose only holder lost its disks is read by every node, whole and in part."""
    cluster = make(3)
    body = noise(size)
    _, object_id = put(cluster[0], body, ONE)
    cluster.wait_equal()
    lose(cluster, 0)
    for member in cluster.members[1:]:
        part = get(member, object_id, {"Range": f"bytes={size // 2}-{size // 2 + 99}"})
        assert part.status == 206 and part.body == body[size // 2:size // 2 + 100]
        reply = get(member, object_id)
        assert reply.status == 200 and sha256(reply.body) == sha256(body)
        assert reply.header("X-Meta-Symlink") == "true"


def test_a_crowd(make):
    """Goal: many clients on all nodes who ask for one cold body at once all get it."""
    cluster = make(3)
    body = noise(16 << 20)
    _, object_id = put(cluster[0], body, ONE)
    cluster.wait_equal()
    lose(cluster, 0)
    cluster.repair().wait_equal()
    answers = []

    def ask(member):
        reply = member.client().get(object_id)
        answers.append((reply.status, sha256(reply.body)))

    threads = [threading.Thread(target=ask, args=(cluster[i % 3],)) for i in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(200, sha256(body))] * 30


def test_a_lost_cluster_comes_back_from_the_bucket(make, bucket):
    """Goal: with the bucket alone every live object is readable with X-Meta-Fetch, with its name, user
    meta and level, and copied again where it is for every node; deleted ones are not."""
    cluster = make(3)
    live = {}
    for number, (level, size) in enumerate([(ONE, 1000), (TWO, 2000), (ONE, 1 << 20), (TWO, 3 << 20)]):
        body = noise(size, number)
        headers = {**level, "X-Meta-Name": f"object {number}.txt", "X-Meta-UserMeta": f'{{"number":"{number}"}}'}
        _, object_id = put(cluster[number % 3], body, headers)
        live[object_id] = (number, level["X-Meta-ConsistencyLevel"], body)
    _, gone = put(cluster[0], noise(500), ONE)
    assert cluster[1].http.delete(gone).status == 200
    wait_for(lambda: gone in bucket.marks(), "the mark of the delete")
    for member in cluster.members:
        member.stop()
        member.wipe()
    cluster.repair()
    for object_id, (number, level, body) in live.items():
        member = cluster[(number + 1) % 3]
        assert get(member, object_id).status == 404
        reply = get(member, object_id, FETCH)
        assert reply.status == 200 and reply.body == body and reply.header("X-Meta-Fetched") == "true"
        assert reply.header("X-Meta-Name") == f"object {number}.txt"
        assert reply.header("X-Meta-UserMeta") == f'{{"number":"{number}"}}'
        assert reply.header("X-Meta-ConsistencyLevel") == level
    refused = get(cluster[2], gone, FETCH)
    assert refused.status == 404 and refused.header("X-Meta-Deleted") == "true"
    cluster.wait_equal()
    for object_id, (_, level, body) in live.items():
        for member in cluster.members:
            assert get(member, object_id).body == body
            if level == "2":
                wait_for(lambda m=member, i=object_id: not m.http.meta(i).json()["is_symlink"], "a copy")
    assert get(cluster[0], ulid(), FETCH).status == 404


def test_somebody_elses_object(make, bucket):
    """Goal: a file that says nothing of itself is fetched and hashed; its level becomes 1."""
    node = make(1)[0]
    for size in (100, 3 << 20):
        object_id, body = ulid(), noise(size)
        (bucket.path / object_id).write_bytes(body)
        assert get(node, object_id).status == 404
        reply = get(node, object_id, FETCH)
        assert reply.status == 200 and reply.body == body, reply
        assert reply.header("X-Meta-ConsistencyLevel") == "1"
        assert reply.header("ETag") == f'"{sha256(body)}"'


def test_wrong_bytes_in_the_cloud(make, bucket):
    """Goal: bytes that somebody changed there are never served whole, nor as a small body."""
    cluster = make(2)
    for size in (1000, 3 << 20):
        body = noise(size)
        _, object_id = put(cluster[0], body, ONE)
        cluster.wait_equal()
        lose(cluster, 0)
        with open(bucket.path / object_id, "r+b") as file:
            file.seek(size // 2)
            file.write(bytes([body[size // 2] ^ 1]))
        try:
            reply = get(cluster[1], object_id)
        except wire.Broken:
            reply = None  # cut short
        assert reply is None or reply.status != 200 or len(reply.body) < size
        cluster.repair().wait_equal()


def test_the_cloud_is_away(make, bucket):
    """Goal: 503 with Retry-After, for known and unknown ids; and as soon as it is back they are served."""
    cluster = make(2)
    body = noise(100000)
    _, object_id = put(cluster[0], body, ONE)
    cluster.wait_equal()
    lose(cluster, 0)
    with bucket.away():
        for name in (object_id, ulid()):
            reply = get(cluster[1], name, FETCH)
            assert reply.status == 503 and reply.header("Retry-After"), reply
            assert reply.json()["error"]["code"] == "cloud_unavailable"
    wait_for(lambda: get(cluster[1], object_id).status == 200, "the cloud to be asked again")
    assert get(cluster[1], object_id).body == body


@pytest.mark.parametrize("option", ["on", "off"])
def test_ranges(make, option):
    """Goal: ranges anywhere in a large body that only the cloud has give the right bytes."""
    cluster = make(2, f"--range-cache={option}")
    body = noise(3 * PART + 12345)
    _, object_id = put(cluster[0], body, ONE)
    cluster.wait_equal()
    lose(cluster, 0)
    for first, last in ((0, 99), (PART - 50, PART + 49), (len(body) - 100, len(body) - 1), (7, len(body) - 2)):
        reply = get(cluster[1], object_id, {"Range": f"bytes={first}-{last}"})
        assert reply.status == 206 and reply.body == body[first:last + 1], (first, last)
