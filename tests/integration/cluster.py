"""Clusters under test: several nodes on loopback that find each other by their private addresses."""

import hashlib
import pathlib
import random
import signal
import socket
import threading

import harness
import network
import wire
from harness import sha256, wait_for

# From a crash to `failed` in the others' eyes: a probe each second, its answer overdue after half a
# second, three silent rounds more; and what a busy machine adds.
FAILED_S = 6


def _in_memory():
    """Where there is room for it, nodes live in memory: what a disk adds, other tests look at, and
    dozens of starts cost seconds each on a busy one. None: the usual place."""
    path = "/dev/shm"
    try:
        return path if harness.shutil.disk_usage(path).free > 4 << 30 else None
    except OSError:
        return None


WHERE = _in_memory()
# What is not the cluster's business in the document of an object: it differs by node.
LOCAL_FIELDS = ("is_symlink", "is_fetched", "replicas", "pending")


def stable_port():
    """A free port that no outgoing connection is given by the kernel, so that a node finds its own
    again after a restart."""
    while True:
        port = random.SystemRandom().randrange(harness.FIRST_PORT + 4500, harness.FIRST_PORT + 9000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class InsideClient(wire.Client):
    """Of a node in a network namespace."""

    def __init__(self, member):
        super().__init__(member.address)
        self.pid = member.namespace.pid

    def request(self, *args, **more):
        if not self.connection:
            with network.inside(self.pid):
                self.connection = wire.Connection(self.address)
        return super().request(*args, **more)


def _is_stopped(pid):
    """Whether no thread of the process runs."""
    try:
        stats = [task.joinpath("stat").read_text() for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:  # a thread that has just ended
        return False
    return all(stat.rpartition(")")[2].split()[0] in "Tt" for stat in stats)


class Member(harness.Node):
    """A node that takes part in a cluster."""

    def __init__(self, base, name, seeds=(), tag="test", secret=None, advertise=None, host="127.0.0.1",
                 **more):
        super().__init__(base, name, **more)
        self.host, self.private_port = host, stable_port()
        self.port = stable_port()
        self.seeds, self.tag, self.advertise = list(seeds), tag, advertise
        self.secret = secret  # the lines of the secret's file
        self.known_id = None

    @property
    def private(self):
        return f"{self.host}:{self.private_port}"

    def command(self, *extra):
        inside = self.namespace.enter() if self.namespace else []
        cluster = ["--private-addr", self.private, "-T", self.tag]
        for seed in self.seeds:
            cluster += ["-N", seed.private if isinstance(seed, Member) else seed]
        if self.advertise:
            cluster += ["--advertise-addr", self.advertise]
        if self.secret:
            path = self.base / self.name / "secret"
            path.write_text("".join(line + "\n" for line in self.secret))
            path.chmod(0o600)
            cluster += ["--cluster-secret-file", path]
        return [*inside, "setpriv", "--pdeathsig", "KILL", self.binary,
                "--public-addr", f"{self.public}:{self.port}",
                "--state-dir", self.state, "--files-dir", self.files, *cluster, *self.options, *extra]

    def wait_ready(self):
        """Launched before: wait until it serves."""
        code = wait_for(self._ready_or_code, f"{self.name} to be ready\n{self.log()}")
        assert code is True, f"{self.name} ended with {code} at its start:\n{self.log()}"
        self.http = self.http or self.client()
        return self

    def start(self, *extra):
        self.launch(*extra)
        return self.wait_ready()

    def wipe(self):
        """Stopped: as if its disks were replaced; it comes back as another node."""
        assert not self.process
        for path in (self.state, self.files):
            harness.shutil.rmtree(path)
        self.known_id = None

    def pause(self):
        """Cut it off from everybody: nobody hears it, and it hears nobody.
        One thread takes the signal and then stops the others: on a busy machine they answer until it has run."""
        self.signal(signal.SIGSTOP)
        wait_for(lambda: _is_stopped(self.process.pid), f"every thread of {self.name} to have stopped")

    def resume(self):
        self.signal(signal.SIGCONT)

    def client(self):
        """One for a thread of its own."""
        return InsideClient(self) if self.namespace else wire.Client(self.address)

    # ---- Looking at it ----

    @property
    def id(self):
        if not self.known_id:
            self.known_id = self.http.request("GET", "/api/v1/ping").body.decode()
        return self.known_id

    def members(self):
        """Node id → its row of the stats."""
        return {row["id"]: row for row in self.stats()["cluster"]["members"]}

    def sees(self, other):
        """The state of OTHER in this node's view; None: it is not known."""
        return self.members().get(other.id, {"state": None})["state"]

    def digest(self):
        """Of all facts that it has; None while some are not applied."""
        stats = self.stats()
        return None if stats["commit"]["pending"] else stats["journal"]["digest"]

    def is_gone(self, object_id):
        reply = self.http.get(object_id)
        return reply.status == 404 and reply.header("X-Meta-Deleted") == "true"


class Cluster:
    """Nodes that belong together, and what all of them must agree on."""

    def __init__(self, nodes, count=3, **more):
        self.nodes, self.more, self.members = nodes, more, []
        for _ in range(count):
            self.add()

    def __getitem__(self, index):
        return self.members[index]

    def add(self, seeds=None, **more):
        """One more, not started yet, that joins by the first one's address."""
        if seeds is None:
            seeds = self.members[:1]
        member = Member(self.nodes.base, f"node{len(self.nodes.all)}", seeds=seeds, **{**self.more, **more})
        self.nodes.all.append(member)
        self.members.append(member)
        return member

    def start(self):
        return self.repair()

    def repair(self):
        """Start those that do not run, and wait until all are together."""
        for member in self.members:
            if not member.process:
                member.launch()
        for member in self.members:
            member.wait_ready()
        return self.wait_together()

    def check(self):
        """None has died by itself."""
        for member in self.running():
            code = member.process.poll()
            if code is not None:
                member.process = None
                raise AssertionError(f"{member.name} died with {code}:\n{member.log()}")

    def running(self):
        return [m for m in self.members if m.process]

    def together(self, members=None):
        members = members or self.running()
        ids = {m.id for m in members}
        return all(ids <= {row["id"] for row in m.stats()["cluster"]["members"] if row["state"] == "alive"}
                   for m in members)

    def wait_together(self, members=None, timeout_s=harness.PATIENCE_S):
        wait_for(lambda: self.together(members), "all to see all alive", timeout_s)
        return self

    def digests(self, members=None):
        return [m.digest() for m in members or self.running()]

    def wait_equal(self, members=None, timeout_s=harness.PATIENCE_S):
        """Until all have the same facts."""
        def equal():
            digests = self.digests(members)
            return None not in digests and len(set(digests)) == 1

        try:
            wait_for(equal, "equal digests", timeout_s)
        except AssertionError as error:
            rows = [m.stats() for m in members or self.running()]
            raise AssertionError(f"{error}: {[(r['journal'], r['sync']) for r in rows]}") from None

    def wait_resolved(self, fought, timeout_s=harness.PATIENCE_S):
        """FOUGHT: id → (the body that lost, the one that won), as put on two sides of a partition. Until
        both are objects on every node, and all have the same facts."""
        wait_for(lambda: all(m.stats()["conflicts"]["count"] == 0 for m in self.running()),
                 "what lost to be put again", timeout_s)
        for object_id, (lost, _) in fought.items():
            self.wait_all(lambda m, i=conflict_id(object_id, lost): m.http.meta(i).status == 200, "what lost")
        self.wait_equal(timeout_s=timeout_s)
        for member in self.running():
            for object_id, (lost, won) in fought.items():
                for name, body in ((object_id, won), (conflict_id(object_id, lost), lost)):
                    reply = member.http.get(name)
                    assert reply.status == 200 and reply.body == body, (member.name, name, reply)

    def wait_all(self, condition, what, members=None, timeout_s=harness.PATIENCE_S):
        """Until CONDITION(member) holds for each."""
        for member in members or self.running():
            wait_for(lambda member=member: condition(member), f"{member.name}: {what}", timeout_s)


def conflict_id(object_id, body):
    """The id that BODY gets which lost against another under OBJECT_ID (docs/JOURNAL.md)."""
    number = 0
    for letter in object_id:
        number = number << 5 | harness.CROCKFORD.index(letter)
    raw = number.to_bytes(16, "big")
    mixed = hashlib.sha256(raw + hashlib.sha256(body).digest()).digest()
    return harness.ulid(number >> 80, int.from_bytes(mixed[:10], "big"))


def shared_fields(document):
    return {key: value for key, value in document.items() if key not in LOCAL_FIELDS}


class Told:
    """What clients were told of objects, to be compared with what each node says."""

    def __init__(self):
        self.bodies = {}  # id → sha256
        self.names = {}
        self.deleted = set()
        self.lock = threading.Lock()

    def put(self, http, body, **more):
        document = http.stored(body, **more)
        with self.lock:
            self.bodies[document["id"]] = sha256(body)
            self.names[document["id"]] = document["name"]
        return document["id"]

    def rename(self, http, object_id, name):
        reply = http.set_meta(object_id, {"X-Meta-Name": name})
        assert reply.status == 200, reply
        with self.lock:
            self.names[object_id] = name

    def delete(self, http, object_id):
        reply = http.delete(object_id)
        assert reply.status == 200, reply
        with self.lock:
            self.deleted.add(object_id)
            self.bodies.pop(object_id, None)
            self.names.pop(object_id, None)

    def check(self, member, bodies=False):
        """Nothing acknowledged is lost on MEMBER, nothing deleted came back; BODIES: read them, too."""
        for object_id, digest in self.bodies.items():
            reply = member.http.meta(object_id)
            assert reply.status == 200, (member.name, object_id, reply)
            document = reply.json()
            assert not document["is_deleted"] and document["sha256"] == digest, (member.name, document)
            assert document["name"] == self.names[object_id], (member.name, document)
            if bodies:
                reply = member.http.get(object_id)
                assert reply.status == 200 and sha256(reply.body) == digest, (member.name, reply)
        for object_id in self.deleted:
            assert member.is_gone(object_id), (member.name, object_id)
            assert member.http.meta(object_id).json()["is_deleted"]


class Background:
    """Runs WORK(http, random) over and over in some threads, each with a client of its own, until it
    is stopped or has done it LIMIT times; what a thread raises fails the test. MAY_BREAK: the node's end
    is the thread's, too."""

    def __init__(self, member, work, threads=2, may_break=False, limit=1000):
        self.member, self.work, self.may_break, self.limit = member, work, may_break, limit
        self.done, self.failures, self.stopping = 0, [], threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def _run(self, number):
        http, rnd = self.member.client(), random.Random(number)
        try:
            while not self.stopping.is_set() and self.done < self.limit:
                self.work(http, rnd)
                with self.lock:
                    self.done += 1
        except (OSError, wire.Broken) as error:
            if not self.may_break:
                self.failures.append(repr(error))
        except Exception as error:  # noqa: BLE001: a thread's failure must reach the test
            self.failures.append(repr(error))
        finally:
            http.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def wait(self, count):
        """Until it has been done COUNT times more, or LIMIT times."""
        goal = min(self.done + count, self.limit)
        wait_for(lambda: self.done >= goal or self.failures, f"{count} rounds of work")
        assert not self.failures, self.failures

    def __exit__(self, kind, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert kind or not self.failures, self.failures


