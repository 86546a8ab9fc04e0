"""Nodes whose directories were copied, set back, or half lost: two processes never go on as one node, no
run is written twice, and what was acknowledged anywhere reaches everybody."""

import shutil

from cluster import WHERE, Cluster, Told  # noqa: F401
from harness import INLINE, noise, sha256, wait_for

STOPPED = "this one stops"
GOES_ON = "goes on; the other one has to stop"
LARGE = INLINE + 5


def copy_of(cluster, node, **more):
    """Another member on a copy of NODE's directories, not started yet."""
    copy = cluster.add(seeds=cluster.members[:2], **more)
    for name in ("state", "files"):
        shutil.copytree(getattr(node, name), getattr(copy, name))
    (copy.state / "control.sock").unlink(missing_ok=True)
    return copy


def rename_node(node):
    done = node.ctl("journal", "new-node-id")
    assert done.returncode == 0, done.stderr
    node.known_id = None
    return done.stdout


def puts(told, node, seed, level=2):
    return [told.put(node.http, noise(size, seed + size), name=f"of {seed}", level=level)
            for size in (0, 100, 70000, LARGE)]


def test_a_copy_is_told_to_stop(nodes):
    """Of a node and a copy of it, both started: the younger one ends with 78, and both say why; the others
    do not lose the older one. With an id of its own the copy joins, and brings what it had taken alone."""
    cluster = Cluster(nodes, 2).start()
    original, other = cluster.members
    told = Told()
    ids = puts(told, original, 1)
    cluster.wait_equal()
    cluster.wait_all(lambda m: m.stats()["replication"]["pending"] == 0, "copies")
    original.stop()
    copy = copy_of(cluster, original)

    # The copy runs alone for a while, and takes writes and deletes.
    copy.seeds = []
    other.pause()
    copy.start()
    ids += puts(told, copy, 2, level=0)
    told.delete(copy.http, ids.pop(0))
    copy.stop()
    other.resume()

    original.start()
    cluster.wait_together([original, other])
    ids += puts(told, original, 3)
    copy.seeds = [other]
    code, log = copy.fails()
    assert code == 78, log
    assert STOPPED in log and "new-node-id" in log and original.private in log, log
    wait_for(lambda: GOES_ON in original.log(), "a word from the older one")
    assert other.sees(original) == "alive"
    assert other.members()[original.id]["addr"] == original.private
    assert f"{original.id} at {original.private} is failed" not in other.log()

    before = original.id
    assert copy.ctl("cluster").returncode != 0
    rename_node(copy)
    copy.start()
    assert copy.id != before
    cluster.wait_together()
    cluster.wait_equal()
    cluster.wait_all(lambda m: m.stats()["replication"]["pending"] == 0, "copies")
    for member in cluster.members:
        told.check(member, bodies=True)
    for member in cluster.members:
        done = member.ctl("journal", "verify")
        assert done.returncode == 0, done.stderr


def test_copies_of_an_earlier_id_are_found_again(nodes):
    """What a node has fetched is its own also under a new id: a rebuild of its database finds it."""
    cluster = Cluster(nodes, 2).start()
    one, other = cluster.members
    told = Told()
    puts(told, one, 1)
    cluster.wait_equal()
    wait_for(lambda: other.stats()["replication"]["pending"] == 0, "copies")
    cluster.wait_equal()
    other.stop()
    one.stop()
    rename_node(other)
    done = other.ctl("journal", "rebuild")
    assert done.returncode == 0, done.stderr
    other.seeds = []
    other.start()
    told.check(other, bodies=True)


def test_a_copy_that_was_there_first_stays(nodes):
    """The copy has taken the original's place, at another address; then the original is started, too: it
    is the younger process, and gives way, and nobody is led back to its address."""
    cluster = Cluster(nodes, 2).start()
    original, other = cluster.members
    told = Told()
    puts(told, original, 1)
    cluster.wait_equal()
    original.stop()
    copy = copy_of(cluster, original)
    copy.start()
    cluster.wait_all(lambda m: m.members()[copy.id]["addr"] == copy.private, "the new address")
    puts(told, copy, 2)
    puts(told, other, 3)

    original.seeds = [other]
    code, log = original.fails()
    assert code == 78 and STOPPED in log, log
    assert other.members()[copy.id]["addr"] == copy.private
    rename_node(original)
    original.start()
    cluster.wait_together()
    cluster.wait_equal()
    cluster.wait_all(lambda m: m.stats()["replication"]["pending"] == 0, "copies")
    for member in cluster.members:
        told.check(member, bodies=True)


def test_a_restored_node_does_not_claim_what_it_lost(nodes):
    """A node is set back to a backup: what it had put since is known to it again; of level 2 it makes
    itself copies, of level 0 it says that the bytes are gone; verify tells of the fork."""
    cluster = Cluster(nodes, 2).start()
    restored, other = cluster.members
    told = Told()
    puts(told, restored, 1)
    backup = restored.base / "backup"
    assert restored.ctl("backup", backup).returncode == 0
    later = puts(told, restored, 2)
    sole = restored.http.stored(noise(100, 9), level=0)["id"]
    told.delete(restored.http, puts(told, restored, 3)[0])
    cluster.wait_equal()
    cluster.wait_all(lambda m: m.stats()["replication"]["pending"] == 0, "copies")
    restored.stop()
    for name in ("state", "files"):
        shutil.rmtree(getattr(restored, name))
        shutil.copytree(backup / name, getattr(restored, name))
    restored.start()
    puts(told, restored, 4)
    cluster.wait_together()
    cluster.wait_equal()
    cluster.wait_all(lambda m: m.stats()["replication"]["pending"] == 0, "copies")
    for member in cluster.members:
        told.check(member, bodies=True)
        reply = member.http.get(sole)
        assert (reply.status, reply.json()["error"]["code"]) == (503, "no_holder"), reply
        done = member.ctl("journal", "verify")
        assert done.returncode == 0 and "forks between runs: 1" in done.stderr, done
    # Not asked of somebody who would have to say no.
    failures = other.stats()["transfer"]["failures"]
    for object_id in later:
        assert sha256(other.http.get(object_id).body) == told.bodies[object_id]
    assert other.stats()["transfer"]["failures"] == failures


def test_lost_files_are_made_good(nodes):
    """The files directory is gone, the state is kept: with --accept-data-loss the node starts, says what it
    no longer holds, and copies what is of level 2 again."""
    cluster = Cluster(nodes, 2).start()
    victim, other = cluster.members
    told = Told()
    puts(told, victim, 1)
    puts(told, other, 2)
    sole = victim.http.stored(noise(100, 9), level=0)["id"]
    cluster.wait_equal()
    cluster.wait_all(lambda m: m.stats()["replication"]["pending"] == 0, "copies")
    victim.stop()
    shutil.rmtree(victim.files)
    code, log = victim.fails()
    assert code == 78 and "--accept-data-loss" in log, log
    victim.start("--accept-data-loss")
    cluster.wait_together()
    cluster.wait_equal()
    cluster.wait_all(lambda m: m.stats()["replication"]["pending"] == 0, "copies")
    for member in cluster.members:
        told.check(member, bodies=True)
        assert member.http.get(sole).status == 503
