"""What events cannot bring any more: nodes that compacted, joiners and nodes that were away."""

from cluster import WHERE, Cluster, Told  # noqa: F401
from harness import INLINE, noise, ulid, wait_for


def compact(member):
    """All its events leave, as everybody who lives has them."""
    done = member.ctl("journal", "compact")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: member.stats()["journal"]["events"] < 20, "its events to leave")


def write(told, member, count, level=0, seed=0):
    ids = [told.put(member.http, noise(200 + number % 50, seed * 100000 + number), level=level,
                    name=f"object {number}") for number in range(count)]
    for object_id in ids[::5]:
        told.delete(member.http, object_id)
    for object_id in ids[1::5]:
        told.rename(member.http, object_id, "renamed")
    return ids


def check_rebuild(cluster, member):
    """What it merged is in its log: a database made anew says the same."""
    digest = member.digest()
    member.stop()
    done = member.ctl("journal", "rebuild")
    assert done.returncode == 0, done.stderr
    member.start()
    cluster.wait_together()
    assert member.digest() == digest
    done = member.ctl("journal", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_joiner_of_a_node_that_compacted(nodes):
    """A node that compacted while it was alone gives a joiner all it knows, tombstones included; level-2
    bodies follow; and from there a third node takes it over."""
    cluster = Cluster(nodes, 1).start()
    first, told = cluster[0], Told()
    write(told, first, 150)
    everywhere = write(told, first, 30, level=2, seed=1)
    told.put(first.http, noise(INLINE + 5, 77), level=2)
    unknown = ulid()
    told.delete(first.http, unknown)
    compact(first)
    assert first.stats()["journal"]["events"] == 0
    second = cluster.add().start()
    cluster.wait_together().wait_equal()
    told.check(second)
    taken, given = second.stats()["merge"], first.stats()["merge"]
    assert taken["rows_in"] > 180 and taken["adopted"] == 1 and given["served"] == 1
    assert (taken["rows_in"], taken["bytes_in"]) == (given["rows_out"], given["bytes_out"])
    wait_for(lambda: second.stats()["replication"]["pending"] == 0, "level-2 bodies to follow")
    first.http.stored(noise(10, 1), name="after the merge")
    cluster.wait_equal()
    compact(second)
    told.check(second)
    third = cluster.add(seeds=[second]).start()
    cluster.wait_together().wait_equal()
    told.check(third)
    assert third.http.put(b"again", id=unknown).status == 410
    wait_for(lambda: third.stats()["replication"]["pending"] == 0, "level-2 bodies to follow")
    first.kill()
    for object_id in everywhere[2::5]:
        assert third.http.get(object_id).status == 200
    first.start()
    cluster.wait_together().wait_equal()
    check_rebuild(cluster, third)
    told.check(third)
    cluster.wait_equal()


def test_away_for_longer_than_events(trio):
    """While one node is away the others change, delete and compact. It comes back: what was deleted is
    deleted there, too; what it alone had heard of is known to all."""
    told, away = Told(), trio[2]
    ids = write(told, trio[0], 60, level=2)
    trio.wait_equal()
    away.stop()
    for object_id in [i for i in ids if i in told.bodies][::2]:
        told.delete(trio[1].http, object_id)
    write(told, trio[1], 40, seed=2)
    trio.wait_equal()
    for member in trio.members[:2]:
        compact(member)
    alone = trio.members[2]
    alone.start()
    trio.wait_together().wait_equal()
    told.put(alone.http, noise(300, 9))
    for member in trio.members:
        told.check(member)
    wait_for(lambda: "merged with node" in alone.log(), "a line about the merge")
    trio.wait_equal()
    for member in trio.members:
        told.check(member)
    check_rebuild(trio, alone)
    told.check(alone)


def test_compaction_waits_for_who_lives(trio):
    """In company events leave once every live member has them: nobody has to merge."""
    told = Told()
    write(told, trio[0], 50)
    trio.wait_equal()
    for member in trio.members:
        compact(member)
    write(told, trio[1], 20, seed=3)
    trio.wait_equal()
    for member in trio.members:
        told.check(member)
        assert "taking its rows" not in member.log()


def test_killed_in_the_middle_of_a_merge(nodes):
    """Either side may die while one merges with the other, again and again: in the end all is there."""
    cluster = Cluster(nodes, 1).start()
    first, told = cluster[0], Told()
    write(told, first, 400)
    compact(first)
    joiner = cluster.add()
    for round_number in range(3):
        joiner.start()
        wait_for(lambda: "taking its rows" in joiner.log() or joiner.digest() == first.digest(), "a merge to begin")
        (joiner if round_number != 1 else first).kill()
        cluster.repair()
        joiner.stop()
    joiner.start()
    cluster.wait_together().wait_equal()
    told.check(joiner)
