"""A thousand flipped bits in a node at rest: each is found, none is ever served."""

import random
import shutil

import pytest

from harness import FIGURES, INLINE, noise, sha256, wait_for
from test_corruption import read

FLIPS = {"log": 500, "large": 200, "journal.db": 300}


def flip(path, at, bit):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


class Rest:
    """A store that was stopped, and where in it bytes lie that mean something."""

    def __init__(self, nodes):
        self.node = nodes.start("--segment-bytes=1MiB")
        http = self.node.http
        self.objects = {}
        sizes = [0, 1, 100, 900, 5000, 65535, 65536, 65537, 200000, INLINE, INLINE + 1, 1 << 20]
        for i in range(72):
            size = sizes[i % len(sizes)]
            object_id = http.stored(noise(size, i), name=f"{i}.bin", user_meta={"number": str(i)}, level=i % 3)["id"]
            self.objects[object_id] = noise(size, i)
        # Small and many, so that SQLite has more than a few pages.
        for i in range(400):
            self.objects[http.stored(noise(40, 1000 + i), name=f"small {i}")["id"]] = noise(40, 1000 + i)
        self.gone = [http.stored(noise(10, 5000 + i))["id"] for i in range(5)]
        for object_id in self.gone:
            http.delete(object_id)
        self.stats = self.node.stats()
        self.node.stop()
        self.clean = self.node.base / "clean"
        shutil.copytree(self.node.state, self.clean / "state")
        shutil.copytree(self.node.files, self.clean / "files")

    def restore(self):
        for name in ("state", "files"):
            target = getattr(self.node, name)
            shutil.rmtree(target)
            shutil.copytree(self.clean / name, target)

    def paths(self, kind):
        if kind == "log":
            return self.node.segments()
        if kind == "large":
            return self.node.large_files()
        return [self.node.state / "journal.db"]

    def targets(self, kind, count, seed):
        """COUNT places (path, offset, bit), as likely in one used byte as in another."""
        dice = random.Random(seed)
        paths = self.paths(kind)
        used = [(p, len(p.read_bytes().rstrip(b"\0"))) for p in paths]
        found = []
        while len(found) < count:
            path, length = dice.choices(used, [length for _, length in used])[0]
            at = dice.randrange(length)
            found.append((path, at, dice.randrange(8)))
        return found

    def means_nothing(self, path, at):
        """Records begin at multiples of 8; the fill before them is zero, and nobody reads it."""
        return not any(path.read_bytes()[at:at // 8 * 8 + 8])


@pytest.fixture
def rest(nodes):
    return Rest(nodes)


@pytest.mark.parametrize("kind", FLIPS)
def test_verify_finds_each_flip(rest, kind):
    """One bit at a time: `objctl verify` names damage, or the bit stands in bytes of zero that nobody
    reads, and then every body is served as before."""
    found, idle = 0, []
    for path, at, bit in rest.targets(kind, FLIPS[kind], seed=1):
        flip(path, at, bit)
        done = rest.node.ctl("verify")
        flip(path, at, bit)
        if done.returncode:
            assert done.returncode in (1, 65, 74, 78), done
            found += 1
        else:
            assert rest.means_nothing(path, at), (path, at, bit, done)
            idle.append((path, at, bit))
    FIGURES.append(f"bit rot: {kind}: {found} of {FLIPS[kind]} flips found by verify, {len(idle)} in fill that nobody reads")
    assert rest.node.ctl("verify").returncode == 0, "each flip was undone"
    assert found > FLIPS[kind] * 0.9, (found, len(idle))
    for path, at, bit in idle:
        flip(path, at, bit)
    serve_all(rest, damaged_may_fail=False)


def serve_all(rest, damaged_may_fail):
    """Start the node and read everything: right bytes, or none. How many could not be read."""
    failed = 0
    rest.node.start()
    for object_id, body in rest.objects.items():
        status, got, whole = read(rest.node, object_id)
        if status == 200 and whole:
            assert sha256(got) == sha256(body), object_id
        else:
            assert damaged_may_fail and body.startswith(got if status == 200 else b""), (object_id, status)
            failed += 1
    for object_id in rest.gone:
        assert rest.node.http.get(object_id).status == 404
    return failed


@pytest.mark.parametrize("seed", range(4))
def test_a_rotten_disk_serves_no_wrong_byte(rest, seed):
    """Fifty flips at once in log and large files: the node starts, serves what is whole, nothing wrong,
    takes new objects, and its scrub finds damage by itself."""
    for kind, count in (("log", 35), ("large", 15)):
        for path, at, bit in rest.targets(kind, count, seed=100 + seed):
            flip(path, at, bit)
    rest.node.options = [*rest.node.options, "--scrub-interval=1s"]
    failed = serve_all(rest, damaged_may_fail=True)
    assert failed > 0
    assert rest.node.http.put(b"still here").status == 200
    wait_for(lambda: rest.node.stats()["scrub"]["errors"] >= 1, "the scrub to come by")


@pytest.mark.parametrize("seed", range(4))
def test_a_rotten_database_is_rebuilt(rest, seed):
    """Flips in SQLite's file: the node says so, or serves right bytes only; after a rebuild from the log
    all is as it was, with the same digest."""
    for path, at, bit in rest.targets("journal.db", 10, seed=200 + seed):
        flip(path, at, bit)
    assert rest.node.ctl("verify").returncode != 0
    rebuilt = rest.node.ctl("journal", "rebuild")
    assert rebuilt.returncode == 0, rebuilt
    assert rest.node.ctl("verify").returncode == 0
    assert serve_all(rest, damaged_may_fail=False) == 0
    now = rest.node.stats()
    assert now["journal"]["digest"] == rest.stats["journal"]["digest"]
    assert now["objects"] == rest.stats["objects"]
