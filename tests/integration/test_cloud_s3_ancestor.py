"""Goal: an object of the ancestor's, whose SHA-256 the bucket does not tell, is read out of it once to be known,
whoever asks for it on however many nodes at once; and who waits for the node that reads it gets the right bytes
whatever becomes of that one. Counted by the access log of a real S3 server, at a gate where the body waits."""

import threading
import time

import crowd
import harness
import pytest
import s3
import wire
from cluster import Cluster
from harness import noise, sha256, ulid, wait_for
from test_cloud_s3_reads import FETCH, MIB, Gate, gets, has_copy, keys, options

SIZE = 5 * MIB + 4321


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = s3.Server(tmp_path_factory.mktemp("s3"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shared_gate(server):
    made = Gate(server.port)
    yield made
    made.may_go.set()
    made.close()


@pytest.fixture
def gate(shared_gate):
    shared_gate.may_go.clear()
    yield shared_gate
    shared_gate.may_go.set()
    shared_gate.clear()


@pytest.fixture(scope="module")
def shared_three(shared, shared_gate):
    return Cluster(shared, 3, options=options(shared_gate.endpoint), env=keys()).start()


@pytest.fixture
def three(shared_three):
    yield shared_three
    shared_three.check()


def of_the_ancestor(server, body, level=1):
    """An object as the ancestor put it, which no node knows of: its id."""
    object_id = ulid()
    server.client().put_object(Bucket=s3.BUCKET, Key=object_id, Body=body, Metadata={
        "id": object_id, "name": "old.bin", "size": str(len(body)), "timestamp": str(time.time_ns()),
        "consistency": str(level)})
    return object_id


def looked(gate, object_id):
    """How many nodes have been told what the bucket has there: each asks for the object and for its mark."""
    return sum(method == "HEAD" and object_id in path for method, path in asked(gate)) // 2


def asked(gate):
    with gate.lock:
        return [tuple(request[:2]) for request in gate.requests]


def readers(cluster):
    """The nodes that have asked the bucket for bytes."""
    return [m for m in cluster.members if m.stats()["cloud"]["requests"]["get"]["answered"]]


class Client(threading.Thread):
    def __init__(self, member, object_id):
        super().__init__(daemon=True)
        self.member, self.object_id, self.reply = member, object_id, None
        self.start()

    def run(self):
        try:
            self.reply = self.member.client().get(self.object_id, FETCH)
        except (OSError, wire.Broken) as error:
            self.reply = error

    def gets(self, body):
        self.join(2 * harness.PATIENCE_S)
        assert isinstance(self.reply, wire.Reply), (self.member.name, self.reply)
        assert self.reply.status == 200 and sha256(self.reply.body) == sha256(body), (self.member.name, self.reply)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("size", [1000, SIZE])
def test_a_crowd_on_three_nodes_is_one_get(three, server, gate, size, level):
    """The body does not come before all nodes have been asked for it: nobody can have heard of it from another."""
    body = noise(size, level)
    object_id = of_the_ancestor(server, body, level)
    gate.fault("trickle", method="GET", path=object_id)
    failures = []

    def ask():
        try:
            crowd.ask(three.members, 90, object_id, body, FETCH)
        except BaseException as error:
            failures.append(error)
            raise

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: looked(gate, object_id) == 3 or failures, "all nodes to look for it")
    wait_for(lambda: ("GET", f"/{s3.BUCKET}/{object_id}") in asked(gate) or failures, "one to ask for the body")
    gate.may_go.set()
    asking.join()
    assert not failures
    three.wait_equal()
    if level == 2:
        three.wait_all(lambda m: has_copy(m, object_id), "to have a copy")
    crowd.ask(three.members, 9, object_id, body)
    assert gets(server, object_id) == 1
    for member in three.members:
        assert member.http.meta(object_id).json()["sha256"] == sha256(body)


def test_many_at_once_are_one_get_each(three, server, gate):
    """More ids than one node leaves to others at once would be too many: these are fewer."""
    gate.may_go.set()
    bodies = {of_the_ancestor(server, body): body for body in (noise(20_000 + n, n) for n in range(12))}
    clients = [(Client(member, object_id), body) for object_id, body in bodies.items() for member in three.members]
    for client, body in clients:
        client.gets(body)
    assert {object_id: gets(server, object_id) for object_id in bodies} == dict.fromkeys(bodies, 1)


@pytest.mark.parametrize("way", ["killed", "paused"])
def test_the_node_that_reads_it_goes_away(nodes, server, gate, way):
    """In the middle of the body: the clients of the others get it all the same, and the right bytes of it."""
    cluster = Cluster(nodes, 3, options=options(gate.endpoint), env=keys()).start()
    body = noise(SIZE)
    object_id = of_the_ancestor(server, body)
    gate.fault("trickle", method="GET", path=object_id, after=MIB)
    clients = [Client(member, object_id) for member in cluster.members]
    wait_for(lambda: looked(gate, object_id) == 3, "all nodes to look for it")
    wait_for(lambda: readers(cluster), "one to ask for the body")
    assert len(readers(cluster)) == 1
    delegate = readers(cluster)[0]
    if way == "killed":
        delegate.kill()
    else:
        delegate.pause()
    gate.may_go.set()
    for client in clients:
        if client.member is not delegate:
            client.gets(body)
    if way == "killed":
        delegate.start()
    else:
        delegate.resume()
        clients[cluster.members.index(delegate)].gets(body)
    cluster.wait_together()
    cluster.wait_equal()
    for member in cluster.members:
        reply = member.http.get(object_id)
        assert reply.status == 200 and sha256(reply.body) == sha256(body)
        assert member.http.meta(object_id).json()["sha256"] == sha256(body)
    cluster.check()
