"""What the debug door has a cluster do: messages to all, announcing, syncing at once."""

import base64
import json
import threading

import pytest

from cluster import WHERE, Cluster  # noqa: F401
from harness import ulid, wait_for
from test_operate import DEBUGS
from wire import Client

ALL = [bytes([byte]) for byte in range(256)]


@pytest.fixture(scope="module")
def cluster(shared):
    return Cluster(shared, options=["--debug-addr", "127.0.0.1:0"])


@pytest.fixture
def trio(cluster):
    return cluster.repair()


def door(member):
    return Client(("127.0.0.1", int(DEBUGS.findall(member.log())[-1].rsplit(":", 1)[1])))


def ask(member, method, path, body=None, **headers):
    if isinstance(body, str):
        body = body.encode()
    client = door(member)
    try:
        return client.request(method, f"/private/v1/{path}", body=body, headers=headers)
    finally:
        client.close()


def say(member, body):
    reply = ask(member, "POST", "message", body)
    assert reply.status == 200, reply.body
    return reply.json()["id"]


def heard(member):
    return ask(member, "GET", "message").json()["messages"]


def test_a_message_reaches_every_live_node_once(trio):
    """From each node to all, its author included: in the log, in the list, in the figures; bytes that
    are no text come back as they were."""
    ids = [say(member, f"from {member.name}") for member in trio.members for _ in range(3)]
    binary = say(trio[1], b"".join(ALL))
    for member in trio.members:
        messages = wait_for(lambda member=member: len(heard(member)) >= 10 and heard(member), "all messages")
        assert sorted(m["id"] for m in messages) == sorted([*ids, binary])
        assert {m["text"] for m in messages if "text" in m} == {f"from {m.name}" for m in trio.members}
        odd = next(m for m in messages if m["id"] == binary)
        assert odd["from"] == trio[1].id and "text" not in odd
        assert odd["base64"] == base64.b64encode(b"".join(ALL)).decode()
        for note in ids:
            assert member.log().count(f"note {note} ") == 1
        wait_for(lambda member=member: member.stats()["notes"]["received"] >= 6, "the figures")
        notes = member.stats()["notes"]
        assert notes == {"said": 4 if member is trio[1] else 3, "received": 6 if member is trio[1] else 7, "refused": 0}


def test_a_paused_node_hears_in_time_and_a_dead_one_never(trio):
    """One that stands still for a moment gets what was said meanwhile; who comes later does not."""
    trio[2].pause()
    note = say(trio[1], "while you slept")
    wait_for(lambda: heard(trio[0])[-1]["id"] == note, "the other one to hear")
    trio[2].resume()
    wait_for(lambda: heard(trio[2])[-1]["id"] == note, "the one that was paused to hear")
    assert [m["id"] for m in heard(trio[2])].count(note) == 1
    trio[2].kill()
    later = say(trio[1], "too late")
    wait_for(lambda: heard(trio[0])[-1]["id"] == later, "the other one to hear")


def test_hostile_messages_are_refused(trio):
    """Too large, empty, too many, from another site's page, by a wrong method: nothing reaches anybody."""
    before = len(heard(trio[1]))
    assert ask(trio[0], "POST", "message", b"x" * 8192).status == 200
    assert ask(trio[0], "POST", "message", b"x" * 8193).status == 413
    assert ask(trio[0], "POST", "message", b"").status == 400
    assert ask(trio[0], "PUT", "message", b"x").status == 405
    assert ask(trio[0], "POST", "message", b"x", **{"Sec-Fetch-Site": "cross-site"}).status == 403
    statuses = [ask(trio[0], "POST", "message", b"flood").status for _ in range(60)]
    assert set(statuses) == {200, 429} and 20 <= statuses.count(200) <= 33
    wait_for(lambda: len(heard(trio[1])) == before + 1 + statuses.count(200), "what was taken to come")
    assert trio[1].stats()["notes"]["refused"] == 0
    for query in ("addr=", "addr=a%20b", "addr=a%00", "other=1", "addr=a&addr=b", "addr", "addr=" + "x" * 300):
        assert ask(trio[0], "POST", f"announce?{query}").status == 400, query
    for query in ("node=nonsense", "node=", "id=1", "node=" + "0" * 27):
        assert ask(trio[0], "POST", f"sync?{query}").status == 400, query
    assert ask(trio[0], "GET", "sync").status == 405 and ask(trio[0], "GET", "announce").status == 405
    trio.check()


def test_sync_says_what_happened(trio):
    """Equal; new facts; a node that does not answer; one that nobody knows."""
    trio[0].http.put(b"x")
    trio.wait_equal()
    answer = ask(trio[1], "POST", "sync").json()["nodes"]
    assert {n["id"]: n["result"] for n in answer} == {trio[0].id: "equal", trio[2].id: "equal"}
    one = ask(trio[1], "POST", f"sync?node={trio[2].id}").json()["nodes"]
    assert [(n["id"], n["result"]) for n in one] == [(trio[2].id, "equal")]
    assert ask(trio[1], "POST", f"sync?node={ulid()}").status == 404
    assert ask(trio[1], "POST", f"sync?node={trio[1].id}").status == 404
    trio[2].pause()
    answer = ask(trio[0], "POST", "sync").json()["nodes"]
    assert {n["id"]: n["result"] for n in answer} == {trio[1].id: "equal", trio[2].id: "silent"}
    trio[2].resume()


def test_announce_joins_without_a_restart(nodes):
    """A node that was started alone joins where it is told to; an address where nobody is, is not asked
    for ever; a node's own address is told apart."""
    cluster = Cluster(nodes, count=2, options=["--debug-addr", "127.0.0.1:0"]).start()
    loner = cluster.add(seeds=()).start()
    nobody = "127.0.0.1:1"
    reply = ask(loner, "POST", f"announce?addr={nobody}")
    assert reply.status == 504 and reply.json()["error"]["code"] == "no_answer"
    assert ask(loner, "POST", f"announce?addr={loner.private}").status == 409
    assert ask(loner, "POST", "announce").json() == {"probed": 0}
    reply = ask(loner, "POST", f"announce?addr={cluster[0].private}")
    assert reply.status == 200 and reply.json() == {"addr": cluster[0].private, "id": cluster[0].id}
    cluster.wait_together()
    cluster.wait_equal()
    assert ask(loner, "POST", "announce").json() == {"probed": 2}


def test_a_stop_answers_what_is_under_way(trio):
    """A node that is stopped in the middle of an order answers it and ends."""
    trio[2].pause()
    replies = []
    thread = threading.Thread(target=lambda: replies.append(ask(trio[0], "POST", "sync")))
    thread.start()
    wait_for(lambda: trio[0].stats()["http"]["in_flight"] >= 2, "the order to be under way")
    trio[0].stop()
    thread.join()
    trio[2].resume()
    assert replies[0].status in (200, 503) and json.loads(replies[0].body)
