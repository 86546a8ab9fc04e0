"""The public API as clients use it: every path, every X-Meta header, in and out."""

import email.utils
import json
import re
import time
import urllib.parse

import pytest
import requests

import wire
from harness import noise, sha256, ulid, wait_for

FIELDS = {"id", "name", "size", "sha256", "level", "consistency", "timestamp", "time", "user_meta",
          "is_symlink", "is_deleted", "is_fetched", "replicas", "pending"}
ULID = re.compile(r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")


# ---- Putting and getting ----


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_put_with_an_id_and_get(http, method):
    """What was put under an id is read back, byte by byte, with the same id."""
    object_id, body = ulid(), noise(3000)
    reply = http.put(body, method=method, id=object_id, name="a.bin")
    assert reply.status == 200, reply
    assert reply.json()["id"] == object_id
    got = http.get(object_id)
    assert got.status == 200 and got.body == body
    assert got.header("X-Meta-Id") == object_id
    assert got.header("Content-Length") == "3000"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_put_without_an_id_draws_one(http, method):
    """A put without an id answers a fresh, valid one, under which the body is found."""
    before = int(time.time() * 1000)
    document = http.put(b"hello", method=method).json()
    assert ULID.match(document["id"])
    drawn_ms = int.from_bytes(ulid_bytes(document["id"])[:6], "big")
    assert before - 1000 <= drawn_ms <= time.time() * 1000 + 1000
    assert http.get(document["id"]).body == b"hello"


def ulid_bytes(text):
    number = 0
    for char in text:
        number = number << 5 | "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(char)
    return number.to_bytes(17, "big")[1:]


def test_lower_case_ids_are_accepted_and_answered_in_upper_case(http):
    """Ids are case-insensitive on every path; answers always spell them in upper case."""
    object_id = ulid()
    assert http.put(b"x", id=object_id.lower()).json()["id"] == object_id
    assert http.get(object_id.lower()).header("X-Meta-Id") == object_id
    assert http.meta(object_id.lower()).json()["id"] == object_id
    assert http.delete(object_id.lower()).json()["id"] == object_id
    assert http.get(object_id).header("X-Meta-Deleted") == "true"


def test_the_document(http):
    """PUT and meta answer the same document, and each of its fields is right."""
    object_id, body, before = ulid(), noise(70000), time.time()
    put = http.put(body, id=object_id, name="report.txt", user_meta={"k": "v", "a": "b"})
    document = put.json()
    meta = http.meta(object_id)
    assert meta.status == 200 and meta.json() == document
    assert set(document) == FIELDS
    assert document["name"] == "report.txt" and document["size"] == 70000
    assert document["sha256"] == sha256(body)
    assert document["level"] == document["consistency"] == 0
    assert document["user_meta"] == {"k": "v", "a": "b"}
    assert not (document["is_symlink"] or document["is_deleted"] or document["is_fetched"])
    assert document["replicas"] == {"have": 1, "want": 1} and document["pending"] == []
    seconds = document["timestamp"] / 1e9
    assert before - 1 <= seconds <= time.time() + 1
    stamp = time.strptime(document["time"], "%Y-%m-%dT%H:%M:%S." + document["time"][-4:])
    assert document["time"].endswith("Z")
    import calendar
    assert calendar.timegm(stamp) == int(seconds)
    for reply in (put, meta):
        assert reply.header("Content-Type") == "application/json"
        assert reply.header("X-Meta-Replicas") == "1/1"
    assert put.header("ETag") == f'"{sha256(body)}"'


def test_head_equals_get_without_the_body(http):
    """HEAD answers GET's header, its Content-Length too, and no body."""
    document = http.stored(noise(5000), name="x.json", user_meta={"a": "b"})
    got, head = http.get(document["id"]), http.get(document["id"], method="HEAD")
    drop = {"Date"}
    assert head.status == 200 and head.body == b""
    assert [h for h in head.headers if h[0] not in drop] == [h for h in got.headers if h[0] not in drop]
    assert head.header("Content-Length") == "5000"
    meta = http.request("HEAD", f"/api/v1/meta/{document['id']}")
    assert meta.status == 200 and int(meta.header("Content-Length")) > 100


def test_headers_of_a_get(http):
    """A GET carries the ancestor's headers, the tag, the date, and those that keep browsers safe."""
    document = http.stored(b"It works!", name="test.txt", level=0)
    got = http.get(document["id"])
    assert got.header("Accept-Ranges") == "bytes"
    assert got.header("Content-Type") == "text/plain; charset=utf-8"
    assert got.header("X-Meta-Name") == "test.txt"
    assert got.header("X-Meta-ConsistencyLevel") == "0"
    assert got.header("ETag") == f'"{sha256(b"It works!")}"'
    assert got.header("X-Content-Type-Options") == "nosniff"
    assert got.header("Content-Security-Policy") == "sandbox"
    modified = email.utils.parsedate_to_datetime(got.header("Last-Modified")).timestamp()
    assert modified == document["timestamp"] // 10**9
    assert abs(email.utils.parsedate_to_datetime(got.header("Date")).timestamp() - time.time()) < 5
    for absent in ("X-Meta-Symlink", "X-Meta-Fetched", "X-Meta-Deleted", "X-Meta-UserMeta"):
        assert got.header(absent) is None


def test_no_name_no_header(http):
    """An object without name or user meta has no header for them and empty fields."""
    document = http.stored(b"plain")
    assert document["name"] == "" and document["user_meta"] == {}
    got = http.get(document["id"])
    assert got.header("X-Meta-Name") is None and got.header("X-Meta-UserMeta") is None
    assert got.header("Content-Type") == "application/octet-stream"


@pytest.mark.parametrize("name", ["schön.txt", "日本語.txt", "a b  c.txt", "…", "Å", "🦊.png", "x" * 1024,
                                  "é" * 512, "100%.txt", "quote\".txt", "back\\slash", "a'b", "../../etc"])
def test_names_round_trip(http, name):
    """Any name of UTF-8 up to 1024 bytes comes back as it was sent: in the document, raw, and where
    it is not plain ASCII encoded as well."""
    sent_raw = http.stored(b"raw " + name.encode(), name=name)
    encoded = "UTF-8''" + urllib.parse.quote(name, safe="")
    sent_encoded = http.stored(b"encoded " + name.encode(), {"X-Meta-Name*": encoded})
    for document in (sent_raw, sent_encoded):
        assert document["name"] == name
        got = http.get(document["id"])
        assert got.header("X-Meta-Name") == name
        if not name.isascii():
            charset, _, value = got.header("X-Meta-Name*").split("'", 2)
            assert charset == "UTF-8" and urllib.parse.unquote(value) == name


def test_encoded_name_keeps_blanks_and_wins(http):
    """X-Meta-Name* can carry blanks at the ends, and wins over X-Meta-Name."""
    document = http.stored(b"x", {"X-Meta-Name*": "utf-8'en'%20a%20", "X-Meta-Name": "other"})
    assert document["name"] == " a "
    star = http.get(document["id"]).header("X-Meta-Name*")
    assert urllib.parse.unquote(star.split("'")[2]) == " a "


@pytest.mark.parametrize("meta", [
    {}, {"a": "b"}, {"b": "1", "a": "2", "": "empty key", "empty": ""},
    {"schlüssel": "größe", "日": "本", "fox": "🦊"}, {"quote": '"', "back": "\\", "nl": "a\nb\tc"},
    {f"k{i}": "v" * 20 for i in range(200)}])
def test_user_meta_round_trips(http, meta):
    """A JSON map of strings comes back equal, in the document and in the header."""
    as_ascii = http.stored(b"1", user_meta=json.dumps(meta))
    as_utf8 = http.stored(b"2", user_meta=json.dumps(meta, ensure_ascii=False))
    for document in (as_ascii, as_utf8):
        assert document["user_meta"] == meta
        header = http.get(document["id"]).header("X-Meta-UserMeta")
        assert (json.loads(header) if header else {}) == meta
        assert (header or "").isascii()


@pytest.mark.parametrize("name,sent,served", [
    ("a.txt", None, "text/plain; charset=utf-8"),
    ("a.TXT", None, "text/plain; charset=utf-8"),
    ("a.html", None, "text/html; charset=utf-8"),
    ("a.json", None, "application/json"),
    ("a.tar.gz", None, "application/gzip"),
    ("a.png", "text/plain", "image/png"),  # the name's extension comes first
    ("a.unknownext", "image/x-mine", "image/x-mine"),
    ("noextension", "application/pdf", "application/pdf"),
    (None, "text/x-mine; charset=latin1", "text/x-mine; charset=latin1"),
    (None, "application/x-www-form-urlencoded", "application/octet-stream"),  # curl -d's default
    (".png", None, None),
    (None, None, "application/octet-stream"),
])
def test_media_type(http, name, sent, served):
    """The type is the name extension's, else what was sent, else unknown."""
    headers = {"Content-Type": sent} if sent else {}
    meta = {"name": name} if name else {}
    document = http.stored(f"{name}{sent}".encode(), headers, **meta)
    if served:
        assert http.get(document["id"]).header("Content-Type") == served


@pytest.mark.parametrize("sent,level,status", [
    ("0", 0, 200), ("1", 1, 202), ("2", 2, 202), ("local", 0, 200), ("s3", 1, 202), ("full", 2, 202),
    ("LOCAL", 0, 200), ("Full", 2, 202)])
def test_levels(http, sent, level, status):
    """Levels go by number or name. Without a cloud, 1 and 2 answer 202, say what they owe, and wait
    in the outbox; the body is durable and readable here at once."""
    owed = http.stats()["outbox"]["count"]
    reply = http.put(f"level {sent}".encode(), level=sent)
    assert reply.status == status
    document = reply.json()
    assert document["level"] == document["consistency"] == level
    got = http.get(document["id"])
    assert got.status == 200 and got.header("X-Meta-ConsistencyLevel") == str(level)
    if level:
        assert "cloud" in document["pending"]
        assert document["replicas"] == {"have": 1, "want": 2}
        assert reply.header("X-Meta-Replicas") == "1/2"
    assert http.stats()["outbox"]["count"] == owed + (level > 0)


def test_deleting_takes_the_upload_out_of_the_outbox(http):
    """What is deleted is not owed to the cloud any more."""
    before = http.stats()["outbox"]["count"]
    document = http.stored(b"owed", level=1)
    assert http.stats()["outbox"]["count"] == before + 1
    http.delete(document["id"])
    assert http.stats()["outbox"]["count"] == before


def test_ack(http):
    """X-Meta-Ack chooses what an answer waits for: local is fulfilled here, cloud cannot be."""
    for ack, status in (("local", 200), ("one", 200), ("quorum", 200), ("all", 200), ("cloud", 202)):
        reply = http.put(f"ack {ack}".encode(), {"X-Meta-Ack": ack, "X-Meta-Timeout": "0.01"}, level=2)
        assert reply.status == status, (ack, reply)
    for ack in ("one", "quorum", "all"):
        reply = http.put(b"ack at level 1", {"X-Meta-Ack": ack}, level=1)
        assert reply.status == 400 and reply.code() == "ack_needs_level_2"


# ---- Idempotence, conflict, deletion ----


def test_the_same_bytes_again_are_idempotent(http):
    """The same id and bytes: 200, the same document, and no new fact."""
    object_id, body = ulid(), noise(4000, 7)
    first = http.stored(body, id=object_id, name="n.txt", user_meta={"a": "b"})
    events = http.stats()["journal"]["events"]
    again = http.put(body, id=object_id, name="n.txt", user_meta={"a": "b"})
    assert again.status == 200 and again.json() == first
    without = http.put(body, id=object_id)
    assert without.status == 200 and without.json() == first
    assert http.stats()["journal"]["events"] == events


def test_the_same_bytes_with_another_name_change_the_name(http):
    """A repeated put with another name or user meta is a change of those; a higher level raises."""
    object_id, body = ulid(), b"the same"
    first = http.stored(body, id=object_id, name="one.txt", user_meta={"a": "1"})
    document = http.stored(body, id=object_id, name="two.txt", user_meta={"a": "2"})
    assert document["name"] == "two.txt" and document["user_meta"] == {"a": "2"}
    assert document["sha256"] == first["sha256"]
    raised = http.put(body, id=object_id, level=1)
    assert raised.status == 202 and raised.json()["level"] == 1
    lower = http.put(body, id=object_id, level=0)
    assert lower.json()["level"] == 1
    assert http.meta(object_id).json()["level"] == 1


def test_other_bytes_under_the_same_id_are_refused(node, http):
    """An id names its bytes for ever: 409, and the first bytes stay."""
    object_id = ulid()
    http.stored(b"first", id=object_id)
    with node.unchanged():
        for body in (b"second", b"", noise(300000)):
            reply = http.put(body, id=object_id)
            assert reply.status == 409 and reply.code() == "conflict"
    assert http.get(object_id).body == b"first"


def test_deleting(http):
    """Deleted: GET 404 with X-Meta-Deleted, meta still 200, put 410, delete again 200; for ever."""
    document = http.stored(b"to be deleted", name="x.txt")
    object_id = document["id"]
    count = http.stats()["objects"]
    reply = http.delete(object_id)
    assert reply.status == 200 and reply.json()["is_deleted"] is True
    assert reply.header("X-Meta-Id") == object_id
    for headers in ({}, {"X-Meta-Fetch": "1"}):
        got = http.get(object_id, headers)
        assert got.status == 404 and got.header("X-Meta-Deleted") == "true"
        assert http.get(object_id, headers, method="HEAD").status == 404
    meta = http.meta(object_id)
    assert meta.status == 200 and meta.json()["is_deleted"] is True and meta.json()["size"] == 0
    events = http.stats()["journal"]["events"]
    assert http.delete(object_id).status == 200
    assert http.put(b"to be deleted", id=object_id).status == 410
    reply = http.put(b"other", id=object_id)
    assert reply.status == 410 and reply.code() == "deleted"
    reply = http.set_meta(object_id, {"X-Meta-Name": "y"})
    assert reply.status == 410
    stats = http.stats()
    assert stats["journal"]["events"] == events
    assert stats["objects"]["count"] == count["count"] - 1
    assert stats["objects"]["deleted"] == count["deleted"] + 1
    assert stats["objects"]["bytes"] == count["bytes"] - 13


def test_deleting_an_unknown_id_holds(http):
    """A delete that comes before the put wins, too."""
    object_id = ulid()
    assert http.delete(object_id).status == 200
    assert http.put(b"late", id=object_id).status == 410
    got = http.get(object_id)
    assert got.status == 404 and got.header("X-Meta-Deleted") == "true"


def test_delete_by_the_delete_method(http):
    """DELETE does what POST does on the same path."""
    document = http.stored(b"x")
    assert http.request("DELETE", f"/api/v1/delete/{document['id']}").status == 200
    assert http.get(document["id"]).status == 404


def test_unknown_ids(http):
    """Unknown: 404 without X-Meta-Deleted, on get, head, meta and change; with X-Meta-Fetch as well,
    as there is no cloud."""
    object_id = ulid()
    for reply in (http.get(object_id), http.meta(object_id), http.get(object_id, {"X-Meta-Fetch": "1"}),
                  http.set_meta(object_id, {"X-Meta-Name": "x"})):
        assert reply.status == 404 and reply.header("X-Meta-Deleted") is None
        assert reply.code() == "not_found"
    assert http.get(object_id, method="HEAD").status == 404


# ---- Changing what is known ----


def test_changing_name_and_user_meta(http):
    """POST meta changes name and user meta without bytes, and says so in the document it answers."""
    document = http.stored(b"body", name="a.txt", user_meta={"k": "v"})
    object_id = document["id"]
    reply = http.set_meta(object_id, {"X-Meta-Name": "b.html"})
    assert reply.status == 200
    assert reply.json() == {**document, "name": "b.html"} == http.meta(object_id).json()
    assert http.get(object_id).header("Content-Type") == "text/html; charset=utf-8"
    reply = http.set_meta(object_id, {"X-Meta-UserMeta": '{"other":"x"}'})
    assert reply.json()["user_meta"] == {"other": "x"} and reply.json()["name"] == "b.html"
    assert json.loads(http.get(object_id).header("X-Meta-UserMeta")) == {"other": "x"}
    reply = http.set_meta(object_id, {"X-Meta-UserMeta": "{}", "X-Meta-Name": ""})
    assert reply.json()["user_meta"] == {} and reply.json()["name"] == ""
    assert http.get(object_id).body == b"body"


def test_a_change_is_seen_at_once(http):
    """A get right after a change shows the change, also where the object was hot in memory."""
    object_id = http.stored(b"hot", name="v0")["id"]
    for version in range(1, 30):
        for _ in range(3):
            assert http.get(object_id).header("X-Meta-Name") == f"v{version - 1}"
        assert http.set_meta(object_id, {"X-Meta-Name": f"v{version}"}).status == 200
        assert http.get(object_id).header("X-Meta-Name") == f"v{version}"
    assert http.get(object_id).status == 200
    http.delete(object_id)
    assert http.get(object_id).status == 404


def test_raising_and_lowering_the_level(node, http):
    """A level is raised by meta, and never lowered: 409, nothing changed."""
    object_id = http.stored(b"x")["id"]
    raised = http.set_meta(object_id, {"X-Meta-ConsistencyLevel": "1"})
    assert raised.status == 202 and raised.json()["level"] == 1 and "cloud" in raised.json()["pending"]
    raised = http.set_meta(object_id, {"X-Meta-ConsistencyLevel": "full"})
    assert raised.status == 202 and raised.json()["level"] == 2
    with node.unchanged():
        for lower in ("0", "1", "local"):
            reply = http.set_meta(object_id, {"X-Meta-ConsistencyLevel": lower, "X-Meta-Name": "no"})
            assert reply.status == 409, reply
            assert reply.code()
    document = http.meta(object_id).json()
    assert document["level"] == 2 and document["name"] == ""


def test_a_change_of_nothing_is_no_fact(http):
    """Setting what is set already, or nothing at all, adds no event."""
    document = http.stored(b"x", name="same", user_meta={"a": "b"})
    events = http.stats()["journal"]["events"]
    for headers in ({}, {"X-Meta-Name": "same"}, {"X-Meta-UserMeta": '{ "a" : "b" }'},
                    {"X-Meta-ConsistencyLevel": "0"}):
        assert http.set_meta(document["id"], headers).json() == document
    assert http.stats()["journal"]["events"] == events


# ---- Uploads ----


@pytest.mark.parametrize("size,chunk", [(0, 1), (1, 1), (1000, 7), (70000, 4096), (300000, 65536),
                                        (1 << 20, 300000)])
def test_chunked_uploads(node, size, chunk):
    """A body of unknown length is stored whole, its size right."""
    body, object_id = noise(size, 3), ulid()
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {"X-Meta-ID": object_id,
                                                         "Transfer-Encoding": "Chunked"}))
        connection.send(wire.chunked(body, chunk))
        reply = connection.read()
        assert reply.status == 200 and reply.json()["size"] == size
        assert reply.json()["sha256"] == sha256(body)
        assert connection.request("GET", f"/api/v1/get/{object_id}").body == body


def test_chunks_with_extensions_and_trailers(node, http):
    """Chunk extensions and trailers are read over."""
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("POST", "/api/v1/put", {"Transfer-Encoding": "chunked"}) +
                        b'5;name=value\r\nhello\r\n6;x="y"\r\n world\r\n000\r\nX-Trailer: yes\r\n\r\n')
        reply = connection.read()
        assert reply.status == 200 and reply.json()["size"] == 11
        assert http.get(reply.json()["id"]).body == b"hello world"
        assert connection.request("GET", "/api/v1/ping").status == 200


def test_expect_100_continue(node):
    """The node asks for the body before it comes, and only where it wants it."""
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {"Expect": "100-continue"}, 5))
        assert connection.read(until_continue=True).status == 100
        connection.send(b"hello")
        reply = connection.read()
        assert reply.status == 200 and reply.interim == [] and reply.json()["size"] == 5
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {"Expect": "100-continue",
                                                         "X-Meta-ConsistencyLevel": "9"}, 5))
        reply = connection.read(until_continue=True)
        assert reply.status == 400 and reply.code() == "invalid_level"
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {"Expect": "the spanish inquisition"}, 5))
        assert connection.read(until_continue=True).status == 417


def test_expect_with_a_client_that_does_not_wait(node, http):
    """A body that comes without waiting for 100 is taken all the same."""
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {"Expect": "100-continue"}, 5) + b"hello")
        reply = connection.read()
        assert reply.status == 200 and http.get(reply.json()["id"]).body == b"hello"
        assert connection.request("GET", "/api/v1/ping").status == 200


def test_keep_alive_and_pipelining(node):
    """Many requests on one connection, sent at once, are answered in order."""
    ids = [ulid() for _ in range(40)]
    with wire.Connection(node.address) as connection:
        out = b""
        for number, object_id in enumerate(ids):
            body = f"number {number}".encode()
            out += wire.head("PUT", "/api/v1/put", {"X-Meta-ID": object_id}, len(body)) + body
            out += wire.head("GET", f"/api/v1/get/{object_id}")
        connection.send(out)
        for number, object_id in enumerate(ids):
            assert connection.read().json()["id"] == object_id
            assert connection.read().body == f"number {number}".encode()


def test_http_1_0_closes(node):
    """HTTP/1.0 is answered and closed; with keep-alive it stays open."""
    with wire.Connection(node.address) as connection:
        connection.send(b"GET /api/v1/ping HTTP/1.0\r\n\r\n")
        assert connection.read().status == 200
        assert connection.at_end()
    with wire.Connection(node.address) as connection:
        for _ in range(2):
            connection.send(b"GET /api/v1/ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert connection.read().status == 200


def test_connection_close(node):
    """Connection: close is honoured after the answer."""
    with wire.Connection(node.address) as connection:
        reply = connection.request("GET", "/api/v1/ping", {"Connection": "close"})
        assert reply.status == 200 and reply.header("Connection") == "close"
        assert connection.at_end()


def test_half_closed_clients_get_their_answer(node, http):
    """A client that shuts its sending side after the request still gets the answer."""
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {}, 5) + b"hello")
        connection.half_close()
        reply = connection.read()
        assert reply.status == 200
        assert connection.at_end()
    assert http.get(reply.json()["id"]).body == b"hello"


def test_absolute_form(http):
    """A target in absolute form, as proxies send it, means the same path."""
    object_id = http.stored(b"x")["id"]
    assert http.request("GET", f"http://localhost:1/api/v1/get/{object_id}").body == b"x"


# ---- Digests ----

BODY = b"check me"


def digests(body):
    import base64
    import hashlib
    return {"sha": base64.b64encode(hashlib.sha256(body).digest()).decode(),
            "md5": base64.b64encode(hashlib.md5(body).digest()).decode()}


RIGHT, WRONG = digests(BODY), digests(b"check mE")


@pytest.mark.parametrize("headers,status", [
    ({"Digest": f"sha-256={RIGHT['sha']}"}, 200),
    ({"Digest": f"SHA-256={RIGHT['sha']}"}, 200),
    ({"Digest": f"md5={RIGHT['md5']}"}, 200),
    ({"Digest": f"unixsum=30637, md5={RIGHT['md5']},sha-256={RIGHT['sha']}"}, 200),
    ({"Content-MD5": RIGHT["md5"]}, 200),
    ({"X-Amz-Checksum-Sha256": RIGHT["sha"]}, 200),
    ({"X-Amz-Checksum-Sha256": RIGHT["sha"], "Content-MD5": RIGHT["md5"],
      "Digest": f"sha-256={RIGHT['sha']}"}, 200),
    ({"Digest": f"sha-256={WRONG['sha']}"}, 400),
    ({"Digest": f"md5={WRONG['md5']}"}, 400),
    ({"Digest": f"sha-256={RIGHT['sha']},md5={WRONG['md5']}"}, 400),
    ({"Content-MD5": WRONG["md5"]}, 400),
    ({"X-Amz-Checksum-Sha256": WRONG["sha"]}, 400),
    ({"X-Amz-Checksum-Sha256": RIGHT["sha"], "Content-MD5": WRONG["md5"]}, 400),
    ({"X-Amz-Checksum-Sha256": RIGHT["sha"], "Digest": f"sha-256={WRONG['sha']}"}, 400),
    ({"Content-MD5": "not base64"}, 400),
    ({"Content-MD5": RIGHT["sha"]}, 400),
    ({"X-Amz-Checksum-Sha256": RIGHT["md5"]}, 400),
    ({"X-Amz-Checksum-Sha256": RIGHT["sha"][:-1]}, 400),
    ({"Digest": "sha-256"}, 400),
    ({"Digest": "sha-256=x"}, 400),
])
def test_digests(node, http, headers, status):
    """Right digests pass, wrong or malformed ones are refused and nothing is stored."""
    object_id = ulid()
    if status == 200:
        assert http.put(BODY, headers, id=object_id).status == 200
        assert http.get(object_id).body == BODY
        return
    with node.unchanged():
        reply = http.put(BODY, headers, id=object_id)
        assert reply.status == 400 and "digest" in reply.code()
    assert http.get(object_id).status == 404


def test_digest_of_a_large_body(node, http):
    """The same for a body that goes to a file: nothing of it stays when it is refused."""
    body = noise(1 << 20, 5)
    right, wrong = digests(body), digests(body[:-1])
    with node.unchanged():
        assert http.put(body, {"Content-MD5": wrong["md5"]}).status == 400
        assert http.put(body, {"Digest": f"sha-256={wrong['sha']}"}).status == 400
    reply = http.put(body, {"Content-MD5": right["md5"], "Digest": f"sha-256={right['sha']}"})
    assert reply.status == 200 and http.get(reply.json()["id"]).body == body


# ---- The small paths ----


def test_id(http):
    """Each call gives another valid ULID of now, as plain text."""
    replies = [http.request("GET", "/api/v1/id") for _ in range(50)]
    ids = [reply.body.decode().strip() for reply in replies]
    assert len(set(ids)) == 50 and all(ULID.match(i) for i in ids)
    assert all(r.header("Content-Type").startswith("text/plain") for r in replies)


def test_ping_version(node, http):
    """ping answers the node id, version the program's version."""
    ping = http.request("GET", "/api/v1/ping").body.decode().strip()
    assert ULID.match(ping) and ping == http.stats()["node"]["id"]
    assert ping == (node.state / "NODE_ID").read_text().strip()
    version = http.request("GET", "/api/v1/version").body.decode().strip()
    assert re.match(r"^\d+\.\d+\.\d+$", version) and version == http.stats()["node"]["version"]


def test_health(http):
    """healthz and readyz answer 200 while all is well."""
    assert http.request("GET", "/healthz").status == 200
    ready = http.request("GET", "/readyz")
    assert ready.status == 200 and ready.json()["health"] == "good"


STATS = {
    "disk_stats": {f"{unit}_{what}" for unit in ("bytes", "kb", "mb", "gb")
                   for what in ("all", "used", "free")},
    "node": {"id", "version", "tag", "uptime_s", "durability"},
    "objects": {"count", "deleted", "bytes"},
    "journal": {"events", "vector", "digest", "position", "durable_position"},
    "commit": {"batches", "records", "syncs", "pending"},
    "conflicts": {"count", "bytes", "done"},
    "memory": {"limit_bytes", "used_bytes", "hits", "misses"},
    "http": {"requests", "connections", "in_flight"},
    "faults": {"bad_blocks", "repaired", "lost", "conflicts", "clock", "refused"},
}


def test_stats(http):
    """Every section and figure of the issue is there, and they are true."""
    stats = http.stats()
    for section, names in STATS.items():
        assert names <= set(stats[section]), section
    disk = stats["disk_stats"]
    assert disk["bytes_all"] >= disk["bytes_free"] > 0
    assert disk["bytes_used"] == disk["bytes_all"] - disk["bytes_free"]
    assert disk["kb_all"] == disk["bytes_all"] >> 10 and disk["gb_all"] == disk["bytes_all"] >> 30
    assert stats["node"]["tag"] == "default" and stats["node"]["durability"] == "full"
    assert stats["memory"]["limit_bytes"] == 64 << 20
    assert stats["http"]["in_flight"] >= 1  # this request
    before = stats
    body = noise(12345, 9)
    document = http.stored(body)
    after = http.stats()
    assert after["objects"]["count"] == before["objects"]["count"] + 1
    assert after["objects"]["bytes"] == before["objects"]["bytes"] + 12345
    assert after["journal"]["events"] == before["journal"]["events"] + 1
    assert after["journal"]["digest"] != before["journal"]["digest"]
    # One entry: this run. Earlier runs of the node have ended, and their events count in `events`.
    assert len(after["journal"]["vector"]) == 1
    assert 0 < sum(after["journal"]["vector"].values()) <= after["journal"]["events"]
    assert after["commit"]["records"] >= before["commit"]["records"] + 1
    assert after["commit"]["syncs"] >= before["commit"]["syncs"] + 1
    assert after["http"]["requests"]["2xx"] >= before["http"]["requests"]["2xx"] + 2
    for _ in range(3):
        http.get(document["id"])
    assert http.stats()["memory"]["hits"] >= after["memory"]["hits"] + 2
    http.get("nonsense")
    assert http.stats()["http"]["requests"]["4xx"] == after["http"]["requests"]["4xx"] + 1


# What the figures of stats are called in /metrics: objstore_SECTION_FIGURE, with _total where it only
# grows, and these. None: the same figure in another unit, which PromQL can say.
METRIC_NAMES = {
    "disk_stats.bytes_all": "disk_bytes", "disk_stats.bytes_used": "disk_used_bytes",
    "disk_stats.bytes_free": "disk_free_bytes", "node.uptime_s": "uptime_seconds", "node.read_only": "read_only",
    "node.disk_full": "disk_full", "objects.count": "objects", "outbox.count": "outbox",
    "journal.position": "journal_position_bytes", "journal.applied_position": "journal_applied_position_bytes",
    "journal.durable_position": "journal_durable_position_bytes", "scrub.bytes": "scrub_bytes_total",
    "journal.snapshot_position": "journal_snapshot_position_bytes",
    "scrub.finished_ms": "scrub_finished_seconds", "http.bytes_in": "http_received_bytes_total",
    "http.bytes_out": "http_sent_bytes_total", "cluster.alive": 'cluster_members{state="alive"}',
    "sync.events_in": "sync_received_events_total", "sync.events_out": "sync_sent_events_total",
    "cluster.feature": "cluster_feature_level", "sync.lag_s": "sync_lag_seconds",
    "replication.bytes_pending": "replication_pending_bytes", "replication.rate": "replication_rate_bytes",
    "link.frames_in": "link_received_frames_total", "link.frames_out": "link_sent_frames_total",
    "merge.rows_in": "merge_received_rows_total", "merge.rows_out": "merge_sent_rows_total",
    "cloud.wait_s": "cloud_wait_seconds", "cloud.bytes_up": "cloud_up_bytes_total",
    "cloud.bytes_down": "cloud_down_bytes_total", "cloud.outbox.pending": "outbox", "cloud.outbox.bytes": "outbox_bytes",
    "cloud.outbox.oldest_s": "cloud_outbox_oldest_seconds", "cloud.egress.served_bytes": "cloud_served_bytes_total",
    "cloud.egress.fetched_bytes": "cloud_down_bytes_total", "cloud.egress.saved_bytes": "cloud_saved_bytes",
    "cloud.egress.saved_estimate": "cloud_saved_estimate",
    **{f"cloud.requests.{op}.{result}": f'cloud_requests_total{{op="{op}",result="{result}"}}'
       for op in ("put", "get", "head", "delete", "list", "tags") for result in ("answered", "failed")},
    **{f"{part}.bytes_in": f"{part}_received_bytes_total" for part in ("sync", "merge", "transfer", "link")},
    **{f"{part}.bytes_out": f"{part}_sent_bytes_total" for part in ("sync", "merge", "transfer", "link")},
    **{f"disk_stats.{unit}_{what}": None for unit in ("kb", "mb", "gb") for what in ("all", "used", "free")},
    **{f"http.requests.{n}xx": f'http_requests_total{{class="{n}xx"}}' for n in range(1, 6)}}


def flat(value, path=""):
    """{"section.figure": number} of the document's numbers and truths."""
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{path}.{name}" if path else name).items()}
    return {path: float(value)} if isinstance(value, (int, float)) else {}


def compare(stats, metrics, later):
    """The figures without a metric, and those whose metric lies not between the two documents."""
    missing, unmatched = [], {}
    for path, value in stats.items():
        name = METRIC_NAMES.get(path, path.replace(".", "_"))
        if name is None or path.startswith("journal.vector.") or path == "journal.digest_schema":
            continue
        found = [metrics[n] for n in (f"objstore_{name}", f"objstore_{name}_total") if n in metrics]
        scale = 1000 if path == "scrub.finished_ms" else 1
        if len(found) != 1:
            missing.append(path)
        elif not min(value, later[path]) <= round(found[0] * scale) <= max(value, later[path]):
            unmatched[path] = (value, found[0], later[path])
    return missing, unmatched


def test_every_figure_is_a_metric(nodes):
    """Each number of stats, and the journal's digest and vector, stands in /metrics with the same
    value; a figure that is new in stats fails here until it has its metric."""
    node = nodes.start()
    http = node.http
    kept = [http.stored(noise(size, size), level=1)["id"] for size in (10, 1000, 70000, 400000)]
    http.delete(kept[0])
    http.get(kept[1])
    http.get(kept[1])
    http.get("nonsense")

    def both():
        stats = http.stats()
        lines = http.request("GET", "/metrics").body.decode().splitlines()
        after = http.stats()
        return stats, {k: float(v) for k, v in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}, after

    wait_for(lambda: http.stats()["commit"]["pending"] == 0, "all to be applied")
    for _ in range(5):  # what lives (the disk, connections) may go to and fro between the three
        stats, metrics, after = both()
        missing, unmatched = compare(flat(stats), metrics, flat(after))
        if not unmatched:
            break
    assert not missing and not unmatched
    assert stats["journal"]["digest"] == after["journal"]["digest"]
    info = (f'objstore_journal_info{{digest="{stats["journal"]["digest"]}",'
            f'digest_schema="{stats["journal"]["digest_schema"]}"}}')
    assert metrics[info] == 1
    vector = {k: v for k, v in metrics.items() if k.startswith("objstore_journal_vector{")}
    assert vector == {f'objstore_journal_vector{{origin="{origin}"}}': seq
                      for origin, seq in stats["journal"]["vector"].items()} and len(vector) == 1


SAMPLE = re.compile(r'^([a-z_:]+)(\{([a-z_]+="[^"\\]*",?)*\})? (-?[0-9.]+|\+Inf|NaN)$')


def test_metrics(http):
    """Prometheus text: each line well-formed, each family with help and type, histograms cumulative,
    the same figures as in stats."""
    http.stored(b"for a latency")
    reply = http.request("GET", "/metrics")
    assert reply.header("Content-Type").startswith("text/plain; version=0.0.4")
    values, types, helped = {}, {}, set()
    for line in reply.body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types and name in helped
            types[name] = kind
        elif line.startswith("# HELP "):
            assert len(line.split(" ", 3)[3]) > 3 or line
            helped.add(line.split(" ")[2])
        else:
            match = SAMPLE.match(line)
            assert match, line
            family = re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert match[1] in types or types.get(family) == "histogram", line
            assert line.rsplit(" ", 1)[0] not in values, f"twice: {line}"
            values[line.rsplit(" ", 1)[0]] = float(match[4])
    stats = http.stats()
    assert values["objstore_objects"] == stats["objects"]["count"]
    assert values["objstore_journal_events"] == stats["journal"]["events"]
    assert "histogram" in types.values()
    family = next(name for name, kind in types.items() if kind == "histogram")
    for operation in ("get", "put", "delete", "meta"):
        buckets = [v for k, v in values.items()
                   if k.startswith(f"{family}_bucket") and f'operation="{operation}"' in k]
        assert len(buckets) > 5 and buckets == sorted(buckets)
        count = values[f'{family}_count{{operation="{operation}"}}']
        assert buckets[-1] == count
    assert values[f'{family}_count{{operation="put"}}'] > 0


def test_wrong_paths_and_methods(http):
    """Unknown paths are 404, wrong methods 405 with Allow, and the connection lives on."""
    for path in ("/", "/api", "/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v2/id", "/api/v1/idx",
                 "/api/v1/put/", "//api/v1/id"):
        reply = http.request("GET", path)
        assert reply.status == 404 and reply.code(), path
    object_id = http.stored(b"x")["id"]
    for method, path, allowed in (("GET", "/api/v1/put", {"POST", "PUT"}),
                                  ("DELETE", f"/api/v1/get/{object_id}", {"GET", "HEAD"}),
                                  ("GET", f"/api/v1/delete/{object_id}", {"POST", "DELETE"}),
                                  ("PUT", f"/api/v1/meta/{object_id}", {"GET", "HEAD", "POST"}),
                                  ("POST", "/api/v1/id", {"GET", "HEAD"}),
                                  ("POST", "/metrics", {"GET", "HEAD"})):
        reply = http.request(method, path, body=b"" if method != "GET" else None)
        assert reply.status == 405, (method, path)
        assert set(reply.header("Allow").split(", ")) == allowed
    assert http.get(object_id).body == b"x"


def test_an_independent_client(node):
    """The same through requests, which knows nothing of us."""
    with requests.Session() as session:
        url, body = f"{node.url}/api/v1", noise(400000, 11)
        put = session.put(f"{url}/put", data=body, headers={"X-Meta-Name": "r.csv"}, timeout=60)
        assert put.status_code == 200
        object_id = put.json()["id"]
        got = session.get(f"{url}/get/{object_id}", timeout=60)
        assert got.content == body and got.headers["Content-Type"] == "text/csv; charset=utf-8"
        streamed = session.post(f"{url}/put", data=(body[i:i + 5000] for i in range(0, 400000, 5000)),
                                timeout=60)
        assert streamed.json()["sha256"] == sha256(body)
        again = session.get(f"{url}/get/{object_id}", timeout=60,
                            headers={"If-None-Match": got.headers["ETag"]})
        assert again.status_code == 304 and again.content == b""
        assert session.post(f"{url}/delete/{object_id}", timeout=60).status_code == 200
        assert session.get(f"{url}/get/{object_id}", timeout=60).status_code == 404
