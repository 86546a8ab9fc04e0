"""What an operator does with members: a node that is drained leaves nothing behind, a dead one is
forgotten or replaced, two are compared, and the feature level is raised."""

import json
import re
import subprocess

import pytest

from cluster import FAILED_S, WHERE, Cluster, stable_port  # noqa: F401
from harness import INLINE, noise, sha256, ulid, wait_for

EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, EXIT_SOME = 76, 69, 64, 1


def control(member, method, path, body=None):
    """The node's answer over its control socket: status, JSON."""
    done = subprocess.run(["curl", "-s", "-X", method, "--unix-socket", member.state / "control.sock",
                           "-w", "\n%{http_code}", "-d", json.dumps(body or {}), f"http://node{path}"],
                          check=True, capture_output=True, text=True)
    text, status = done.stdout.rsplit("\n", 1)
    return int(status), json.loads(text)


def drain_phase(member):
    return control(member, "GET", "/control/v1/node/drain")[1]["phase"]


def joined(member):
    return {row["id"] for row in member.members().values() if row["joined"]}


def refused(done, *words):
    assert done.returncode == EXIT_REFUSED and all(word in done.stderr for word in words), done


# ---- Drain ----


def test_drain_hands_over_what_one_node_alone_has(nodes):
    """Objects of levels 0 and 1 lie on the node that took them. It drains: clients' changes are 503
    there, reads go on; then it has left, each of the others knows, and with it stopped and its disks
    gone every body is still there, small and large, and what was deleted stays so."""
    trio = Cluster(nodes).start()
    leaver, stays = trio[0], trio[1]
    bodies = {leaver.http.stored(noise(size, size), level=level)["id"]: noise(size, size)
              for level, size in zip((0, 1, 0, 1, 0, 1), (0, 1, 1000, INLINE, INLINE + 1, 3 << 20), strict=True)}
    for number in range(300):
        body = noise(200, number)
        bodies[leaver.http.stored(body)["id"]] = body
    everywhere = leaver.http.stored(noise(500, 1), level=2)["id"]
    deleted = leaver.http.stored(b"deleted before")["id"]
    assert leaver.http.delete(deleted).status == 200
    there = stays.http.stored(b"of another node")["id"]
    trio.wait_equal()

    done = leaver.ctl("node", "drain")
    assert done.returncode == 0 and "this node has left the cluster" in done.stderr, done
    status = control(leaver, "GET", "/control/v1/node/drain")[1]
    assert status["phase"] == "left" and status["objects_left"] == 0
    assert status["objects_moved"] >= len(bodies) and status["bytes_moved"] >= sum(map(len, bodies.values()))
    reply = leaver.http.put(b"more")
    assert reply.status == 503 and reply.json()["error"]["code"] == "not_a_member", reply
    assert leaver.http.delete(everywhere).status == 503
    for object_id in [*list(bodies)[:5], there]:
        assert leaver.http.get(object_id).status == 200
    trio.wait_all(lambda m: joined(m) == {trio[1].id, trio[2].id}, "it to be no member any more")
    assert all(m.sees(leaver) == "left" for m in trio.members)
    wait_for(lambda: stays.stats()["cluster"]["health"] == "good", "good health of those that stay")
    assert leaver.id
    leaver.stop()
    for object_id, body in bodies.items():
        reply = stays.http.get(object_id)
        assert reply.status == 200 and sha256(reply.body) == sha256(body), (object_id, reply)
    assert stays.is_gone(deleted)
    # It stays out when it is started again, until it is told to join.
    leaver.start()
    wait_for(lambda: leaver.sees(stays) == "alive", "it to meet the others")
    assert drain_phase(leaver) == "left" and leaver.http.put(b"more").status == 503
    refused(leaver.ctl("node", "drain"), "not_a_member")
    assert leaver.ctl("node", "join").returncode == 0
    trio.wait_all(lambda m: len(joined(m)) == 3, "it to be a member again")
    assert leaver.http.put(b"more").status in (200, 202)
    refused(leaver.ctl("node", "join"), "member")
    trio.wait_equal()


def test_drain_survives_a_kill_and_can_be_cancelled(nodes):
    """Nobody answers that could take the copies: the drain waits and says so. Killed, it goes on at the
    next start; cancelled, the node is a member as before; asked again with the others back, it
    leaves."""
    duo = Cluster(nodes, 2).start()
    leaver, other = duo.members
    body = noise(INLINE + 1, 5)
    object_id = leaver.http.stored(body)["id"]
    duo.wait_equal()
    other.kill()
    done = leaver.ctl("node", "drain", "--no-wait")
    assert done.returncode == 0, done
    assert leaver.http.put(b"more").json()["error"]["code"] == "draining"
    wait_for(lambda: "no other member answers" in control(leaver, "GET", "/control/v1/node/drain")[1]["waiting"],
             "it to say that it waits", FAILED_S + 4)
    leaver.kill()
    leaver.start()
    assert drain_phase(leaver) in ("counting", "moving")
    assert leaver.http.put(b"more").status == 503
    assert leaver.http.get(object_id).status == 200
    done = leaver.ctl("node", "drain", "--cancel")
    assert done.returncode == 0 and drain_phase(leaver) == "none", done
    leaver.http.stored(b"taken again")
    refused(leaver.ctl("node", "drain", "--cancel"), "not_draining")
    leaver.restart()
    assert drain_phase(leaver) == "none"
    duo.repair()
    assert leaver.ctl("node", "drain").returncode == 0
    leaver.kill()
    assert other.http.get(object_id).body == body


def drain_beside_a_death(nodes, count):
    """Of three nodes one drains COUNT objects, and another one is killed meanwhile. The third one and
    the bodies; None where the drain was over before the kill."""
    trio = Cluster(nodes).start()
    leaver, dies, stays = trio.members
    bodies = {}
    for number in range(count):
        body = noise(200 if number % 50 else 300_000, number)
        bodies[leaver.http.stored(body)["id"]] = body
    trio.wait_equal()
    assert leaver.ctl("node", "drain", "--no-wait").returncode == 0
    wait_for(lambda: control(leaver, "GET", "/control/v1/node/drain")[1]["objects_moved"] > 20, "some to be moved")
    dies.kill()
    meanwhile = drain_phase(leaver) != "left"
    wait_for(lambda: drain_phase(leaver) == "left", "it to leave")
    leaver.kill()
    if not meanwhile:
        stays.kill()
    return (stays, bodies) if meanwhile else None


def test_a_taker_that_dies_is_not_relied_upon(nodes):
    """While one of three drains, one of the two that take its copies is killed for good. What only that
    one had taken is handed over once more: the third one has everything when the drain ends."""
    # More than are under way at once; and more yet where this test was not asked for long.
    found = drain_beside_a_death(nodes, 1500) or drain_beside_a_death(nodes, 5000)
    assert found, "the drain was over before the kill"
    stays, bodies = found
    for object_id, body in bodies.items():
        assert stays.http.get(object_id).body == body, object_id


def test_two_that_drain_at_once(nodes):
    """Two of three drain together; the third one has everything in the end, though each of the two
    could have taken the other's copies."""
    trio = Cluster(nodes).start()
    bodies = {}
    for number in range(60):
        body = noise(300, number)
        bodies[trio[number % 2].http.stored(body)["id"]] = body
    trio.wait_equal()
    for member in trio.members[:2]:
        assert member.ctl("node", "drain", "--no-wait").returncode == 0
    for member in trio.members[:2]:
        wait_for(lambda m=member: drain_phase(m) == "left", f"{member.name} to leave")
    for member in trio.members[:2]:
        member.kill()
    for object_id, body in bodies.items():
        assert trio[2].http.get(object_id).body == body


def test_a_lone_node_cannot_drain(nodes):
    node = Cluster(nodes, 1).start()[0]
    refused(node.ctl("node", "drain"), "alone")
    assert node.http.put(b"taken").status in (200, 202)


# ---- Forget ----


def test_forget(nodes):
    """A node that lives is not forgotten, nor one that is the only holder of something; with
    --accept-loss it is, on all nodes. When it comes back it is told, takes no writes, brings what only
    it had, and is a member again once it is told to join; both sides say so."""
    trio = Cluster(nodes).start()
    dead, one, two = trio.members
    alone = dead.http.stored(noise(400, 1))["id"]
    shared = dead.http.stored(noise(400, 2), level=2)["id"]
    trio.wait_equal()
    trio.wait_all(lambda m: m.stats()["replication"]["pending"] == 0, "copies of level 2")
    refused(one.ctl("node", "forget", dead.id), "alive")
    refused(one.ctl("node", "forget", one.id), "self")
    refused_one = one.ctl("node", "forget", ulid())
    assert refused_one.returncode != 0 and "no_such_node" in refused_one.stderr
    dead.kill()
    trio.wait_all(lambda m: m.sees(dead) == "failed", "it to have failed")
    refused(one.ctl("node", "forget", dead.id), "sole_holder", "1 objects", alone)
    assert dead.id in joined(one)
    done = one.ctl("node", "forget", dead.id, "--accept-loss")
    assert done.returncode == 0 and "1 objects with it" in done.stderr, done
    trio.wait_all(lambda m: joined(m) == {one.id, two.id}, "it to be forgotten")
    wait_for(lambda: two.stats()["cluster"]["health"] == "good", "good health")
    assert one.ctl("node", "forget", dead.id).returncode == 0
    assert two.http.get(shared).status == 200

    dead.start()
    wait_for(lambda: "this node was forgotten" in dead.log(), "it to be told")
    wait_for(lambda: any("which was forgotten, is back" in m.log() for m in (one, two)), "the others to say so")
    assert dead.http.put(b"more").json()["error"]["code"] == "not_a_member"
    wait_for(lambda: drain_phase(dead) == "forgotten", "its phase")
    assert joined(two) == {one.id, two.id}
    assert dead.ctl("node", "join").returncode == 0
    trio.wait_all(lambda m: len(joined(m)) == 3, "it to be a member again")
    wait_for(lambda: re.search(rf"{dead.id}, which was forgotten, belongs to the cluster again", two.log()), "a line")
    trio.wait_equal()
    assert two.http.get(alone).status == 200


# ---- Replace ----


def test_replace(nodes):
    """A new node takes the place of a dead one: that one is forgotten, and the new one fills up with
    the copies that level 2 asks for. One that lives is not replaced."""
    trio = Cluster(nodes).start()
    body = noise(INLINE + 1, 3)
    shared = trio[0].http.stored(body, level=2)["id"]
    trio.wait_all(lambda m: m.http.meta(shared).status == 200, "the object to be known")
    trio.wait_all(lambda m: m.stats()["replication"]["pending"] == 0, "copies of level 2")
    dead = trio.members.pop()
    dead_id = dead.id
    dead.kill()
    new = trio.add(options=("--replace", dead_id)).start()
    trio.wait_all(lambda m: joined(m) == {trio[0].id, trio[1].id, new.id}, "the dead one to be replaced")
    assert f"takes the place of node {dead_id}" in new.log()
    wait_for(lambda: new.stats()["replication"]["copied"] == 1, "its copy")
    wait_for(lambda: new.stats()["cluster"]["health"] == "good", "good health")
    wrong = trio.add(options=("--replace", trio[0].id)).start()
    wait_for(lambda: "that node answers, it is not replaced" in wrong.log(), "a refusal")
    assert trio[0].id in joined(wrong)


# ---- Diff ----


def test_diff(nodes):
    """Members with the same facts do not differ, whoever is asked about whom; one that does not answer is
    named; members that are none are refused. (What differences look like, tests/unit/diff_test.c shows.)"""
    duo = Cluster(nodes, 2).start()
    one, two = duo.members
    renamed = one.http.stored(b"to be renamed", name="before")["id"]
    gone = one.http.stored(b"to be deleted")["id"]
    for number in range(50):
        one.http.stored(noise(50, number))
    duo.wait_equal()
    done = one.ctl("cluster", "diff", one.id, two.id)
    assert done.returncode == 0 and done.stdout == "" and "0 differences in 52 objects" in done.stderr, done
    done = one.ctl("cluster", "diff", two.private, one.private)
    assert done.returncode == 0, done
    assert one.ctl("cluster", "diff", one.id).returncode == EXIT_USAGE
    assert "no_such_node" in one.ctl("cluster", "diff", one.id, ulid()).stderr
    # While the other one is stopped there is no answer, and it is said whose.
    two.pause()
    try:
        fresh = one.http.stored(b"known to one alone")["id"]
        assert one.http.set_meta(renamed, {"X-Meta-Name": "after"}).status == 200
        assert one.http.delete(gone).status == 200
        done = one.ctl("cluster", "diff", one.id, two.id)
        assert done.returncode == EXIT_UNREACHABLE and f"node {two.id} does not answer" in done.stderr, done
    finally:
        two.resume()
    # What is only on its way is no difference, also under writes.
    wait_for(lambda: one.ctl("cluster", "diff", two.id, one.id).returncode == 0, "them to agree")
    assert two.http.meta(fresh).status == 200 and two.is_gone(gone)


# ---- Figures ----


def test_figures(nodes):
    """Each member's version and feature level, how far this node is behind, what it still copies."""
    duo = Cluster(nodes, 2).start()
    duo.wait_equal()
    version = duo[0].stats()["node"]["version"]
    for member in duo.members:
        wait_for(lambda m=member: all(row["version"] == version for row in m.members().values()), "versions")
        stats = member.stats()
        assert stats["cluster"]["feature"] == 1 and {row["feature"] for row in member.members().values()} == {1}
        wait_for(lambda m=member: m.stats()["sync"]["lag_events"] == 0 and m.stats()["sync"]["lag_s"] == 0, "no lag")
        assert stats["replication"]["bytes_pending"] == 0 and stats["replication"]["rate"] == 0
        table = member.ctl("cluster").stdout
        assert "VERSION" in table and "LAG" in table and version in table
    done = duo[0].ctl("cluster", "upgrade")
    assert done.returncode == 0 and "feature level is 1 already" in done.stderr, done
    refused(duo[0].ctl("cluster", "upgrade", "--to", "2"), "not_supported", "not 2")
