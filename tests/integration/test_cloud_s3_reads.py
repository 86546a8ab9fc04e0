"""Goal: a cluster reads what only the bucket has once, whoever asks for it, as whole bodies, as parts of them, and
as the copies that its nodes make; counted by the access log of a real S3 server. Whoever goes away in the middle
neither wastes nor poisons what comes. And with the bucket alone left, everything comes back."""

import json
import socket
import threading

import crowd
import fault_proxy
import harness
import pytest
import s3
from cluster import Cluster
from harness import noise, sha256, wait_for

MIB = 1 << 20
PART = 8 * MIB
FETCH = {"X-Meta-Fetch": "1"}


def options(endpoint):
    return ["--cloud=s3", f"--bucket={s3.BUCKET}", f"--s3-endpoint={endpoint}", "--s3-path-style=yes"]


def keys():
    return {name: value for name, value in s3.credentials().items() if name.startswith("AWS_")}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = s3.Server(tmp_path_factory.mktemp("s3"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def author(shared, server):
    """A node of another cluster, which fills the bucket."""
    return shared.start(*options(server.endpoint), env=keys())


@pytest.fixture(scope="module")
def shared_three(shared, server):
    return Cluster(shared, 3, options=options(server.endpoint), env=keys()).start()


@pytest.fixture
def three(shared_three):
    yield shared_three
    shared_three.check()


def in_bucket(author, body, level=1, **headers):
    """An object that the bucket has, and no node but AUTHOR, which the cluster does not know: its id."""
    reply = author.http.put(body, {"X-Meta-ConsistencyLevel": str(level), "X-Meta-Timeout": "60", **headers})
    assert reply.status == 200, reply
    return reply.json()["id"]


def known(cluster, author, body, level=1):
    """One that all nodes of CLUSTER know of, and none has."""
    object_id = in_bucket(author, body, level)
    reply = cluster[0].http.request("HEAD", f"/api/v1/get/{object_id}", FETCH)
    assert reply.status == 200, reply
    cluster.wait_equal()
    return object_id


def gets(server, object_id):
    """How often the server was asked for bytes of it. The log is written behind the answers: once a request that
    came later stands in it, the others do."""
    mark = harness.ulid()
    with pytest.raises(Exception, match="404"):
        server.client().head_object(Bucket=s3.BUCKET, Key=mark)
    wait_for(lambda: mark in server.log.read_text(), "the access log")
    server.seen = 0
    return sum(name == "GetObject" and object_id in path for name, path, _ in server.requests())


def has_copy(member, object_id):
    return not member.http.meta(object_id).json()["is_symlink"]


# ---- Once ----


def test_a_thousand_clients_are_one_get(three, author, server):
    """1,000 clients on three nodes ask for one cold object of 16 MiB at once."""
    body = noise(16 * MIB)
    object_id = known(three, author, body)
    assert gets(server, object_id) == 0
    crowd.ask(three.members, 1000, object_id, body)
    assert gets(server, object_id) == 1
    assert all(member.http.meta(object_id).json()["is_fetched"] for member in three.members)


@pytest.mark.parametrize("size", [1000, 100_000, 16 * MIB])
@pytest.mark.parametrize("way", ["fetch", "import", "nobody"])
def test_copies_for_every_node_are_that_get_too(three, author, server, way, size):
    """An object of level 2 that nobody holds: clients on all nodes ask for it (for an unknown id, or for one that
    was imported), or nobody does; and each node makes a copy of its own."""
    body = noise(size)
    object_id = in_bucket(author, body, level=2)
    if way == "import":
        assert three[1].ctl("cloud", "import", f"--prefix={object_id}").returncode == 0
        three.wait_all(lambda m: m.http.meta(object_id).status == 200, "to know it")
    if way == "nobody":
        assert three[1].http.request("HEAD", f"/api/v1/get/{object_id}", FETCH).status == 200
    else:
        crowd.ask(three.members, 30, object_id, body, FETCH)
    three.wait_all(lambda m: m.http.meta(object_id).status == 200 and has_copy(m, object_id), "to have a copy")
    assert gets(server, object_id) == 1
    three.wait_all(lambda m: m.http.meta(object_id).json()["replicas"] == {"have": 3, "want": 3}, "to know of them")
    for member in three.members:
        reply = member.http.get(object_id)
        assert reply.status == 200 and reply.body == body and not reply.header("X-Meta-Symlink")
        assert not member.http.meta(object_id).json()["is_fetched"]
    assert gets(server, object_id) == 1


def test_a_part_is_one_get(three, author, server):
    """Clients on three nodes ask for bytes of the same part of a large body; then one on each reads on."""
    body = noise(5 * PART + 4321)
    object_id = known(three, author, body)
    crowd.ask(three.members, 60, object_id, body, bytes_range=(2 * PART + 70_000, 2 * PART + 400_000))
    assert gets(server, object_id) == 1
    crowd.ask(three.members, 6, object_id, body, bytes_range=(1, len(body) - 1))
    assert gets(server, object_id) == 6


@pytest.mark.parametrize("size", [5 * PART, 10 * PART])
def test_ranges_that_bring_all_of_it(nodes, server, author, size):
    """--range-cache=off: ranges on all nodes bring the whole body, which is one GET for all; of a very large one
    they are fetched besides."""
    cluster = Cluster(nodes, 2, options=[*options(server.endpoint), "--range-cache=off"], env=keys()).start()
    body = noise(size)
    object_id = known(cluster, author, body)
    crowd.ask(cluster.members, 10, object_id, body, bytes_range=(size - 1000, size - 1))
    cluster.wait_all(lambda m: m.stats()["disk_cache"]["copies"] == 1, "to have all of it")
    besides = 10 if size > 64 * MIB else 0
    assert 1 <= gets(server, object_id) <= 1 + besides
    before = gets(server, object_id)
    crowd.ask(cluster.members, 4, object_id, body)
    crowd.ask(cluster.members, 4, object_id, body, bytes_range=(1, size // 2))
    assert gets(server, object_id) == before


# ---- Whoever leaves ----


class Gate(fault_proxy.Proxy):
    """One more fault: `trickle`. After so many bytes of its body the answer comes slowly, until it may go on."""

    def __init__(self, upstream_port):
        self.may_go, self.left = threading.Event(), 0
        super().__init__(upstream_port)

    def pass_answer(self, client, reader, method, fault):
        if fault.kind != "trickle":
            super().pass_answer(client, reader, method, fault)
            return
        head = reader.head()
        client.sendall(head)
        size, done = fault_proxy.length_of(head), 0
        while done < size:
            if done >= fault.after:
                self.may_go.wait(0.02)
            data = reader.some(size - done)
            if not data:
                raise fault_proxy.Gone
            try:
                client.sendall(data)
            except OSError:
                self.left += 1
                raise
            done += len(data)


@pytest.fixture
def gate(server):
    made = Gate(server.port)
    yield made
    made.may_go.set()
    made.close()


@pytest.fixture
def held(nodes, author, gate):
    """A node, an object that it knows of, whose body is slow from a MiB on, and the body."""
    def held(size):
        cluster = Cluster(nodes, 1, options=options(gate.endpoint), env=keys()).start()
        body = noise(size)
        object_id = known(cluster, author, body)
        gate.fault("trickle", method="GET", path=object_id, after=MIB)
        return cluster[0], object_id, body

    return held


def begin(node, object_id):
    """A client that has read the beginning of the body."""
    sock = socket.create_connection(node.address, harness.PATIENCE_S)
    sock.sendall(f"GET /api/v1/get/{object_id} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    got = b""
    while len(got) < 1000:
        piece = sock.recv(1000)
        assert piece, got
        got += piece
    assert got.startswith(b"HTTP/1.1 200 "), got
    return sock


def idle(node):
    return node.stats()["http"]["in_flight"] == 1  # the one that asks


def test_who_leaves_early_disturbs_nobody(held, gate, server):
    """Of three clients of one body two go away in the middle, the one for whom it was begun first: the third gets
    all of it, by the same GET."""
    node, object_id, body = held(70 * MIB)
    first, second = begin(node, object_id), begin(node, object_id)
    answers = []
    stays = threading.Thread(target=lambda: answers.append(node.client().get(object_id)))
    stays.start()
    wait_for(lambda: node.stats()["http"]["in_flight"] == 4, "the third one to ask")
    first.close()
    second.close()
    wait_for(lambda: node.stats()["http"]["in_flight"] == 2, "two to be gone")
    gate.may_go.set()
    stays.join()
    assert answers[0].status == 200 and sha256(answers[0].body) == sha256(body)
    assert gate.left == 0 and gets(server, object_id) == 1


def test_who_leaves_alone_shortly_before_the_end_has_paid_for_it(held, gate, server):
    """What is missing is little: it is brought to its end, and the next client is served from here."""
    node, object_id, body = held(16 * MIB)
    begin(node, object_id).close()
    wait_for(lambda: idle(node), "the client to be gone")
    gate.may_go.set()
    wait_for(lambda: node.stats()["disk_cache"]["copies"] == 1, "the body to come whole")
    reply = node.http.get(object_id)
    assert reply.status == 200 and sha256(reply.body) == sha256(body)
    assert gate.left == 0 and gets(server, object_id) == 1


def test_who_leaves_alone_at_the_beginning_ends_it(held, gate, server):
    """What is missing is much: the rest is not fetched, nothing is kept, and the next client gets the right bytes."""
    node, object_id, body = held(70 * MIB)
    begin(node, object_id).close()
    wait_for(lambda: gate.left == 1, "the rest not to be wanted any more")
    wait_for(lambda: idle(node), "the client to be gone")
    assert node.stats()["disk_cache"]["copies"] == 0
    gate.may_go.set()
    reply = node.http.get(object_id)
    assert reply.status == 200 and sha256(reply.body) == sha256(body)
    assert gets(server, object_id) == 2


# ---- The bucket alone ----


def wiped(cluster):
    for member in cluster.members:
        member.stop()
        member.wipe()
    cluster.repair()


@pytest.mark.parametrize("way", ["fetch", "import"])
def test_a_wiped_cluster_comes_back_from_its_bucket(nodes, server, way):
    """Three nodes lose their disks: every live object of level 1 and 2 is readable again, on each of them, with its
    name, type, user meta, level, time and checksum; what was deleted is not, whether it was purged or not."""
    cluster = Cluster(nodes, 3, options=[*options(server.endpoint), f"--cloud-prefix={way}"], env=keys()).start()
    live, texts = {}, {}
    for number, (level, size) in enumerate([(1, 0), (1, 1000), (2, 2000), (1, MIB), (2, 3 * MIB), (1, 9 * MIB)]):
        body = noise(size, number)
        author = cluster[number % 3]
        object_id = in_bucket(author, body, level, **{
            "X-Meta-Name": f"caf\u00e9 {number}".encode().decode("latin-1"), "Content-Type": "application/x-test",
            "X-Meta-UserMeta": json.dumps({"number": str(number), "text": "\u2603" * 20})})
        live[object_id], texts[object_id] = body, author.http.meta(object_id).json()
        assert not texts[object_id]["is_fetched"]
    local = cluster[0].http.stored(noise(100), level=0)["id"]
    gone = [in_bucket(cluster[0], noise(500 + n), 1 + n % 2) for n in range(3)]
    cluster.wait_equal()
    for number, object_id in enumerate(gone):
        headers = {"X-Meta-Purge": "1"} if number == 0 else {}
        assert cluster[2].http.request("POST", f"/api/v1/delete/{object_id}", headers).status == 200
    wait_for(lambda: all(m.stats()["outbox"]["marks"] + m.stats()["outbox"]["purges"] == 0 for m in cluster.members),
             "the marks and the purge")
    wiped(cluster)
    for object_id in (*live, *gone, local):
        assert cluster[0].http.get(object_id).status == 404
    if way == "import":
        done = cluster[1].ctl("cloud", "import", timeout=harness.PATIENCE_S)
        assert done.returncode == 0, done.stderr
    for number, object_id in enumerate(live):
        reply = cluster[number % 3].http.get(object_id, FETCH)
        assert reply.status == 200 and sha256(reply.body) == texts[object_id]["sha256"], reply
        if way == "fetch" or (texts[object_id]["level"] == 1 and live[object_id]):
            assert reply.header("X-Meta-Fetched") == "true", reply
    cluster.wait_equal()
    same = ("name", "size", "sha256", "level", "timestamp", "user_meta")
    for object_id, body in live.items():
        two = texts[object_id]["level"] == 2
        if two:
            cluster.wait_all(lambda m, i=object_id: has_copy(m, i), "a copy")
        for member in cluster.members:
            meta = member.http.meta(object_id).json()
            assert {name: meta[name] for name in same} == {name: texts[object_id][name] for name in same}
            assert meta["is_fetched"] == (not two), meta
            reply = member.http.get(object_id)
            assert reply.status == 200 and reply.body == body
            assert reply.header("Content-Type") == "application/x-test"
    for member in cluster.members:
        for object_id in (*gone, local):
            assert member.http.get(object_id, FETCH).status == 404
