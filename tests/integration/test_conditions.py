"""Preconditions of changes (RFC 9110 §13): what does not hold changes nothing, leaves nothing, and of
many clients that ask for the same exactly one is granted it."""

import email.utils
import json
import socket
import subprocess
import threading

import pytest

import wire
from harness import INLINE, noise, sha256, ulid, wait_for

STALE = '"' + 64 * "0" + '"'
LARGE = INLINE + 1


def tag(body):
    return f'"{sha256(body)}"'


def refused(reply):
    assert reply.status == 412 and reply.code() == "precondition_failed", reply


def together(count, run):
    """RUN(client's number) on COUNT threads at once: what they returned."""
    results, barrier = [None] * count, threading.Barrier(count)

    def one(i):
        barrier.wait()
        try:
            results[i] = run(i)
        except BaseException as error:  # noqa: BLE001: a thread's failure must reach the test
            results[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def clients(node, count):
    made = [wire.Client(node.address) for _ in range(count)]
    for client in made:
        assert client.request("GET", "/api/v1/ping").status == 200
    return made


# ---- One client ----


@pytest.mark.parametrize("size", [0, 7, LARGE])
def test_create_only(node, http, size):
    """If-None-Match: * puts what is not there yet, as S3's users know it, and nothing else: neither
    other bytes nor the same again; without an id there is nothing in the way."""
    body, object_id = noise(size, 1), ulid()
    assert http.put(body, {"If-None-Match": "*"}, id=object_id, method="PUT").status == 200
    with node.unchanged():
        refused(http.put(body, {"If-None-Match": "*"}, id=object_id))
        refused(http.put(noise(size + 1, 2), {"If-None-Match": "*"}, id=object_id, method="PUT"))
        refused(http.put(body, {"If-None-Match": tag(body)}, id=object_id, name="other"))
    assert http.get(object_id).body == body
    assert http.stored(body, {"If-None-Match": "*"})["id"] != object_id


def test_put_over_what_was_seen(node, http):
    """If-Match fails where nothing is, also for a fresh id; with the right tag the same bytes may
    come again, with another the put is refused before they are looked at."""
    body, object_id = noise(100, 3), ulid()
    with node.unchanged():
        for match in ("*", tag(body), STALE):
            refused(http.put(body, {"If-Match": match}, id=object_id))
            refused(http.put(body, {"If-Match": match}))
    assert http.get(object_id).status == 404
    http.stored(body, id=object_id, name="old")
    with node.unchanged():
        refused(http.put(body, {"If-Match": STALE}, id=object_id, name="new"))
        refused(http.put(body, {"If-Match": "W/" + tag(body)}, id=object_id, name="new"))
        reply = http.put(b"other", {"If-Match": tag(body)}, id=object_id)
        assert reply.status == 409 and reply.code() == "conflict"
    many = ", ".join([STALE] * 15 + [tag(body)])
    assert http.stored(body, {"If-Match": many}, id=object_id, name="new")["name"] == "new"


def test_delete_of_what_was_seen(node, http):
    """A delete with a stale tag is refused and the object stays; with the right one it goes; then a
    tag names nothing any more, and a put or a meta is told that first."""
    body = noise(1000, 4)
    object_id = http.stored(body)["id"]
    path = f"/api/v1/delete/{object_id}"
    with node.unchanged():
        for method in ("POST", "DELETE"):
            for headers in ({"If-Match": STALE}, {"If-Match": '"x"'}, {"If-None-Match": "*"},
                            {"If-None-Match": f"{STALE}, W/{tag(body)}"}):
                refused(http.request(method, path, headers))
        refused(http.delete(ulid(), {"If-Match": "*"}))
    assert http.get(object_id).body == body
    etag = http.get(object_id).header("ETag")
    assert http.delete(object_id, {"If-Match": etag}).status == 200
    with node.unchanged():
        refused(http.delete(object_id, {"If-Match": etag}))
        assert http.delete(object_id).status == 200
        for headers in ({"If-Match": etag}, {"If-None-Match": "*"}):
            reply = http.put(body, headers, id=object_id)
            assert reply.status == 410 and reply.code() == "deleted"
            reply = http.set_meta(object_id, {**headers, "X-Meta-Name": "x"})
            assert reply.status == 410 and reply.code() == "deleted"


def test_meta_of_what_was_seen(node, http):
    """The same for a change of the meta; an unknown id stays a 404, a lowered level a 409."""
    body = noise(10, 5)
    object_id = http.stored(body, name="old", level="1")["id"]
    with node.unchanged():
        for headers in ({"If-Match": STALE}, {"If-None-Match": "*"}, {"If-None-Match": tag(body)}):
            refused(http.set_meta(object_id, {**headers, "X-Meta-Name": "new"}))
        reply = http.set_meta(object_id, {"If-Match": STALE, "X-Meta-ConsistencyLevel": "0"})
        assert reply.status == 409 and reply.code() == "level_cannot_be_lowered"
        reply = http.set_meta(ulid(), {"If-Match": STALE, "X-Meta-Name": "new"})
        assert reply.status == 404 and reply.code() == "not_found"
    reply = http.set_meta(object_id, {"If-Match": tag(body), "X-Meta-Name": "new"})
    assert reply.status == 200 and reply.json()["name"] == "new"


def test_dates(node, http):
    """If-Unmodified-Since is weighed against the Last-Modified that GET answers, unless there is an
    If-Match; If-Modified-Since says nothing about a change, nor does a date that is none."""
    body = noise(10, 6)
    object_id = http.stored(body)["id"]
    seen = http.get(object_id).header("Last-Modified")
    moment = email.utils.parsedate_to_datetime(seen).timestamp()
    before = email.utils.formatdate(moment - 1, usegmt=True)
    with node.unchanged():
        refused(http.put(body, {"If-Unmodified-Since": before}, id=object_id))
        refused(http.set_meta(object_id, {"If-Unmodified-Since": before, "X-Meta-Name": "x"}))
        refused(http.delete(object_id, {"If-Unmodified-Since": before}))
    for headers in ({"If-Unmodified-Since": seen}, {"If-Unmodified-Since": "yesterday"},
                    {"If-Modified-Since": seen},
                    {"If-Unmodified-Since": before, "If-Match": tag(body)}):
        assert http.put(body, headers, id=object_id).status == 200
        name = json.dumps(headers)
        assert http.set_meta(object_id, {**headers, "X-Meta-Name": name}).json()["name"] == name
    assert http.put(body, {"If-Unmodified-Since": before}).status == 200
    assert http.delete(object_id, {"If-Unmodified-Since": seen}).status == 200


@pytest.mark.parametrize("headers", [
    [("If-None-Match", "**")], [("If-None-Match", "")], [("If-Match", "abc")],
    [("If-Match", '"abc')], [("If-Match", '*, "abc"')], [("If-Match", ", ".join(['"x"'] * 17))],
    [("If-Match", "*"), ("If-Match", "*")], [("If-None-Match", "*"), ("If-None-Match", '"x"')],
])
def test_what_cannot_be_read_is_refused(node, http, headers):
    """A condition that is not understood is never taken for one that holds."""
    object_id = http.stored(b"here")["id"]
    with node.unchanged():
        for reply in (http.put(b"there", headers), http.put(b"here", headers, id=object_id, name="x"),
                      http.delete(object_id, headers), http.set_meta(object_id, headers)):
            assert reply.status == 400 and reply.code() == "invalid_precondition", reply


# ---- Large bodies: told before they are sent ----


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("expect", [False, True])
def test_a_large_put_is_refused_before_its_body(node, http, coding, expect):
    """Not a byte of the body is sent, and the 412 is here; where the condition holds the client is
    told to go on."""
    body = noise(LARGE, 7)
    object_id = http.stored(body)["id"]
    headers = [("X-Meta-ID", object_id), ("If-None-Match", "*")]
    headers += [("Expect", "100-continue")] if expect else []
    length = None if coding == "chunked" else 1 << 26
    headers += [("Transfer-Encoding", "chunked")] if coding == "chunked" else []
    with node.unchanged(), wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", headers, length))
        reply = connection.read()
        refused(reply)
        assert reply.interim == []
    if expect:
        headers[1] = ("If-Match", tag(body))
        with wire.Connection(node.address) as connection:
            connection.send(wire.head("PUT", "/api/v1/put", headers, length and LARGE))
            assert connection.read(until_continue=True).status == 100
            connection.send(wire.chunked(body, 70000) if coding == "chunked" else body)
            assert connection.read().status == 200


def test_the_body_may_come_along(node, http):
    """A client that does not wait loses nothing: its body is read, or passed over, and the next
    request on the connection is answered."""
    body, object_id = noise(LARGE, 8), ulid()
    with wire.Connection(node.address) as connection:
        for match, status in (("*", 200), ("*", 412), (STALE, 200)):
            connection.send(wire.head("PUT", "/api/v1/put", {"X-Meta-ID": object_id, "If-None-Match": match},
                                      LARGE) + body)
            reply = connection.read()
            assert reply.status == status, reply
            if reply.header("Connection") == "close":
                break
        else:
            assert connection.request("GET", "/api/v1/ping").status == 200
    assert http.get(object_id).body == body


def test_a_client_that_leaves_while_it_is_judged(node, http):
    """Its connection is closed at once after the header: nothing stays behind."""
    object_id = http.stored(noise(LARGE, 9))["id"]
    with node.unchanged():
        for i in range(30):
            connection = wire.Connection(node.address)
            connection.send(wire.head("PUT", "/api/v1/put", {"X-Meta-ID": object_id, "If-Match": "*"}, LARGE))
            if i % 2:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        wait_for(lambda: node.stats()["http"]["in_flight"] <= 1, "the requests to end")


def test_curl(node, tmp_path):
    """curl, which waits for 100 Continue, sends nothing the second time."""
    (tmp_path / "body").write_bytes(noise(3 << 20, 10))
    object_id = ulid()
    command = ["curl", "-sS", "-o", tmp_path / "out", "-w", "%{http_code} %{size_upload}", "-T",
               tmp_path / "body", "-H", f"X-Meta-ID: {object_id}", "-H", "If-None-Match: *",
               "-H", "Expect: 100-continue", "--expect100-timeout", "60", f"{node.url}/api/v1/put"]
    said = [subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=100).stdout
            for _ in range(2)]
    assert said == [f"200 {3 << 20}", "412 0"]


# ---- Many clients ----


@pytest.mark.parametrize("size", [20, LARGE])
@pytest.mark.parametrize("same", [True, False])
def test_one_of_many_creates(node, size, same):
    """Eight clients put one id with If-None-Match: * at once, the same bytes or each its own: one is
    told 200, all others 412, and what is stored is the winner's."""
    many = clients(node, 8)
    for turn in range(12 if size < LARGE else 4):
        object_id = ulid()
        bodies = [noise(size, (turn, 0 if same else i)) for i in range(8)]
        replies = together(8, lambda i: many[i].put(bodies[i], {"If-None-Match": "*"}, id=object_id))
        statuses = sorted(r.status for r in replies)
        assert statuses == [200] + [412] * 7, replies
        winner = next(i for i in range(8) if replies[i].status == 200)
        assert node.http.get(object_id).body == bodies[winner]
    wait_for(lambda: not node.temporaries(), "the losers' files to go")


def test_judged_again_at_commit(node):
    """Two large uploads are both let begin; the one that ends second is refused, whatever it was told
    first, and its file goes."""
    bodies, object_id = [noise(LARGE, 11), noise(LARGE + 1, 12)], ulid()
    headers = {"X-Meta-ID": object_id, "If-None-Match": "*", "Expect": "100-continue"}
    connections = [wire.Connection(node.address) for _ in bodies]
    for connection, body in zip(connections, bodies):
        connection.send(wire.head("PUT", "/api/v1/put", headers, len(body)))
        assert connection.read(until_continue=True).status == 100
        connection.send(body[:-1])
    connections[1].send(bodies[1][-1:])
    assert connections[1].read().status == 200
    with node.unchanged():
        connections[0].send(bodies[0][-1:])
        refused(connections[0].read())
        for connection in connections:
            connection.close()
    assert node.http.get(object_id).body == bodies[1]


def test_delete_and_change_race(node):
    """Changes that ask for the object, and deletes of it, at once: one delete happens, and no change
    after it; in between each change was granted or refused, never half."""
    many = clients(node, 8)
    for _ in range(10):
        document = node.http.stored(b"race", name="first")
        object_id, match = document["id"], {"If-Match": tag(b"race")}

        def act(i):
            if i < 4:
                return many[i].delete(object_id, match).status
            return many[i].set_meta(object_id, {**match, "X-Meta-Name": f"n{i}"}).status

        statuses = together(8, act)
        assert sorted(statuses[:4]) == [200, 412, 412, 412], statuses
        assert set(statuses[4:]) <= {200, 410}, statuses
        assert node.http.meta(object_id).json()["is_deleted"]


def test_after_a_kill(nodes):
    """What won before a kill wins after it; what was refused is not there."""
    node = nodes.start()
    many, won = clients(node, 8), {}
    for turn in range(5):
        object_id = ulid()
        replies = together(8, lambda i: many[i].put(b"%d" % i, {"If-None-Match": "*"}, id=object_id))
        won[object_id] = b"%d" % next(i for i in range(8) if replies[i].status == 200)
    node.kill()
    node.start()
    for object_id, body in won.items():
        assert node.http.get(object_id).body == body
        refused(node.http.put(body, {"If-None-Match": "*"}, id=object_id))
        assert node.http.delete(object_id, {"If-Match": STALE}).status == 412
        assert node.http.delete(object_id, {"If-Match": tag(body)}).status == 200
