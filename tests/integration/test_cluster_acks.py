"""What an answer means in a cluster: how many durable copies it waits for, for how long, and what it says
where they are not to be had; and what a node does that has lost the others."""

import contextlib
import re
import signal
import socket
import struct
import threading
import time

import pytest

import wire
from cluster import WHERE, Cluster  # noqa: F401
from harness import INLINE, noise, sha256, ulid, wait_for

FULL = {"X-Meta-ConsistencyLevel": "2"}


def ack(word, timeout=None, **more):
    headers = {**FULL, "X-Meta-Ack": word, **more}
    return {**headers, "X-Meta-Timeout": str(timeout)} if timeout is not None else headers


def replicas(reply):
    """Of the header, which the document must agree with."""
    document = reply.json()
    have, want = map(int, reply.header("X-Meta-Replicas").split("/"))
    assert document["replicas"] == {"have": have, "want": want}
    assert ("replica" in document["pending"]) == (have < want), document
    return have, want


def acks(member):
    return member.stats()["acks"]


def has_body(member, object_id):
    reply = member.http.meta(object_id)
    return reply.status == 200 and not reply.json()["is_symlink"]


class Asking:
    """A request in a thread of its own, and when it was answered."""

    def __init__(self, member, run):
        self.http, self.reply, self.error = member.client(), None, None
        self.began = time.monotonic()
        self.took_s = None
        self.thread = threading.Thread(target=self._run, args=(run,))
        self.thread.start()

    def _run(self, run):
        try:
            self.reply = run(self.http)
        except (OSError, wire.Broken) as error:
            self.error = error
        self.took_s = time.monotonic() - self.began
        self.http.close()

    def end(self):
        self.thread.join(60)
        assert not self.thread.is_alive() and not self.error, self.error
        return self.reply


@contextlib.contextmanager
def without(member):
    """MEMBER is dead for a while."""
    member.kill()
    yield
    member.start()


# ---- All alive ----


@pytest.mark.parametrize("size", [0, 1000, INLINE + 1])
def test_each_ack(trio, size):
    """With all nodes alive each ack is fulfilled: 200, at least as many copies as it asks for; with
    `all`, every node has the body itself before the answer is there."""
    for number, (word, least) in enumerate((("local", 1), ("one", 1), ("quorum", 2), ("all", 3))):
        body = noise(size, f"{word} {size}")
        began = time.monotonic()
        reply = trio[number % 3].http.put(body, ack(word))
        assert reply.status == 200, (word, reply)
        have, want = replicas(reply)
        assert want == 3 and have >= least, (word, reply)
        assert time.monotonic() - began < 9, "it waited for its time to end"
        if word == "all":
            assert all(has_body(member, reply.json()["id"]) for member in trio.members)
    wait_for(lambda: all(acks(m)["waiting"] == 0 for m in trio.members), "no waits to be left")


def test_default_waits_for_a_second_copy(trio):
    """A put of level 2 owes the cloud an upload: 202, after the body lies on two nodes. Of level 0 and 1
    nobody makes a copy, and nothing is waited for."""
    reply = trio[0].http.put(b"two at least", FULL)
    assert reply.status == 202 and replicas(reply)[0] >= 2 and replicas(reply)[1] == 3, reply
    assert "cloud" in reply.json()["pending"]
    reply = trio[0].http.put(b"one", {"X-Meta-ConsistencyLevel": "1"})
    assert reply.status == 202 and replicas(reply) == (1, 2), reply
    reply = trio[0].http.put(b"one", {"X-Meta-ConsistencyLevel": "0"})
    assert reply.status == 200 and replicas(reply) == (1, 1), reply
    reply = trio[0].http.put(b"now", ack("local"))
    assert reply.status == 200 and replicas(reply) == (1, 3), reply


def test_replicas_in_meta(trio):
    """Every node tells how many copies there are, and what is missing, as the journal has it."""
    object_id = trio[0].http.put(b"counted", ack("all")).json()["id"]
    for member in trio.members:
        wait_for(lambda m=member: replicas(m.http.meta(object_id)) == (3, 3), f"{member.name} to know all copies")
    alone = trio[1].http.stored(b"one copy", level=0)["id"]
    for member in trio.members:
        wait_for(lambda m=member: m.http.meta(alone).status == 200, "it")
        assert replicas(member.http.meta(alone)) == (1, 1)
    assert trio[2].http.delete(object_id).status == 200
    assert trio[2].http.meta(object_id).json()["replicas"] == {"have": 0, "want": 0}


def test_chunked(trio):
    """A chunked upload waits as others do; the time counts from its last byte."""
    body = noise(INLINE + 5, "chunked")
    with wire.Connection(trio[0].address, 30) as connection:
        connection.send(wire.head("POST", "/api/v1/put", [*ack("all", 5).items(), ("Transfer-Encoding", "chunked")]))
        connection.send(wire.chunked(body, 7000))
        reply = connection.read()
    assert reply.status == 200 and replicas(reply) == (3, 3), reply
    assert sha256(trio[1].http.get(reply.json()["id"]).body) == sha256(body)


def test_the_same_again(trio):
    """The same bytes under the same id once more, on another node, which then has a copy by a put of its
    own: all three copies count, wherever one asks."""
    object_id = ulid()
    assert trio[0].http.put(b"twice", id=object_id, level=0).status == 200
    wait_for(lambda: trio[1].http.meta(object_id).status == 200, "it on the other node")
    reply = trio[1].http.put(b"twice", ack("all", 20), id=object_id)
    assert reply.status == 200 and replicas(reply) == (3, 3), reply
    for member in trio.members:
        wait_for(lambda m=member: replicas(m.http.meta(object_id)) == (3, 3), f"{member.name} to know all copies")
    # And once more on each: nothing to be copied, nothing to wait for.
    for member in trio.members:
        began = time.monotonic()
        reply = member.http.put(b"twice", ack("all", 20), id=object_id)
        assert reply.status == 200 and replicas(reply) == (3, 3), reply
        assert time.monotonic() - began < 10


def test_raised(trio):
    """A level raised to 2 waits for the copies that it asks for, also on a node without the body."""
    for number in range(3):
        object_id = trio[0].http.stored(noise(100, f"raise {number}"), level=0)["id"]
        wait_for(lambda i=object_id, n=number: trio[n].http.meta(i).status == 200, "it to be known")
        reply = trio[number].http.set_meta(object_id, ack("all", 20))
        assert reply.status == 200 and replicas(reply) == (3, 3), reply
        # A name alone waits for nothing; a wait without a level is one for what it has.
        reply = trio[number].http.set_meta(object_id, {"X-Meta-Name": "again"})
        assert reply.status == 200 and replicas(reply) == (3, 3), reply
        reply = trio[number].http.set_meta(object_id, {"X-Meta-Ack": "quorum", "X-Meta-Name": "more"})
        assert reply.status == 200 and reply.json()["name"] == "more", reply


def test_raised_of_old(trio):
    """What is waited for comes at once, whatever its id says of its age and however much else is on its
    way: copies are made in the order of ids, but not of what somebody waits for."""
    old = ulid(time_ms=1400000000000)
    assert trio[0].http.put(b"old", id=old, level=0).status == 200
    wait_for(lambda: trio[1].http.meta(old).status == 200, "it to be known")
    reply = trio[1].http.set_meta(old, ack("all", 20))
    assert reply.status == 200 and replicas(reply) == (3, 3), reply


# ---- What is refused ----


@pytest.mark.parametrize("word", ["one", "quorum", "all"])
@pytest.mark.parametrize("level", [None, "0", "1", "local", "s3"])
def test_needs_level_2(trio, word, level):
    """Below level 2 nobody makes the copies that are asked for: 400, and nothing is stored."""
    headers = {"X-Meta-Ack": word, **({"X-Meta-ConsistencyLevel": level} if level else {})}
    with trio[0].unchanged():
        reply = trio[0].http.put(b"never", headers)
        assert reply.status == 400 and reply.code() == "ack_needs_level_2", reply


def test_meta_needs_level_2(trio):
    """The same for a change; the level that counts is the one that the object has afterwards, and a
    refused change changes nothing."""
    object_id = trio[0].http.stored(b"level 0", level=0, name="before")["id"]
    with trio[0].unchanged():
        for headers in ({"X-Meta-Ack": "all"}, {"X-Meta-Ack": "one", "X-Meta-ConsistencyLevel": "1"},
                        {"X-Meta-Ack": "quorum"}):
            reply = trio[0].http.set_meta(object_id, {"X-Meta-Name": "after", **headers})
            assert reply.status == 400 and reply.code() == "ack_needs_level_2", reply
        reply = trio[0].http.set_meta(object_id, {"X-Meta-Name": "after", "X-Meta-Ack": "cloud"})
        assert reply.status == 400 and reply.code() == "ack_needs_level_1", reply
        reply = trio[0].http.set_meta(ulid(), {"X-Meta-Ack": "all"})
        assert reply.status == 404, reply
    assert trio[0].http.meta(object_id).json()["name"] == "before"


@pytest.mark.parametrize("value", ["", "-1", "nan", "inf", "1e9", "0x10", "3601", "3600.001", "99999999999999999999",
                                   "1.", ".", ".5", "1,5", " ", "+1", "1 s", "٣"])
def test_bad_timeouts(trio, value):
    """A time to wait that is none is refused; nothing is stored, nothing waits."""
    with trio[0].unchanged():
        reply = trio[0].http.put(b"never", [*FULL.items(), ("X-Meta-Ack", "all"), ("X-Meta-Timeout", value)])
        assert reply.status == 400 and reply.code() == "invalid_timeout", (value, reply)
    assert acks(trio[0])["waiting"] == 0


def test_timeouts_twice(trio):
    """Nor does the last of two win."""
    for headers in ([("X-Meta-Timeout", "1"), ("X-Meta-Timeout", "2")], [("X-Meta-Ack", "all"), ("X-Meta-Ack", "one")]):
        with trio[0].unchanged():
            assert trio[0].http.put(b"never", [*FULL.items(), *headers]).status == 400


# ---- One is dead ----


def test_with_one_dead(trio):
    """Members count whether they answer or not: with one of three dead a quorum is still to be had, all
    copies are not. 202 then, when the time is up and not before, and the truth about the copies. The
    node that comes back makes its copy, and ends the wait of whoever still waits."""
    with without(trio[2]):
        began = time.monotonic()
        reply = trio[0].http.put(b"most", ack("quorum"))
        assert reply.status == 200 and replicas(reply) == (2, 3), reply
        assert time.monotonic() - began < 5
        began = time.monotonic()
        late = trio[0].http.put(b"not all", ack("all", 1.5))
        took_s = time.monotonic() - began
        assert late.status == 202 and replicas(late) == (2, 3), late
        assert "replica" in late.json()["pending"]
        assert 1.4 < took_s < 6, took_s
        # No time at all: what there is is said at once.
        began = time.monotonic()
        reply = trio[1].http.put(b"no time", ack("all", 0))
        assert reply.status == 202 and time.monotonic() - began < 1, reply
        waiting = Asking(trio[0], lambda http: http.put(b"patience", ack("all", 60)))
        wait_for(lambda: acks(trio[0])["waiting"] == 1, "it to wait")
    reply = waiting.end()
    assert reply.status == 200 and replicas(reply) == (3, 3), reply
    assert waiting.took_s < 30
    wait_for(lambda: has_body(trio[2], late.json()["id"]), "the one that came back to make its copies")
    wait_for(lambda: replicas(trio[0].http.meta(late.json()["id"])) == (3, 3), "that to be known")


def test_alone_among_dead(trio):
    """With both others dead there is no second copy to wait for, once they are known to be dead: a put
    of level 2 is answered as on a lone node, and `one` is what is here."""
    with without(trio[1]), without(trio[2]):
        wait_for(lambda: trio[0].stats()["cluster"]["health"] == "bad", "the others to be missed")
        began = time.monotonic()
        reply = trio[0].http.put(b"second", FULL)
        assert reply.status == 202 and replicas(reply) == (1, 3), reply
        reply = trio[0].http.put(b"one", ack("one"))
        assert reply.status == 200 and replicas(reply) == (1, 3), reply
        assert time.monotonic() - began < 3
        reply = trio[0].http.put(b"quorum", ack("quorum", 0.3))
        assert reply.status == 202 and replicas(reply) == (1, 3), reply


def test_client_goes_away(trio):
    """Whoever resets its connection waits no longer: its wait is given up, the object stays."""
    object_id = ulid()
    with without(trio[2]):
        connection = wire.Connection(trio[0].address, 30)
        connection.send(wire.head("POST", "/api/v1/put", [*ack("all", 600).items(), ("X-Meta-ID", object_id)], 4)
                        + b"gone")
        wait_for(lambda: acks(trio[0])["waiting"] == 1, "it to wait")
        late = acks(trio[0])["late"]
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        wait_for(lambda: acks(trio[0])["waiting"] == 0, "the wait to be given up")
        assert acks(trio[0])["late"] == late + 1
        wait_for(lambda: trio[1].http.get(object_id).body == b"gone", "it on the other node")


def test_deleted_meanwhile(trio):
    """What is deleted while its put waits needs no copies: 202 at once."""
    object_id = ulid()
    with without(trio[2]):
        waiting = Asking(trio[0], lambda http: http.put(b"deleted", ack("all", 60), id=object_id))
        wait_for(lambda: acks(trio[0])["waiting"] == 1, "it to wait")
        assert trio[1].http.delete(object_id).status == 200
        reply = waiting.end()
        assert reply.status == 202 and waiting.took_s < 30, reply
        assert trio[0].is_gone(object_id)


def test_stop_during_waits(trio):
    """A node that is told to stop answers whoever waits, at once and with the truth; nothing is lost."""
    with without(trio[2]):
        ids = [ulid() for _ in range(5)]
        waiting = [Asking(trio[0], lambda http, i=i: http.put(i.encode(), ack("all", 600), id=i)) for i in ids]
        wait_for(lambda: acks(trio[0])["waiting"] == 5, "them to wait")
        for object_id in ids:
            wait_for(lambda i=object_id: replicas(trio[0].http.meta(i)) == (2, 3), "the second copy")
        began = time.monotonic()
        trio[0].signal(signal.SIGTERM)
        replies = [it.end() for it in waiting]
        assert trio[0].end_of()[0] == 0
        assert time.monotonic() - began < 10
        for reply in replies:
            assert reply.status == 202 and replicas(reply) == (2, 3), reply
        trio[0].start()
        for object_id in ids:
            assert trio[0].http.get(object_id).body == object_id.encode()


def test_killed_during_a_wait(trio):
    """What was not answered may have happened: a node that dies while a client waits has the object."""
    object_id = ulid()
    with without(trio[2]):
        waiting = Asking(trio[0], lambda http: http.put(b"killed", ack("all", 60), id=object_id))
        wait_for(lambda: acks(trio[0])["waiting"] == 1, "it to wait")
        trio[0].kill()
        waiting.thread.join(30)
        assert waiting.error
        trio[0].start()
        assert trio[0].http.get(object_id).body == b"killed"


def test_forgotten_during_a_wait(nodes):
    """A member that is forgotten is waited for no longer: its copy is not among those asked for."""
    cluster = Cluster(nodes, 3).start()
    cluster[2].kill()
    waiting = Asking(cluster[0], lambda http: http.put(b"forgotten", ack("all", 60)))
    wait_for(lambda: acks(cluster[0])["waiting"] == 1, "it to wait")

    def forget():
        return cluster[1].ctl("node", "forget", cluster[2].known_id).returncode == 0

    wait_for(forget, "the dead node to be forgotten", 30)
    reply = waiting.end()
    assert reply.status == 200 and replicas(reply) == (2, 2), reply
    assert waiting.took_s < 50


# ---- Health ----


def test_health(trio):
    """Good while all members answer, degraded while most do, bad for who hears less than half; readyz
    names it and stays 200, and what is known is served."""
    object_id = trio[0].http.put(b"served", ack("all")).json()["id"]

    def health(member):
        reply = member.http.request("GET", "/readyz")
        assert reply.status == 200
        return reply.json()["cluster"]

    assert all(health(m) == "good" for m in trio.members)
    with without(trio[1]):
        wait_for(lambda: health(trio[0]) == health(trio[2]) == "degraded", "health to sink")
        with without(trio[2]):
            wait_for(lambda: health(trio[0]) == "bad", "health to sink more")
            assert trio[0].http.get(object_id).body == b"served"
            text = trio[0].http.request("GET", "/metrics").body.decode()
            assert re.search(r'^objstore_cluster_info\{health="bad"\} 1$', text, re.MULTILINE)
            assert trio[0].http.put(b"taken").status == 200
    wait_for(lambda: all(health(m) == "good" for m in trio.members), "health to rise")


def test_isolated_refuses(nodes):
    """With --isolated=refuse a node that hears less than half of its cluster serves no object, and
    readyz tells a balancer so; what is not about objects goes on, and so does the node when the others
    are back. One that never had others serves."""
    cluster = Cluster(nodes, 3, options=["--isolated=refuse"]).start()
    object_id = cluster[0].http.put(b"outdated?", ack("all")).json()["id"]
    for member in cluster.members[1:]:
        member.kill()
    wait_for(lambda: cluster[0].http.request("GET", "/readyz").status == 503, "it to know")
    http = cluster[0].http
    assert http.request("GET", "/readyz").json()["ready"] is False
    for reply in (http.get(object_id), http.get(object_id, method="HEAD"), http.meta(object_id),
                  http.put(b"x" * 1000), http.set_meta(object_id, {"X-Meta-Name": "x"}), http.delete(object_id)):
        assert reply.status == 503 and int(reply.header("Retry-After")) > 0, reply
        assert not reply.body or reply.code() == "isolated"
    for path in ("/healthz", "/metrics", "/api/v1/stats", "/api/v1/id", "/api/v1/ping", "/api/v1/version"):
        assert http.request("GET", path).status == 200, path
    assert cluster[0].stats()["cluster"]["health"] == "bad"
    # A restart in isolation changes nothing: it knows that there are others.
    cluster[0].kill()
    cluster[0].launch()

    def refuses():
        try:
            reply = http.get(object_id)
        except (OSError, wire.Broken):
            return False
        assert reply.status == 503, reply
        return reply.code() == "isolated"

    wait_for(refuses, "it to serve again, but for objects")
    cluster[1].launch()
    cluster[1].wait_ready()
    wait_for(lambda: http.request("GET", "/readyz").status == 200, "two of three to be enough")
    assert http.get(object_id).body == b"outdated?"
    cluster.repair()
    lone = nodes.make(options=["--isolated=refuse"])
    lone.start()
    assert lone.http.put(b"alone").status == 200
