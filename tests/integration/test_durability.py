"""What was acknowledged survives kill -9 in the middle of a mixed load, and a destroyed database."""

import random
import sqlite3
import threading

import pytest

import wire
from harness import INLINE, noise, sha256, ulid, wait_for

THREADS = 6


class Load:
    """Clients that put, delete, rename and read, and remember what they were told. What was under
    way when the node died may have happened or not; everything else is certain."""

    def __init__(self, node, seed):
        self.node, self.random = node, random.Random(seed)
        self.known = {}  # id → [sha256, name] of acknowledged puts
        self.deleted = set()  # acknowledged deletes
        self.maybe_put = {}  # id → sha256 of a put without an answer
        self.maybe_deleted = set()
        self.maybe_named = {}  # id → names that may have won
        self.acks = 0
        self.wrong = []
        self.lock = threading.Lock()
        self.pool = noise(1 << 20, seed)

    def body(self, rnd):
        size = rnd.choice((0, 1, rnd.randrange(2000), rnd.randrange(2000), rnd.randrange(70000),
                           rnd.randrange(INLINE - 100, INLINE + 100), rnd.randrange(400 << 10)))
        at = rnd.randrange(len(self.pool) - size)
        return self.pool[at:at + size]

    def _put(self, http, rnd):
        object_id, body = ulid(), self.body(rnd)
        digest = sha256(body)
        with self.lock:
            self.maybe_put[object_id] = digest
        reply = http.put(body, id=object_id, name="n0", level=rnd.choice((0, 0, 0, 1)))
        assert reply.status in (200, 202), reply
        with self.lock:
            del self.maybe_put[object_id]
            self.known[object_id] = [digest, "n0"]

    def _take(self, rnd):
        """An object that no other thread is changing."""
        with self.lock:
            for _ in range(10):
                if not self.known:
                    return None
                object_id = rnd.choice(list(self.known))
                if object_id not in self.maybe_deleted and object_id not in self.maybe_named:
                    return object_id
        return None

    def _delete(self, http, rnd):
        object_id = self._take(rnd)
        if not object_id:
            return
        with self.lock:
            self.maybe_deleted.add(object_id)
        reply = http.delete(object_id)
        assert reply.status == 200, reply
        with self.lock:
            self.deleted.add(object_id)
            self.known.pop(object_id, None)
            self.maybe_deleted.discard(object_id)
            self.maybe_named.pop(object_id, None)

    def _rename(self, http, rnd):
        object_id = self._take(rnd)
        if not object_id:
            return
        name = f"n{rnd.randrange(10**6)}"
        with self.lock:
            if object_id in self.maybe_named:
                return
            self.maybe_named[object_id] = name
        reply = http.set_meta(object_id, {"X-Meta-Name": name})
        assert reply.status in (200, 202, 410), reply
        with self.lock:
            self.maybe_named.pop(object_id, None)
            if object_id in self.known and reply.status != 410:
                self.known[object_id][1] = name

    def _read(self, http, rnd):
        with self.lock:
            if not self.known:
                return
            object_id = rnd.choice(list(self.known))
            digest = self.known[object_id][0]
        reply = http.get(object_id)
        if reply.status == 200 and sha256(reply.body) != digest:
            self.wrong.append(object_id)

    def _client(self, seed, stop):
        rnd = random.Random(seed)
        http = wire.Client(self.node.address)
        verbs = [self._put] * 6 + [self._delete, self._rename, self._read, self._read]
        try:
            while not stop.is_set():
                rnd.choice(verbs)(http, rnd)
                with self.lock:
                    self.acks += 1
        except (OSError, wire.Broken):
            pass  # the node is gone, as was planned
        except Exception as error:  # noqa: BLE001: a thread's failure must reach the test
            self.wrong.append(repr(error))
        finally:
            http.close()

    def run_until_killed(self, acks):
        """Load the node until ACKS more answers have come, and kill it in the middle."""
        stop, goal = threading.Event(), self.acks + acks
        threads = [threading.Thread(target=self._client, args=(self.random.random(), stop)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: self.acks >= goal or self.wrong, f"{acks} answers")
            self.node.kill()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not self.wrong, self.wrong

    def check(self):
        """Compare everything with what the node says now; what was open is settled by it."""
        http = self.node.http
        for object_id, (digest, name) in list(self.known.items()):
            got = http.get(object_id)
            if object_id in self.maybe_deleted:
                self.maybe_deleted.discard(object_id)
                if got.status == 404 and got.header("X-Meta-Deleted"):
                    del self.known[object_id]
                    self.deleted.add(object_id)
                    self.maybe_named.pop(object_id, None)
                    continue
            assert got.status == 200, (object_id, got)
            assert sha256(got.body) == digest, object_id
            assert got.header("X-Meta-Name") in (name, self.maybe_named.get(object_id, name))
            self.known[object_id][1] = got.header("X-Meta-Name")
            self.maybe_named.pop(object_id, None)
        for object_id in self.deleted:
            got = http.get(object_id)
            assert got.status == 404 and got.header("X-Meta-Deleted") == "true", object_id
        for object_id, digest in list(self.maybe_put.items()):
            got = http.get(object_id)
            assert got.status in (200, 404), got
            if got.status == 200:
                assert sha256(got.body) == digest
                self.known[object_id] = [digest, "n0"]
            del self.maybe_put[object_id]
        self.maybe_deleted.clear()
        self.maybe_named.clear()
        stats = self.node.stats()
        assert stats["objects"]["count"] == len(self.known)
        assert stats["objects"]["deleted"] == len(self.deleted)
        assert stats["faults"]["bad_blocks"] == stats["faults"]["lost"] == 0
        assert not self.node.temporaries()


def rebuilt(node):
    """Stop, throw the database away, rebuild it from the log, start; what must be as before."""
    def summary():
        wait_for(lambda: node.stats()["commit"]["pending"] == 0, "everything to be applied")
        stats = node.stats()
        return stats["journal"]["digest"], stats["objects"], stats["outbox"], stats["journal"]["events"]

    before = summary()
    node.stop()
    for verb in (("journal", "verify"), ("verify",), ("journal", "rebuild"), ("journal", "verify"), ("verify",)):
        done = node.ctl(*verb)
        assert done.returncode == 0, (verb, done)
    node.start()
    assert summary() == before


@pytest.mark.parametrize("options,rounds,acks", [((), 3, 400), (("--segment-bytes=4MiB",), 4, 500)],
                         ids=["one segment", "many segments"])
def test_kill_under_load(nodes, options, rounds, acks):
    """Several times: a mixed load, kill -9, restart; every acknowledged object is there with its
    SHA-256, every acknowledged delete holds. Then the journal verifies, every body verifies, and a
    database rebuilt from the log has the same digest and serves the same."""
    node = nodes.start(*options)
    load = Load(node, seed=len(options) + 7)
    for _ in range(rounds):
        load.run_until_killed(acks)
        node.start()
        load.check()
    rebuilt(node)
    load.check()
    # And it goes on from there.
    load.run_until_killed(acks // 4)
    node.start()
    load.check()


def test_kill_right_after_an_answer(nodes):
    """An answer means durable: killed the moment it arrives, the object is there; by size."""
    node = nodes.start()
    for size in (0, 1, 5000, INLINE, INLINE + 1, 3 << 20):
        body, object_id = noise(size, 51), ulid()
        assert node.http.put(body, id=object_id).status == 200
        node.kill()
        node.start()
        assert node.http.get(object_id).body == body
        assert node.http.delete(object_id).status == 200
        node.kill()
        node.start()
        assert node.http.get(object_id).header("X-Meta-Deleted") == "true"


def test_kill_in_the_middle_of_an_upload(nodes):
    """An upload cut by kill -9 leaves nothing behind after the restart."""
    node = nodes.start()
    kept = node.http.stored(noise(1 << 20, 52))["id"]
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {}, 8 << 20) + noise(4 << 20, 53))
        wait_for(node.temporaries, "the upload's file")
        node.kill()
    node.start()
    assert not node.temporaries()
    wait_for(lambda: len(node.large_files()) == 1, "the other file alone to be left")
    assert node.http.get(kept).body == noise(1 << 20, 52)
    assert node.stats()["objects"]["count"] == 1


def test_kill_at_the_start(nodes):
    """Killed again and again while it starts and recovers, it loses nothing."""
    node = nodes.start()
    ids = [node.http.stored(noise(3000, i))["id"] for i in range(200)]
    node.kill()
    rnd = random.Random(5)
    for _ in range(12):
        node.launch()
        # At a moment of the start that differs each time: after some lines of its log.
        lines = rnd.randrange(4)
        wait_for(lambda: node.log().count("\n") >= lines or node.process.poll() is not None, "the log")
        assert node.process.poll() is None, node.log()
        node.kill()
    node.start()
    for number, object_id in enumerate(ids):
        assert node.http.get(object_id).body == noise(3000, number)
    assert node.stats()["objects"]["count"] == 200


def test_two_puts_of_one_id_at_once(nodes):
    """Of many different bodies put at once under one id exactly one wins; the others hear 409, and
    after kill -9 the winner is still the one that was told so."""
    node = nodes.start()
    for _ in range(5):
        object_id, answers = ulid(), []
        barrier = threading.Barrier(8)

        def client(number, object_id=object_id, answers=answers, barrier=barrier):
            http = wire.Client(node.address)
            http.request("GET", "/api/v1/ping")
            barrier.wait()
            answers.append((http.put(f"body {number}".encode(), id=object_id).status, number))
            http.close()

        threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [number for status, number in answers if status == 200]
        assert len(winners) == 1 and sorted(s for s, _ in answers) == [200] + [409] * 7
        node.kill()
        node.start()
        assert node.http.get(object_id).body == f"body {winners[0]}".encode()


# ---- The database is destroyed ----


def filled(nodes):
    node = nodes.start("--segment-bytes=2MiB")
    kept = {node.http.stored(noise(size, 61 + i), name=f"f{i}", user_meta={"i": str(i)}, level=i % 3)["id"]:
            noise(size, 61 + i) for i, size in enumerate((0, 100, 70000, INLINE, INLINE + 1, 1 << 20, 3 << 20) * 3)}
    gone = [node.http.stored(noise(500, i))["id"] for i in range(20)]
    for object_id in gone:
        node.http.delete(object_id)
    return node, kept, gone


DAMAGE = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(noise(path.stat().st_size, 71)),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:8192 + 100]),
    "a page overwritten": lambda path: path.write_bytes(
        path.read_bytes()[:4096] + noise(4096, 72) + path.read_bytes()[8192:]),
    "another database": lambda path: other_database(path),
}


def other_database(path):
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_database(nodes, damage):
    """A damaged or missing journal.db: the node does not start as if nothing were stored, says in one
    line what is wrong and what helps; a rebuild from the log brings back everything. (Of an empty file
    it knows that nothing was in it, and replays the log.)"""
    node, kept, gone = filled(nodes)
    digest, objects = node.stats()["journal"]["digest"], node.stats()["objects"]
    node.stop()
    for path in node.state.glob("journal.db-*"):
        path.unlink()
    DAMAGE[damage](node.state / "journal.db")
    if damage == "empty":
        # As after a crash in the very first start: it may rebuild by itself.
        node.start()
    else:
        code, log = node.fails()
        assert code in (74, 78), log
        errors = [line for line in log.splitlines() if " ERROR " in line]
        assert any("journal.db" in line for line in errors), log
        assert any("rebuild" in line for line in errors), log
        done = node.ctl("journal", "rebuild")
        assert done.returncode == 0, done
        node.start()
    assert (node.stats()["journal"]["digest"], node.stats()["objects"]) == (digest, objects)
    for object_id, body in kept.items():
        assert node.http.get(object_id).body == body
    for object_id in gone:
        assert node.http.get(object_id).header("X-Meta-Deleted") == "true"
    assert node.http.put(b"goes on").status == 200


def test_a_rebuild_after_kill(nodes):
    """Killed and its database lost at once: the log alone has everything that was acknowledged."""
    node, kept, _ = filled(nodes)
    digest = node.stats()["journal"]["digest"]
    node.kill()
    for path in node.state.glob("journal.db*"):
        path.unlink()
    assert node.ctl("journal", "rebuild").returncode == 0
    node.start()
    assert node.stats()["journal"]["digest"] == digest
    for object_id, body in kept.items():
        assert node.http.get(object_id).body == body


def test_a_torn_tail(nodes):
    """Bytes behind the end of the log, as a torn write leaves them, are cut and cost nothing."""
    node, kept, _ = filled(nodes)
    node.kill()
    last = node.segments()[-1]
    data = last.read_bytes()
    end = len(data.rstrip(b"\0"))
    end += -end % 512
    for seed, torn in enumerate((noise(1000, 81), data[4096:4096 + 700], b"\xff" * 512)):
        last = node.segments()[-1]
        with open(last, "r+b") as file:
            file.seek(end if seed == 0 else -(-len(last.read_bytes().rstrip(b"\0")) // 512) * 512)
            file.write(torn)
        node.start()
        for object_id, body in kept.items():
            assert node.http.get(object_id).body == body
        node.kill()


def test_space_is_freed(nodes):
    """What is deleted is freed: large files go, segments are cleaned, and the rest stays readable."""
    node = nodes.start("--segment-bytes=1MiB")
    kept = {node.http.stored(noise(20000, i))["id"]: noise(20000, i) for i in range(20)}
    gone = []
    for i in range(150):
        gone.append(node.http.stored(noise(50000, 1000 + i))["id"])
        if i % 30 == 0:
            kept[node.http.stored(noise(30000, 5000 + i))["id"]] = noise(30000, 5000 + i)
    gone += [node.http.stored(noise(1 << 20, 2000 + i))["id"] for i in range(5)]
    wait_for(lambda: len(node.large_files()) == 5, "the large files to get their names")
    for object_id in gone:
        assert node.http.delete(object_id).status == 200

    def used():
        return sum(p.stat().st_size for p in node.segments()) + sum(p.stat().st_size for p in node.large_files())

    full = used()
    # Freeing waits for checkpoints, which come when the node is idle.
    wait_for(lambda: not node.large_files() and used() < full // 2, "the space to be freed")
    for object_id, body in kept.items():
        assert node.http.get(object_id).body == body
    digest = node.stats()["journal"]["digest"]
    node.kill()
    node.start()
    assert node.stats()["journal"]["digest"] == digest
    for object_id, body in kept.items():
        assert node.http.get(object_id).body == body
    node.stop()
    assert node.ctl("verify").returncode == 0
    assert node.ctl("journal", "rebuild").returncode == 0
    node.start()
    assert node.stats()["journal"]["digest"] == digest
    for object_id, body in kept.items():
        assert node.http.get(object_id).body == body


def test_a_restart_frees_what_was_deleted(nodes):
    """Large bodies deleted just before a clean stop: the next run removes their files though no client
    ever writes again. (On a full disk nobody could.)"""
    node = nodes.start()
    for i in range(5):
        node.http.delete(node.http.stored(noise(1 << 20, i))["id"])
    node.restart()
    wait_for(lambda: not node.large_files(), "the files of deleted bodies to go")
    position = node.stats()["journal"]
    assert position["durable_position"] > 0
