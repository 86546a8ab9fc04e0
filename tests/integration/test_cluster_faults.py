"""Nodes that crash, stop, lose their disks or each other: nothing acknowledged is lost, nothing deleted
comes back, no wrong byte is served, and in the end all have the same facts."""

import shutil
import signal
import threading
import time

import pytest

import wire
from cluster import FAILED_S, WHERE, Background, Cluster, Told  # noqa: F401
from harness import BLOCK, INLINE, noise, sha256, ulid, wait_for
from test_corruption import find, flip, read

MIB = 1 << 20


def writes(told):
    """Work for Background: puts, and now and then a rename or a delete of what this thread has put;
    what was under way when a node died is not told, and so not certain."""
    mine = threading.local()

    def work(http, rnd):
        own = mine.__dict__.setdefault("ids", [])
        verb = rnd.random()
        if verb < 0.7 or not own:
            size = rnd.choice((0, 100, 3000, 70000, INLINE + 1))
            own.append(told.put(http, noise(size, rnd.random()), name="first"))
        elif verb < 0.85:
            object_id = rnd.choice(own)
            with told.lock:
                before = told.names.pop(object_id)
                body = told.bodies.pop(object_id)
            reply = http.set_meta(object_id, {"X-Meta-Name": f"after {before}"[:60]})
            assert reply.status == 200, reply
            with told.lock:
                told.names[object_id], told.bodies[object_id] = reply.json()["name"], body
        else:
            object_id = own.pop(rnd.randrange(len(own)))
            with told.lock:
                told.bodies.pop(object_id, None)
                told.names.pop(object_id, None)
            told.delete(http, object_id)

    return work


def has_all(member, ids):
    """MEMBER has the bodies itself."""
    replies = map(member.http.meta, ids)
    return all(reply.status == 200 and not reply.json()["is_symlink"] for reply in replies)


# ---- Crashes ----


def test_kill_during_writes(trio):
    """kill -9 of a node in the middle of writes, twice, each time another one; back with its old
    directories it catches up, and every node knows all that was acknowledged anywhere."""
    cluster = trio
    told = Told()
    for victim in (cluster[1], cluster[0]):
        others = [m for m in cluster.members if m is not victim]
        with Background(others[0], writes(told)) as a, Background(others[1], writes(told)) as b:
            with Background(victim, writes(told), may_break=True) as load:
                load.wait(100)
                victim.kill()
            a.wait(50)
            b.wait(50)
            victim.start()
            a.wait(20)
        cluster.wait_together()
        cluster.wait_equal()
    for member in cluster.members:
        told.check(member, bodies=True)


def test_all_are_killed(trio):
    """All nodes lose their power at once under load; back in another order, they agree on all that was
    acknowledged."""
    cluster = trio
    told = Told()
    loads = [Background(m, writes(told), may_break=True) for m in cluster.members]
    with loads[0], loads[1], loads[2]:
        for load in loads:
            load.wait(60)
        for member in cluster.members:
            member.kill()
    for member in reversed(cluster.members):
        member.launch()
    for member in cluster.members:
        member.wait_ready()
    cluster.wait_together()
    cluster.wait_equal()
    for member in cluster.members:
        told.check(member, bodies=True)


def test_a_long_absence(nodes):
    """A node misses thousands of changes; after its return it has them all, soon."""
    cluster = Cluster(nodes, 2).start()
    away = cluster[1]
    away.stop()
    told = Told()
    with Background(cluster[0], writes(told), threads=4, limit=3000) as load:
        load.wait(3000)
    away.start()
    begin = time.monotonic()
    cluster.wait_equal()
    assert time.monotonic() - begin < 10
    told.check(away)


def test_a_wiped_node(trio):
    """A node loses both directories: under its address comes a new node, which learns all facts, keeps
    nothing deleted alive, and gets the bodies of level 2 by itself."""
    cluster = trio
    told = Told()
    for size in (0, 1, 3000, 70000, INLINE + 1, 2 * MIB):
        told.put(cluster[0].http, noise(size, 1), level=0)
        told.delete(cluster[0].http, told.put(cluster[0].http, noise(size, 3), level=2))
    wiped = cluster[2]
    wiped.kill()
    wiped.wipe()
    wiped.start()
    cluster.wait_together()
    cluster.wait_equal()
    told.check(wiped, bodies=True)


def test_level_2_is_everywhere(trio):
    """Bodies of level 2 come to every node by themselves, also to one that lost its disks; then each can
    serve them alone."""
    cluster = trio
    told = Told()
    for size in (0, 1, 3000, 70000, INLINE + 1, 2 * MIB):
        told.put(cluster[size % 3].http, noise(size, 2), level=2)
        raised = told.put(cluster[0].http, noise(size, 3), level=0)
        wait_for(lambda i=raised: cluster[1].http.meta(i).status == 200, "it to be known")
        assert cluster[1].http.set_meta(raised, {"X-Meta-ConsistencyLevel": "2"}).status in (200, 202)

    cluster.wait_all(lambda m: has_all(m, told.bodies), "the bodies of level 2")
    wiped = cluster[2]
    wiped.kill()
    wiped.wipe()
    wiped.start()
    wait_for(lambda: has_all(wiped, told.bodies), "the bodies of level 2 on the new disks")
    cluster.wait_equal()
    cluster[0].kill()
    cluster[1].kill()
    told.check(wiped, bodies=True)


def test_rot_is_repaired_from_another_node(trio):
    """A copy that rots is answered from another node's, and replaced by it: afterwards the node serves
    it alone."""
    cluster = trio
    told = Told()
    bodies = {size: noise(size, 71) for size in (900, INLINE, INLINE + 1, 3 * MIB)}
    ids = {size: told.put(cluster[0].http, body, level=2) for size, body in bodies.items()}
    rotten = cluster[1]
    wait_for(lambda: has_all(rotten, ids.values()), "all copies")
    rotten.stop()
    for size, body in bodies.items():
        paths = rotten.segments() if size <= INLINE else rotten.large_files()
        at = 2 * BLOCK + 5 if size == 3 * MIB else 0  # the last one in its middle
        path, offset = find(paths, body[at:at + 64])
        flip(path, offset)
    rotten.start()
    for size, body in bodies.items():
        if size == 3 * MIB:
            status, got, _ = read(rotten, ids[size])
            assert status == 200 and body.startswith(got)
        else:
            reply = rotten.http.get(ids[size])
            assert (reply.status, reply.body) == (200, body), size
    wait_for(lambda: rotten.http.stats()["faults"]["repaired"] == len(bodies), "the repairs")
    cluster[0].stop()
    cluster[2].stop()
    rotten.stop()  # nothing is left in memory
    rotten.start()
    told.check(rotten, bodies=True)


def test_kill_during_replication(trio):
    """The node that makes its copies of large bodies, and then the one they come from, are killed in the
    middle of it: in the end every node has every body, and nothing is left over."""
    cluster = trio
    told = Told()
    for number in range(6):
        told.put(cluster[0].http, noise(MIB, number) * 40, level=2, headers={"X-Meta-Ack": "local"})
    wait_for(cluster[1].temporaries, "a copy under way")
    cluster[1].kill()
    cluster[1].start()
    wait_for(lambda: cluster[1].temporaries() or has_all(cluster[1], told.bodies), "a copy under way again")
    cluster[0].kill()
    cluster[0].start()
    cluster.wait_together()
    cluster.wait_all(lambda m: has_all(m, told.bodies), "the bodies")
    for member in cluster.members:
        wait_for(lambda m=member: not m.temporaries(), "temporary files to go")
    cluster.wait_equal()
    told.check(cluster[2], bodies=True)


def test_a_restored_node(trio):
    """A node's directories are set back to an old backup: it is the same node again, gets its own later
    facts from the others, and what it writes then is known to all."""
    cluster = trio
    told, restored = Told(), cluster[1]
    ids = [told.put(restored.http, noise(1000, n)) for n in range(10)]
    backup = restored.base / "backup"
    done = restored.ctl("backup", backup)
    assert done.returncode == 0, done
    for object_id in ids[:3]:
        told.delete(restored.http, object_id)
    told.rename(restored.http, ids[5], "after the backup")
    for number in range(20):
        body, object_id = noise(1000, 100 + number), ulid()
        for member in cluster.members[:2]:
            told.put(member.http, body, id=object_id)
    cluster.wait_equal()
    known = restored.id
    restored.kill()
    restored.wipe()
    for name in ("state", "files"):
        shutil.copytree(backup / name, restored.base / restored.name / name)
    restored.start()
    assert restored.id == known
    told.put(restored.http, b"written after the restore")
    cluster.wait_together()
    cluster.wait_equal()
    for member in cluster.members:
        told.check(member, bodies=True)


def test_a_joiner_gets_all(nodes):
    """A node that joins a cluster with many objects learns all of them."""
    cluster = Cluster(nodes, 2).start()
    told = Told()
    with Background(cluster[0], writes(told), threads=4, limit=3000) as load:
        load.wait(2000)
        joiner = cluster.add().start()
        load.wait(200)
    cluster.wait_together()
    cluster.wait_equal()
    told.check(joiner)


# ---- A holder dies in the middle of a body ----


def read_until(connection, object_id, count):
    """Ask for the body and read COUNT bytes of it: the bytes, and how many there should be."""
    connection.send(wire.head("GET", f"/api/v1/get/{object_id}"))
    _, status, _, headers = connection._head()
    assert status == 200, headers
    length = int({n.lower(): v for n, v in headers}["content-length"])
    return connection._exactly(count), length


@pytest.mark.parametrize("holders", [1, 2])
def test_a_holder_dies_in_the_middle(trio, holders):
    """100 MiB through another node, whose source is killed in the middle: with another holder the body
    comes whole, without one the connection is cut; never is a byte wrong."""
    cluster = trio
    reader, sources = cluster[0], cluster.members[1:1 + holders]
    body = noise(MIB, 5) * 100
    object_id = ulid()
    for source in sources:
        source.http.stored(body, id=object_id)
    wait_for(lambda: reader.http.meta(object_id).status == 200, "the object")
    cluster.wait_equal()
    before = {m.name: m.stats()["transfer"]["bytes_out"] for m in sources}
    with wire.Connection(reader.address) as connection:
        got, length = read_until(connection, object_id, 5 * MIB)
        assert length == len(body)
        serving = wait_for(lambda: [m for m in sources if m.stats()["transfer"]["bytes_out"] > before[m.name]],
                           "a source")
        assert len(serving) == 1
        serving[0].kill()
        if holders == 1:
            with pytest.raises(wire.Broken) as cut:
                connection._exactly(length - len(got))
            got += cut.value.got
            assert len(got) < length and got == body[:len(got)]
        else:
            got += connection._exactly(length - len(got))
            assert got == body
    # And for the next one: what nobody has is not invented.
    if holders == 1:
        reply = reader.http.get(object_id, {"Range": "bytes=99000000-"})
        assert reply.status in (404, 503, 504), reply


# ---- Restarts ----


def test_a_rolling_restart(trio):
    """Three nodes are restarted one after the other under a load of reads of level-2 objects; a reader
    that cannot connect asks another node. No read fails, none gives a wrong byte."""
    cluster = trio
    told = Told()
    for size in (0, 1000, 3000, 70000, INLINE + 1, MIB) * 3:
        told.put(cluster[0].http, noise(size, ulid()), level=2)
    ids = sorted(told.bodies)
    cluster.wait_all(lambda m: has_all(m, ids), "the bodies")
    addresses = [m.address for m in cluster.members]

    def read(_, rnd):
        object_id, first = rnd.choice(ids), rnd.randrange(3)
        for turn in range(3):
            try:
                connection = wire.Connection(addresses[(first + turn) % 3])
            except ConnectionRefusedError:
                continue
            with connection:
                reply = connection.request("GET", f"/api/v1/get/{object_id}")
            if reply.status == 503 and reply.json()["error"]["code"] == "starting":
                continue
            assert reply.status == 200 and sha256(reply.body) == told.bodies[object_id], reply
            return
        raise AssertionError("nobody answers")

    with Background(cluster[0], read, threads=4, limit=10**6) as load:
        for member in cluster.members:
            load.wait(50)
            member.stop()
            load.wait(50)
            member.start()
            cluster.wait_together()
    cluster.wait_equal()


# ---- Apart ----


def test_a_frozen_process(trio):
    """One of three stops answering for eight seconds: the others call it failed, go on, write and
    delete; then it is alive again, and nothing is missing anywhere."""
    cluster = trio
    frozen, told = cluster[2], Told()
    gone = [told.put(frozen.http, noise(1000, n)) for n in range(20)]
    cluster.wait_equal()
    others = cluster.members[:2]
    begin = time.monotonic()
    frozen.pause()
    try:
        with Background(others[0], writes(told)) as load:
            load.wait(300)
        for object_id in gone[:10]:
            told.delete(others[1].http, object_id)
        cluster.wait_all(lambda m: m.sees(frozen) == "failed", "`failed`", others, FAILED_S)
        wait_for(lambda: time.monotonic() - begin > 8, "eight seconds")
        with Background(others[1], writes(told)) as load:
            load.wait(100)
        # Those two have heard of each other all the time.
        cluster.wait_equal(others)
    finally:
        frozen.resume()
    cluster.wait_together()
    cluster.wait_equal()
    for member in cluster.members:
        told.check(member, bodies=True)


def test_each_alone(nodes):
    """Five nodes; each in turn writes and deletes while all others are down. When all are up, all know
    everything."""
    cluster = Cluster(nodes, 5).start()
    told, shared = Told(), []
    for number in range(50):
        shared.append(told.put(cluster[number % 5].http, noise(500, number)))
    cluster.wait_equal()
    for member in cluster.members:
        member.signal(signal.SIGTERM)
    for member in cluster.members:
        member.end_of()
    for number, member in enumerate(cluster.members):
        member.start()
        for size in (0, 1000, INLINE + 1):
            told.put(member.http, noise(size, member.name))
        for object_id in shared[number::10]:
            told.delete(member.http, object_id)
        told.rename(member.http, shared[number + 5], f"by {member.name}")
        member.kill()
    for member in cluster.members:
        member.launch()
    for member in cluster.members:
        member.wait_ready()
    cluster.wait_together()
    cluster.wait_equal()
    for member in cluster.members:
        told.check(member, bodies=True)
