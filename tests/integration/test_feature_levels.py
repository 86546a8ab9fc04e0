"""Nodes of differing feature levels work together: what one writes that others do not know yet is
kept, passed on and given to whoever comes later; the level is raised once all understand it, and then
no older node takes part."""

import json
import pathlib

import pytest

import harness
from cluster import WHERE, Cluster, Member  # noqa: F401
from harness import wait_for
from test_membership import control, joined, refused

FEATURE = str(pathlib.Path(harness.OBJSTORE).parent / "feature" / "objstore")
EXIT_CONFIG = 78


def sample(member, text):
    assert control(member, "POST", "/control/v1/test/sample", {"text": text})[0] == 200


def unknown_events(member):
    """Of a stopped node's journal, by kind; raw bytes, as who reads it may know no more of them."""
    done = member.ctl("journal", "dump")
    assert done.returncode == 0, done
    return [row["raw"] for row in map(json.loads, done.stdout.splitlines()) if row.get("kind") == "unknown"]


@pytest.fixture
def mixed(nodes):
    """An older node, and a newer one that has joined it."""
    cluster = Cluster(nodes, 1)
    cluster.add(binary=FEATURE)
    return cluster.start()


def test_what_is_not_known_yet_travels(mixed):
    """A newer node journals what the older one does not know. It is gone when a third node, an older
    one, joins: that gets it from the first, all have the same events and digests, also after a kill, and
    all of it lies in their journals."""
    old, new = mixed.members
    for number in range(3):
        sample(new, f"text {number}")
        new.http.stored(b"put between %d" % number)
    mixed.wait_equal()
    events = new.stats()["journal"]["events"]
    wait_for(lambda: old.stats()["journal"]["events"] == events, "the older node to have all events")
    new.kill()
    third = mixed.add().start()
    mixed.wait_equal([old, third])
    old.kill()
    old.start()
    mixed.wait_together([old, third])
    mixed.wait_equal([old, third])
    assert old.stats()["journal"]["events"] == third.stats()["journal"]["events"] >= events + 1
    new.start()
    mixed.wait_together()
    mixed.wait_equal()
    assert third.ctl("journal", "verify").returncode == 0
    for member in mixed.members:
        member.stop()
    kept = [unknown_events(member) for member in mixed.members]
    assert len(kept[0]) == 3 and sorted(kept[0]) == sorted(kept[1]) == sorted(kept[2])


def test_what_is_not_known_yet_comes_with_a_merge(mixed):
    """The older node has compacted all it understands of the newer one's events. Who joins then takes
    rows, and what no row tells of besides: it is in its journal as in theirs, and it hands it on."""
    old, new = mixed.members
    for number in range(3):
        sample(new, f"text {number}")
        new.http.stored(b"put between %d" % number)
    mixed.wait_equal()
    wait_for(lambda: old.stats()["journal"]["events"] == new.stats()["journal"]["events"], "all events")
    new.kill()

    def join_by(source):
        """Give a node that joins SOURCE alone nothing but what it has not compacted."""
        assert source.ctl("journal", "compact").returncode == 0
        wait_for(lambda: source.stats()["journal"]["events"] == 3, "all other events to leave")
        joiner = mixed.add(seeds=[source]).start()
        mixed.wait_equal([source, joiner])
        wait_for(lambda: joiner.stats()["merge"]["adopted"] == 1, "the merge to be over")
        source.stop()
        return joiner

    third = join_by(old)
    fourth = join_by(third)
    fourth.kill()
    fourth.start()
    assert fourth.ctl("journal", "verify").returncode == 0
    fourth.stop()
    kept = [unknown_events(member) for member in mixed.members]
    assert len(kept[0]) == 3 and all(sorted(some) == sorted(kept[0]) for some in kept)


def test_the_level_is_raised_by_all_or_not_at_all(mixed):
    """An upgrade is refused while a member does not understand the level, or does not answer, and names
    it. With all upgraded it is raised, everywhere; then an older build neither starts in a member's
    place nor joins, and both sides say why."""
    old, new = mixed.members
    assert {row["feature"] for row in new.members().values()} == {1, 2}
    assert "feature level is 1 already" in new.ctl("cluster", "upgrade").stderr
    refused(new.ctl("cluster", "upgrade", "--to", "2"), "not_supported", old.id, "up to 1")
    refused(old.ctl("cluster", "upgrade", "--to", "2"), "not_supported", old.id)
    refused(new.ctl("cluster", "upgrade", "--to", "3"), "not_supported")
    old_id = old.id
    old.stop()
    refused(new.ctl("cluster", "upgrade", "--to", "2"), "not_supported", old_id, "does not answer")
    old.binary = FEATURE
    old.start()
    mixed.wait_together()
    wait_for(lambda: {row["feature"] for row in new.members().values()} == {2}, "the new version to be known")
    done = new.ctl("cluster", "upgrade")
    assert done.returncode == 0 and "feature level is 2 now" in done.stderr, done
    mixed.wait_all(lambda m: m.stats()["cluster"]["feature"] == 2, "level 2")
    refused(old.ctl("cluster", "upgrade", "--to", "1"), "never_lowered")
    old.restart()
    assert old.stats()["cluster"]["feature"] == 2
    old.stop()
    old.binary = harness.OBJSTORE
    code, log = old.fails()
    assert code == EXIT_CONFIG and "the cluster's feature level is 2" in log, log
    stranger = mixed.add(seeds=[new]).start()
    wait_for(lambda: "of a cluster of feature level 2" in stranger.log(), "the older node to say it")
    wait_for(lambda: "it cannot join" in new.log(), "the newer one to say it")
    assert stranger.id not in joined(new) and len(joined(new)) == 2
