"""Large bodies of other nodes: one transfer for all who ask, kept on disk, served without their holder."""

import os
import socket
import threading
import time

import pytest

from cluster import WHERE, Cluster  # noqa: F401
from harness import sha256, wait_for

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(shared):
    return Cluster(shared, count=2, options=["--disk-cache", "40MiB"])


@pytest.fixture
def pair(cluster):
    """The holder, and one that has nothing."""
    cluster.repair()
    return cluster.members


def cache(member):
    return member.stats()["disk_cache"]


def sent(member):
    """Bytes of bodies that it gave to others; figures are a fifth of a second old at most."""
    last = [time.monotonic(), member.stats()["transfer"]["bytes_out"]]

    def still():
        now = member.stats()["transfer"]["bytes_out"]
        if now != last[1]:
            last[:] = [time.monotonic(), now]
        return time.monotonic() - last[0] > 0.3

    wait_for(still, "the figures to stand still")
    return last[1]


def stored(pair, size):
    """A body on the holder alone; its row is on both."""
    body = os.urandom(size)
    object_id = pair[0].http.stored(body, level=0)["id"]
    wait_for(lambda: pair[1].http.meta(object_id).status == 200, "the row to come")
    return object_id, body


def get(member, object_id, **headers):
    client = member.client()
    try:
        return client.get(object_id, headers)
    finally:
        client.close()


def fetched(pair, size):
    object_id, body = stored(pair, size)
    before = cache(pair[1])["stored"]
    assert get(pair[1], object_id).body == body
    wait_for(lambda: cache(pair[1])["stored"] == before + 1, "the copy")
    return object_id, body


def test_fifty_clients_are_one_transfer_and_one_of_them_is_slow(pair):
    """16 MiB, cold, asked for by fifty at once, of which one reads nothing and five go away in the
    middle: its bytes come once, and all who wait get them. Then the holder dies, and it is served."""
    object_id, body = stored(pair, 16 * MIB + 4321)
    before, digest = sent(pair[0]), sha256(body)
    start, good = threading.Barrier(50), []
    slow = socket.create_connection(pair[1].address)

    def client(index):
        start.wait()
        if index == 0:
            slow.sendall(f"GET /api/v1/get/{object_id} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        elif index <= 5:
            with socket.create_connection(pair[1].address) as gone:
                gone.sendall(f"GET /api/v1/get/{object_id} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                gone.recv(1000)
        else:
            reply = get(pair[1], object_id)
            good.append((reply.status, reply.header("X-Meta-Symlink"), sha256(reply.body)))

    threads = [threading.Thread(target=client, args=(index,)) for index in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [(200, "true", digest)] * 44
    assert sent(pair[0]) - before == len(body)
    slow.settimeout(30)
    got = b""
    while len(got) < len(body):
        piece = slow.recv(1 << 20)
        assert piece, "the slow one was cut off"
        got += piece
    slow.close()
    assert got.endswith(body[-1000:])

    pair[0].kill()
    again = get(pair[1], object_id)
    assert (again.status, sha256(again.body)) == (200, digest)
    part = get(pair[1], object_id, Range="bytes=70000-150000,-5")
    assert part.status == 206 and body[70000:150001] in part.body and body[-5:] in part.body
    assert get(pair[1], object_id, Range="bytes=16777216-").body == body[16777216:]
    assert cache(pair[1])["hits"] >= 3


def test_a_delete_frees_the_copy(pair):
    object_id, body = fetched(pair, 3 * MIB)
    used = cache(pair[1])["used_bytes"]
    assert pair[0].http.delete(object_id).status == 200
    wait_for(lambda: cache(pair[1])["used_bytes"] <= used - len(body), "the copy to go")
    assert pair[1].is_gone(object_id)


def test_the_bound_is_kept_and_what_is_asked_for_stays(pair):
    """Fifteen bodies of 5 MiB through 40 MiB: never more; the one that is asked for again and again
    outlives the others; one larger than half of it is streamed, not kept."""
    loved, body = fetched(pair, 5 * MIB)
    for _ in range(15):
        fetched(pair, 5 * MIB)
        before = sent(pair[0])
        assert get(pair[1], loved).body == body
        assert sent(pair[0]) == before
        assert cache(pair[1])["used_bytes"] <= cache(pair[1])["limit_bytes"] == 40 * MIB
    assert cache(pair[1])["evictions"] >= 8
    large, content = stored(pair, 21 * MIB)
    before = cache(pair[1])["stored"]
    assert get(pair[1], large).body == content
    assert cache(pair[1])["stored"] == before


def test_a_fill_whose_holder_dies_leaves_nothing(pair):
    """The only holder dies in the middle: the client is cut, no copy stays; when it is back, it is
    fetched anew."""
    object_id, body = stored(pair, 19 * MIB)
    used = cache(pair[1])["used_bytes"]
    with socket.create_connection(pair[1].address) as client:
        pair[0].pause()
        client.sendall(f"GET /api/v1/get/{object_id} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        wait_for(lambda: pair[1].stats()["http"]["in_flight"] >= 2, "the request to wait")
        pair[0].kill()
        client.settimeout(60)
        got = client.recv(1 << 20)
        if not got.startswith(b"HTTP/1.1 503"):  # a machine this busy stops a process late
            while piece := client.recv(1 << 20):
                got += piece
            assert got.startswith(b"HTTP/1.1 200") and len(got) < len(body)
    wait_for(lambda: cache(pair[1])["used_bytes"] <= used, "the room to be free again")
    pair[0].start()
    wait_for(lambda: get(pair[1], object_id).status == 200, "the holder to be back")
    assert get(pair[1], object_id).body == body


def test_a_restart_begins_with_an_empty_cache(pair):
    """Copies are worth nothing to the next process, and their room is given back."""
    object_id, body = fetched(pair, 4 * MIB)
    pair[1].stop()
    assert not [name for name in os.listdir(pair[1].files) if name.startswith("cache")]
    pair[1].start()
    assert cache(pair[1])["used_bytes"] == 0
    before = sent(pair[0])
    wait_for(lambda: get(pair[1], object_id).status == 200, "the holder to be known")
    assert get(pair[1], object_id).body == body
    assert sent(pair[0]) - before == len(body)
