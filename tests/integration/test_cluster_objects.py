"""One truth on every node: what is put, changed or deleted anywhere is known everywhere, and every
body can be read from every node."""

import random
import threading

import pytest

import wire
from cluster import WHERE, Background, Cluster, Told, conflict_id, shared_fields  # noqa: F401
from harness import BLOCK, INLINE, noise, sha256, ulid, wait_for

MIB = 1 << 20
SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, INLINE - 1, INLINE, INLINE + 1, 5 * MIB, 40 * MIB)
# Headers of an answer that may differ between the node that has the body and one that has not.
OWN_HEADERS = ("date", "x-meta-symlink")


def known(trio, object_id):
    """Until every node has heard of it."""
    trio.wait_all(lambda m: m.http.meta(object_id).status == 200, f"{object_id} to be known")


def elsewhere(trio, member):
    return [m for m in trio.members if m is not member]


# ---- Meta ----


def test_meta_is_everywhere(trio):
    """Whatever is put on any node, every node answers its meta: the same document, but for what each
    says of itself. GET says the same in its headers."""
    for number, member in enumerate(trio.members):
        for level, size in enumerate((10, INLINE + 1)):
            document = member.http.stored(noise(size, number), level=level, name=f"größe {size}.txt",
                                          user_meta={"node": str(number), "ü": "é"})
            assert not document["is_symlink"]
            known(trio, document["id"])
            for other in elsewhere(trio, member):
                there = other.http.meta(document["id"]).json()
                assert shared_fields(there) == shared_fields(document)
                assert there["is_symlink"] is True
            answers = [m.http.get(document["id"], method="HEAD") for m in trio.members]
            for name in ("X-Meta-Name", "X-Meta-UserMeta", "X-Meta-ConsistencyLevel", "ETag", "Content-Type",
                         "Last-Modified", "Content-Length"):
                assert len({answer.header(name) for answer in answers}) == 1, name
                assert answers[0].header(name), name


def test_a_put_is_seen_soon(trio):
    """A put on one node is known on the others without waiting for the next probe: most within a
    tenth of a second even on a busy machine."""
    slow, first, rest = 0, trio[0], trio.members[1:]
    for number in range(40):
        object_id = first.http.stored(noise(100, number))["id"]
        for other in rest:
            try:
                wait_for(lambda o=other, i=object_id: o.http.meta(i).status == 200, "it", 0.1)
            except AssertionError:
                slow += 1
    assert slow <= 20, slow


def test_changes_converge(trio):
    """Name, user meta and level, changed on any node, arrive on all. Changed on all at once, all agree
    on one of the changes in the end, and it is what a node says that was told of it."""
    object_id = trio[0].http.stored(b"renamed everywhere", name="first")["id"]
    known(trio, object_id)
    for number, member in enumerate(trio.members):
        reply = member.http.set_meta(object_id, {"X-Meta-Name": f"by {number}", "X-Meta-UserMeta": '{"n":"%d"}' % number})
        assert reply.status == 200, reply
        trio.wait_all(lambda m, n=number: m.http.meta(object_id).json()["name"] == f"by {n}", "the name")
        assert all(m.http.meta(object_id).json()["user_meta"] == {"n": str(number)} for m in trio.members)
    barrier = threading.Barrier(3)

    def change(member):
        http = member.client()
        barrier.wait()
        for number in range(30):
            http.set_meta(object_id, {"X-Meta-Name": f"{member.name} {number}"})
        http.close()

    threads = [threading.Thread(target=change, args=(m,)) for m in trio.members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trio.wait_equal()
    documents = [shared_fields(m.http.meta(object_id).json()) for m in trio.members]
    assert documents[0] == documents[1] == documents[2]
    assert documents[0]["name"] in {f"{m.name} 29" for m in trio.members}


def test_levels_rise(trio):
    """A level is raised from any node and known on all; lowering it is refused on all."""
    object_id = trio[0].http.stored(b"to be raised", level=0)["id"]
    known(trio, object_id)
    reply = trio[1].http.set_meta(object_id, {"X-Meta-ConsistencyLevel": "1"})
    assert reply.status in (200, 202), reply
    trio.wait_all(lambda m: m.http.meta(object_id).json()["level"] == 1, "the level")
    for member in trio.members:
        assert member.http.set_meta(object_id, {"X-Meta-ConsistencyLevel": "0"}).code() == "level_cannot_be_lowered"


# ---- Bodies ----


@pytest.mark.parametrize("size", SIZES)
def test_a_body_through_a_peer(trio, size):
    """Every node gives every body, right by its SHA-256, and says that it lies elsewhere; asked again
    it gives it again."""
    body = noise(size, 1)
    owner = trio[size % 3]
    document = owner.http.stored(body, name="body.bin")
    known(trio, document["id"])
    for other in elsewhere(trio, owner):
        for times in range(2):
            reply = other.http.get(document["id"])
            assert reply.status == 200 and sha256(reply.body) == document["sha256"] == sha256(body), times
            assert reply.header("X-Meta-Symlink") == "true"
            assert reply.header("ETag") == f'"{document["sha256"]}"'
    assert owner.http.get(document["id"]).header("X-Meta-Symlink") is None


def conditions(etag, date):
    """Header lists of requests whose answers must not depend on where the body lies."""
    ranges = ("bytes=0-0", "bytes=0-99", "bytes=-1", "bytes=-70000", "bytes=65530-65545", "bytes=65536-",
              "bytes=100-131073", "bytes=0-9,70000-70009", "bytes=0-1,4-5,99990-", "bytes=99999999-", "bytes=nonsense",
              "bytes=5-4", "bytes=0-99999999")
    yield from ({"Range": value} for value in ranges)
    yield {}
    for name in ("If-None-Match", "If-Match"):
        yield from ({name: value} for value in (etag, '"other"', "*", f'"other", {etag}', f"W/{etag}"))
    for name in ("If-Modified-Since", "If-Unmodified-Since"):
        yield from ({name: value} for value in (date, "Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"))
    yield from ({"If-Range": value, "Range": "bytes=10-19"} for value in (etag, '"other"', date))


def same_answer(one, two):
    """Apart from what may differ, and from the boundary that each draws anew."""
    def plain(reply):
        headers = {n.lower(): v for n, v in reply.headers if n.lower() not in OWN_HEADERS}
        body, kind = reply.body, headers.get("content-type", "")
        if kind.startswith("multipart/byteranges"):
            boundary = kind.split("boundary=")[1].strip('"')
            body, headers["content-type"] = body.replace(boundary.encode(), b"="), "multipart"
        return reply.status, headers, body

    return plain(one) == plain(two)


@pytest.mark.parametrize("size", [100_000, 700_000])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ranges_and_conditions_through_a_peer(trio, size, method):
    """Ranges, HEAD and conditional requests are answered as by the node that has the body: the same
    status, headers and bytes, both at the first request for a body and later."""
    owner, other = trio[0], trio[1]
    fixed = owner.http.stored(noise(size, 2), name="fixed.txt")
    head = owner.http.get(fixed["id"], method="HEAD")
    known(trio, fixed["id"])
    seen = set()
    for number, headers in enumerate(conditions(head.header("ETag"), head.header("Last-Modified"))):
        expected = owner.http.get(fixed["id"], headers, method)
        for _ in range(2):
            got = other.http.get(fixed["id"], headers, method)
            assert same_answer(expected, got), (headers, expected, got)
        seen.add(got.status)
        # The same of a body that was never asked for there; its own tag and date.
        fresh = owner.http.stored(noise(size, 10 + number), name="fresh.txt")
        known(trio, fresh["id"])
        mine = {n: v.replace(fixed["sha256"], fresh["sha256"]) for n, v in headers.items()}
        expected, got = (m.http.get(fresh["id"], mine, method) for m in (owner, other))
        assert same_answer(expected, got), (mine, expected, got)
    # RFC 9110 §14.2: a Range means something to GET alone.
    assert seen == ({200, 206, 304, 412, 416} if method == "GET" else {200, 304, 412})


def test_many_readers_of_one_body(trio):
    """Many clients that miss the same body at once all get the right bytes."""
    body = noise(8 * MIB, 3)
    document = trio[0].http.stored(body)
    known(trio, document["id"])
    results, barrier = [], threading.Barrier(8)

    def read():
        http = trio[1].client()
        http.request("GET", "/api/v1/ping")
        barrier.wait()
        results.append(sha256(http.get(document["id"]).body))
        http.close()

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [sha256(body)] * 8


def test_a_client_that_goes_away(trio):
    """A reader that hangs up in the middle of a body from elsewhere spoils nothing: the next gets it
    whole, and what was under way ends."""
    body = noise(20 * MIB, 4)
    document = trio[0].http.stored(body)
    known(trio, document["id"])
    for _ in range(5):
        with wire.Connection(trio[1].address) as connection:
            connection.send(wire.head("GET", f"/api/v1/get/{document['id']}"))
            assert connection.stream.read(100_000).startswith(b"HTTP/1.1 200")
    assert sha256(trio[1].http.get(document["id"]).body) == document["sha256"]


# ---- Deletes ----


@pytest.mark.parametrize("size", [1000, MIB])
def test_delete_anywhere(trio, size):
    """Deleted on any node, it is gone on every node, for good: 404 with X-Meta-Deleted, put 410, meta
    still told; and the body's file is gone from the node that had it."""
    files = [len(member.large_files()) for member in trio.members]
    for number, member in enumerate(trio.members):
        owner = trio[(number + 1) % 3]
        object_id = owner.http.stored(noise(size, 20 + number))["id"]
        known(trio, object_id)
        trio[(number + 2) % 3].http.get(object_id)
        reply = member.http.delete(object_id)
        assert reply.status == 200 and reply.json()["is_deleted"], reply
        # By its meta: a read that begins before the delete arrives may be cut in the middle.
        trio.wait_all(lambda m: m.http.meta(object_id).json()["is_deleted"], "the delete")
        for each in trio.members:
            assert each.is_gone(object_id)
            document = each.http.meta(object_id).json()
            assert document["sha256"] == "" and document["size"] == 0
            assert each.http.put(noise(size, 20 + number), id=object_id).code() == "deleted"
            assert each.http.delete(object_id).status == 200
    for member, count in zip(trio.members, files, strict=True):
        wait_for(lambda m=member, n=count: len(m.large_files()) <= n, "the file to go")


def test_a_delete_frees_all_copies(trio):
    """The copies that level 2 made are freed everywhere."""
    files = [len(m.large_files()) for m in trio.members]
    object_id = trio[0].http.stored(noise(2 * MIB, 50), level=2)["id"]
    for member, count in zip(trio.members, files, strict=True):
        wait_for(lambda m=member, n=count: len(m.large_files()) == n + 1, "a copy")
    trio[1].http.delete(object_id)
    for member, count in zip(trio.members, files, strict=True):
        wait_for(lambda m=member, n=count: len(m.large_files()) <= n, "the copy to go")
    trio.wait_equal()


def test_delete_of_what_nobody_has(trio):
    """A delete of an id that nobody has heard of holds everywhere."""
    object_id = ulid()
    assert trio[2].http.delete(object_id).status == 200
    trio.wait_all(lambda m: m.is_gone(object_id), "the delete")
    assert trio[0].http.put(b"too late", id=object_id).code() == "deleted"


# ---- Apart: each writes while the other is down ----


def test_each_while_the_other_is_down(nodes):
    """Two nodes that know each other; one gets objects while the other is down, then the other, alone,
    deletes some of them and puts different bytes under the ids of others. When both are there: a delete
    wins over a put it had not heard of, also where the bytes are; of two puts the later wins on both, and
    the other body is an object of its own."""
    pair = Cluster(nodes, 2).start()
    one, two = pair.members
    gone, fought = [ulid() for _ in range(10)], {ulid(): 1000, ulid(): MIB}
    two.stop()
    for object_id in gone:
        one.http.stored(noise(1000, 30), id=object_id)
    for object_id, size in fought.items():
        one.http.stored(noise(size, 41), id=object_id, name="early")
    one.stop()
    two.start()
    for object_id in gone:
        assert two.http.delete(object_id).status == 200
    for object_id, size in fought.items():
        two.http.stored(noise(size, 42), id=object_id, name="late")
    one.start()
    pair.wait_together()
    pair.wait_equal()
    for member in pair.members:
        assert all(member.is_gone(object_id) for object_id in gone)
        assert member.http.put(noise(1000, 30), id=gone[0]).code() == "deleted"
        for object_id, size in fought.items():
            document = member.http.meta(object_id).json()
            assert (document["name"], document["sha256"]) == ("late", sha256(noise(size, 42)))
            assert member.http.get(object_id).body == noise(size, 42)
            assert member.http.put(noise(size, 43), id=object_id).code() == "conflict"
    pair.wait_resolved({i: (noise(size, 41), noise(size, 42)) for i, size in fought.items()})
    for object_id, size in fought.items():
        document = two.http.meta(conflict_id(object_id, noise(size, 41))).json()
        assert document["name"] == "early"
    assert one.stats()["conflicts"]["done"] == len(fought)
    assert "conflict: different bytes were put under" in one.log()


# ---- All together ----


def test_load_on_every_node(trio):
    """Clients of all three nodes put, rename, delete and read: in the end all nodes have the same facts,
    by their digests and by what the clients were told."""
    told, doomed = Told(), set()

    def read(http, object_id, digest):
        try:
            reply = http.get(object_id)
        except wire.Broken:
            reply = None
        if not reply or reply.status != 200:
            # Deleted meanwhile: known here already, or where the body was, or in the middle of it.
            assert object_id in doomed and (not reply or reply.status in (404, 503)), (object_id, reply)
        else:
            assert sha256(reply.body) == digest

    def work(http, rnd):
        verb = rnd.random()
        with told.lock:
            object_id, digest = rnd.choice(list(told.bodies.items())) if told.bodies else (None, None)
        if verb < 0.6 or not object_id:
            told.put(http, noise(rnd.choice((0, 100, 3000, 70000, INLINE + 1)), rnd.random()), name="n",
                     level=rnd.choice((0, 0, 1)))
        elif verb < 0.8:
            reply = http.meta(object_id)
            if reply.status == 200:  # else it is not known here yet
                read(http, object_id, digest)
        else:
            doomed.add(object_id)
            told.delete(http, object_id)

    with Background(trio[0], work) as a, Background(trio[1], work) as b, Background(trio[2], work) as c:
        for load in (a, b, c):
            load.wait(150)
    assert told.deleted == doomed
    trio.wait_equal()
    sample = random.Random(1).sample(sorted(told.bodies), min(60, len(told.bodies)))
    told.bodies = {i: told.bodies[i] for i in sample}
    for member in trio.members:
        told.check(member, bodies=True)
        assert member.stats()["faults"]["bad_blocks"] == 0
