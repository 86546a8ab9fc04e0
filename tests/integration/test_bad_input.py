"""Bad input: the right refusal, in the one shape that errors have, and nothing changed by it."""

import datetime
import json
import threading

import pytest

import wire
from harness import INLINE, noise, ulid, wait_for

OPTIONS = ("--max-body", "2MiB")


def ms(*date):
    return int(datetime.datetime(*date, tzinfo=datetime.timezone.utc).timestamp() * 1000)


FIRST_MS, END_MS = ms(2010, 1, 1), ms(2100, 1, 1)

# ---- Ids ----

BAD_IDS = ["x", "0", "01BRNMMS1DK3CBD4ZZM2TQ8C5", "01BRNMMS1DK3CBD4ZZM2TQ8C5BB", "01BRNMMS1DK3CBD4ZZM2TQ8C5U",
           "01BRNMMS1DK3CBD4ZZM2TQ8C5I", "01BRNMMS1DK3CBD4ZZM2TQ8C5L", "01BRNMMS1DK3CBD4ZZM2TQ8C5O",
           "81BRNMMS1DK3CBD4ZZM2TQ8C5B", "ZZZZZZZZZZZZZZZZZZZZZZZZZZ", "01BRNMMS1DK3CBD4ZZM2TQ8C5-",
           "01BRNMMS1DK3CBD4ZZM2TQ8C5%", "../../../../../../etc/pass", "01BRNMMS1DK3CBD4 ZM2TQ8C5B",
           "é1BRNMMS1DK3CBD4ZZM2TQ8C5B", "00000000-0000-0000-0000-000000000000"]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_malformed_ids(node, http, bad):
    """A malformed ULID is refused by put, before the body is read, and in every path."""
    with node.unchanged():
        reply = http.put(b"body", id=bad)
        assert reply.status == 400 and reply.code() == "invalid_id"
        if " " in bad or "é" in bad or "%" in bad:
            return  # not to be sent in a path
        for method, path in (("GET", "get"), ("GET", "meta"), ("POST", "meta"), ("POST", "delete")):
            reply = http.request(method, f"/api/v1/{path}/{bad}", body=b"" if method == "POST" else None)
            assert reply.status in (400, 404) and reply.code(), (path, reply)
            assert "/" in bad or reply.status == 400, (path, reply)


def test_empty_ids(node, http):
    """An empty id is no id."""
    with node.unchanged():
        assert http.put(b"body", id="").status == 400
        for path in ("get", "meta"):
            assert http.request("GET", f"/api/v1/{path}/").status in (400, 404)
        assert http.request("POST", "/api/v1/delete/", body=b"").status in (400, 404)


@pytest.mark.parametrize("time_ms,good", [
    (0, False), (1, False), (FIRST_MS - 1, False), (FIRST_MS, True), (ms(2017, 8, 29), True),
    (END_MS - 1, True), (END_MS, False), (ms(3000, 1, 1), False), (2**48 - 1, False)])
def test_the_time_in_an_id(node, http, time_ms, good):
    """The time in an id lies in 2010 to 2100, to the millisecond; else put and delete answer 400."""
    object_id = ulid(time_ms)
    if good:
        assert http.put(b"x", id=object_id).status == 200
        assert http.get(object_id).body == b"x"
        assert http.delete(object_id).status == 200
        return
    with node.unchanged():
        assert http.put(b"x", id=object_id).status == 400
        assert http.delete(object_id).status == 400
        assert http.get(object_id).status in (400, 404)
        assert http.meta(object_id).status in (400, 404)


@pytest.mark.parametrize("random_bits", [0, 1, 2**80 - 1])
def test_edges_of_an_ids_random_part(http, random_bits):
    """All zeros and all ones are ids as any other, each its own object."""
    object_id = ulid(ms(2020, 2, 2), random_bits)
    assert http.put(str(random_bits).encode(), id=object_id).status == 200
    assert http.get(object_id).body == str(random_bits).encode()
    assert http.get(object_id).header("X-Meta-Id") == object_id


# ---- Headers of put and meta ----

BAD_HEADERS = [
    ("X-Meta-ConsistencyLevel", value) for value in
    ("3", "-1", "", "00", "1.0", "two", "0x1", "99999999999999999999", "local,s3", "１")
] + [
    ("X-Meta-UserMeta", value) for value in
    ("", "x", "[]", "[1]", '"text"', "1", "null", "true", "{", '{"a":1}', '{"a":null}', '{"a":true}',
     '{"a":["b"]}', '{"a":{"b":"c"}}', '{"a":"b","a":"c"}', '{"a":"b"} x', "{a:'b'}", '{"a":"b",}',
     '{"a":"\\ud800"}', '{"a":"\\u0000"}', b'{"a":"\xff"}',
     json.dumps({"k": "v" * (8 << 10)}), json.dumps({f"k{i}": "v" for i in range(1200)}))
] + [
    ("X-Meta-Name", value) for value in
    (b"\xff\xfe", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf", "tab\tinside", "x" * 1025, "é" * 513, b"del\x7f",
     b"c1\xc2\x85")
] + [
    ("X-Meta-Name*", value) for value in
    ("plain", "UTF-8''%ff", "UTF-8''%0", "UTF-8''%zz", "UTF-8''%00", "UTF-8''%0a", "latin1''x", "UTF-8'x",
     "UTF-8''" + "%C3%A9" * 513)
]


@pytest.mark.parametrize("name,value", BAD_HEADERS, ids=lambda v: str(v)[:40])
def test_bad_meta_headers(node, http, name, value):
    """Each malformed or over-long header is refused with 400, by put and by a change of meta."""
    object_id = http.stored(b"before", name="before")["id"]
    with node.unchanged():
        reply = http.put(b"body", [(name, value)])
        assert reply.status == 400 and reply.code(), reply
        reply = http.put(noise(1 << 20), [(name, value)])
        assert reply.status == 400 and reply.code()
        reply = http.set_meta(object_id, [(name, value)])
        assert reply.status == 400 and reply.code()


@pytest.mark.parametrize("name,values", [
    ("X-Meta-ID", (ulid(), ulid())), ("X-Meta-ConsistencyLevel", ("0", "1")), ("X-Meta-Name", ("a", "b")),
    ("X-Meta-UserMeta", ("{}", "{}")), ("Content-MD5", ("1B2M2Y8AsgTpgAmY7PhCfg==",) * 2)])
def test_repeated_headers(node, http, name, values):
    """A header sent twice has no meaning that both sides agree on: 400."""
    with node.unchanged():
        reply = http.put(b"", [(name, value) for value in values])
        assert reply.status == 400 and reply.code()


@pytest.mark.parametrize("headers", [
    {"X-Meta-Ack": "two"}, {"X-Meta-Ack": ""}, {"X-Meta-Ack": "local, one"}, {"X-Meta-Timeout": "soon"},
    {"X-Meta-Timeout": "-1"}, {"X-Meta-Timeout": "1e3"}, {"X-Meta-Timeout": "1."}, {"X-Meta-Timeout": "9" * 30},
    {"X-Meta-Ack": "one"}, {"X-Meta-Ack": "quorum", "X-Meta-ConsistencyLevel": "1"},
    {"Content-Type": "no type"}, {"Content-Type": "a/" + "b" * 300}, {"Content-Type": "text/é"}])
def test_bad_headers_of_put(node, http, headers):
    """The same for what put alone understands."""
    with node.unchanged():
        reply = http.put(b"body", headers)
        assert reply.status == 400 and reply.code(), headers


def test_the_largest_that_is_allowed(http):
    """The limits are where the issue says: 1 KiB of name, 8 KiB of user meta are taken."""
    meta = {"k": "v" * ((8 << 10) - len('{"k":""}'))}
    text = json.dumps(meta, separators=(",", ":"))
    assert len(text) == 8 << 10
    document = http.stored(b"x", name="n" * 1024, user_meta=text)
    assert document["name"] == "n" * 1024 and document["user_meta"] == meta
    got = http.get(document["id"])
    assert got.header("X-Meta-Name") == "n" * 1024 and json.loads(got.header("X-Meta-UserMeta")) == meta


# ---- Bodies that are not what they claim ----


@pytest.mark.parametrize("size", [5, INLINE, INLINE + 1, 1 << 20])
def test_early_close(node, http, size):
    """A client that goes away in the middle of its body leaves no object and no file."""
    object_id = ulid()
    with node.unchanged():
        for half in (False, True):
            with wire.Connection(node.address) as connection:
                connection.send(wire.head("PUT", "/api/v1/put", {"X-Meta-ID": object_id}, size))
                connection.send(noise(size)[:-1])
                if half:
                    connection.half_close()
                    reply = connection.read()
                    assert reply.status == 400 and reply.code()
        wait_for(lambda: http.stats()["http"]["in_flight"] == 1, "the uploads to end")
    assert http.get(object_id).status == 404


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_a_chunked_body_that_ends_early(node, http, size):
    """The same for a chunked body without its last chunk."""
    with node.unchanged():
        for keep in (-5, -8, len(b"%x" % size)):
            with wire.Connection(node.address) as connection:
                connection.send(wire.head("PUT", "/api/v1/put", {"Transfer-Encoding": "chunked"}))
                connection.send(wire.chunked(noise(size), size)[:keep])
                connection.half_close()
                assert connection.read().status == 400
                assert connection.at_end()
        wait_for(lambda: http.stats()["http"]["in_flight"] == 1, "the uploads to end")


def test_a_body_longer_than_its_length_is_the_next_request(node, http):
    """What follows Content-Length bytes is not part of the body."""
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {}, 4) + b"1234junk\r\n\r\n")
        reply = connection.read()
        assert reply.status == 200 and http.get(reply.json()["id"]).body == b"1234"
        assert connection.read().status == 400
        assert connection.at_end()


def test_put_without_a_length_is_an_empty_body(node, http):
    """No Content-Length and no coding: a body of 0 bytes (RFC 9112 §6.3)."""
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put"))
        reply = connection.read()
        assert reply.status == 200 and reply.json()["size"] == 0


def test_oversize_bodies(node, http):
    """Over --max-body: 413, at once where the length is known, in the middle where it is chunked."""
    limit = 2 << 20
    assert http.put(noise(limit)).status == 200
    with node.unchanged():
        with wire.Connection(node.address) as connection:
            connection.send(wire.head("PUT", "/api/v1/put", {}, limit + 1))
            reply = connection.read()  # before a byte of the body
            assert reply.status == 413 and reply.code()
        with wire.Connection(node.address) as connection:
            connection.send(wire.head("PUT", "/api/v1/put", {"Expect": "100-continue"}, limit + 1))
            assert connection.read(until_continue=True).status == 413
        with wire.Connection(node.address) as connection:
            connection.send(wire.head("PUT", "/api/v1/put", {}, 2**62))
            assert connection.read().status == 413
        with wire.Connection(node.address) as connection:
            connection.send(wire.head("PUT", "/api/v1/put", {"Transfer-Encoding": "chunked"}))
            connection.send(wire.chunked(noise(limit + 1), 100000)[:-5])
            reply = connection.read()
            assert reply.status == 413 and reply.code()


def test_uploads_that_are_refused_leave_nothing(node, http):
    """Many refused uploads of large bodies, at once: no file, no memory kept, no fact."""
    def client(number):
        for attempt in range(5):
            with wire.Connection(node.address) as connection:
                connection.send(wire.head("PUT", "/api/v1/put", {"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
                                          INLINE * 3))
                try:
                    connection.send(noise(INLINE * 3, number)[:INLINE * (1 + attempt % 3)])
                    if attempt % 3 == 2:
                        assert connection.read().status == 400
                except OSError:
                    pass

    with node.unchanged():
        threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: http.stats()["http"]["in_flight"] == 1, "the uploads to end")


# ---- Limits of the protocol ----


def test_a_header_too_large(node):
    """Over 32 KiB of header, or over 100 lines: 431 and the end of the connection."""
    for headers in ([("X-Big", "x" * 40000)], [(f"X-{i}", "x" * 1000) for i in range(40)],
                    [(f"X-{i}", "x") for i in range(150)]):
        with wire.Connection(node.address) as connection:
            connection.send(wire.head("GET", "/api/v1/ping", headers))
            reply = connection.read()
            assert reply.status == 431 and reply.code()
            assert connection.at_end()


def test_a_header_just_fits(node):
    """A large header below the limits is taken."""
    with wire.Connection(node.address) as connection:
        reply = connection.request("GET", "/api/v1/ping", [(f"X-{i}", "x" * 300) for i in range(90)])
        assert reply.status == 200


@pytest.mark.parametrize("length", [4097, 5000, 30000, 70000])
def test_a_uri_too_long(node, length):
    """Over 4 KiB of target: 414 and the end of the connection."""
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("GET", "/" + "a" * length))
        reply = connection.read()
        assert reply.status == 414 and reply.code()
        assert connection.at_end()


@pytest.mark.parametrize("method,statuses", [
    ("BREW", {405, 501}), ("PATCH", {405, 501}), ("TRACE", {405, 501}), ("CONNECT", {400, 405, 501}),
    ("get", {405, 501}), ("PROPFIND", {405, 501}), ("G" * 200, {405, 501})])
def test_unknown_methods(node, method, statuses):
    """A method we do not have: 405 or 501."""
    with wire.Connection(node.address) as connection:
        connection.send(wire.head(method, "/api/v1/ping"))
        reply = connection.read()
        assert reply.status in statuses and reply.code()


def test_slow_headers_do_not_block_others(node):
    """Clients that never finish their header cost the others nothing."""
    slow = [wire.Connection(node.address) for _ in range(50)]
    try:
        for connection in slow:
            connection.send(b"GET /api/v1/pi")
        with wire.Connection(node.address) as connection:
            for _ in range(20):
                assert connection.request("GET", "/api/v1/ping").status == 200
    finally:
        for connection in slow:
            connection.close()


def test_a_reader_that_stops_does_not_block_others(node, http):
    """Nor do clients that ask for much and read nothing."""
    object_id = http.stored(noise(2 << 20))["id"]
    lazy = [wire.Connection(node.address) for _ in range(20)]
    try:
        for connection in lazy:
            connection.send(wire.head("GET", f"/api/v1/get/{object_id}") * 4)
        for _ in range(20):
            assert http.get(object_id).body == noise(2 << 20)
    finally:
        for connection in lazy:
            connection.close()


def test_random_bytes(node, http):
    """Whatever is sent, the node answers with an error or closes, and lives."""
    with node.unchanged():
        for seed in range(60):
            data = noise(1 + seed * 7, seed)
            for prefix in (b"", b"GET ", b"GET / HTTP/1.1\r\n", b"PUT /api/v1/put HTTP/1.1\r\nHost: x\r\n"):
                with wire.Connection(node.address) as connection:
                    connection.send(prefix + data + b"\r\n\r\n")
                    try:
                        connection.half_close()
                    except OSError:
                        continue
                    answer = connection.read_raw()
                    assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer
                    assert not answer.startswith(b"HTTP/1.1 2"), answer
