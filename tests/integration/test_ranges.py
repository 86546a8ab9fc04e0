"""Ranges and conditional requests, for small bodies (from memory, from the log) and large ones."""

import email
import email.policy
import re

import pytest

from harness import BLOCK, noise, sha256

SIZES = [10, 1000, 3 * BLOCK + 17, 5 * BLOCK + 1234]


@pytest.fixture(scope="module", params=SIZES)
def stored(shared_node, request):
    body = noise(request.param, 21)
    return shared_node.http.stored(body, name="r.txt"), body


def spans(size):
    """Ranges worth asking of a body of SIZE: (header's spec, first, last)."""
    yield "0-0", 0, 0
    yield "0-4", 0, 4
    yield f"{size - 1}-{size - 1}", size - 1, size - 1
    yield f"{size // 2}-", size // 2, size - 1
    yield "-1", size - 1, size - 1
    yield f"-{size // 3}", size - size // 3, size - 1
    yield f"-{size * 2}", 0, size - 1
    yield f"3-{size * 9}", 3, size - 1
    yield f"3-{2**64 - 1}", 3, size - 1
    yield f"3-{10**30}", 3, size - 1
    yield f"0-{size - 1}", 0, size - 1
    for edge in range(BLOCK, size, BLOCK):
        yield f"{edge - 1}-{edge}", edge - 1, edge
        yield f"{edge}-{edge}", edge, edge
        yield f"{edge - 1}-{edge - 1}", edge - 1, edge - 1
    if size > 2 * BLOCK:
        yield f"{BLOCK - 5}-{2 * BLOCK + 5}", BLOCK - 5, 2 * BLOCK + 5


def test_single_ranges(http, stored):
    """Every kind of single range gives exactly its bytes, as 206 with Content-Range; twice, so that
    it is asked of the disk and of memory."""
    document, body = stored
    for _ in range(2):
        for spec, first, last in spans(len(body)):
            got = http.get(document["id"], {"Range": f"bytes={spec}"})
            assert got.status == 206, (spec, got)
            assert got.body == body[first:last + 1], spec
            assert got.header("Content-Range") == f"bytes {first}-{last}/{len(body)}"
            assert got.header("Content-Type") == "text/plain; charset=utf-8"
            assert got.header("ETag") == f'"{sha256(body)}"'
            assert got.header("X-Meta-Id") == document["id"]


def test_unsatisfiable_ranges(http, stored):
    """No byte in common with the body: 416, with the size."""
    document, body = stored
    size = len(body)
    for spec in (f"{size}-", f"{size}-{size + 5}", "-0", f"{10**25}-", f"{size}-,{size + 1}-"):
        got = http.get(document["id"], {"Range": f"bytes={spec}"})
        assert got.status == 416, spec
        assert got.header("Content-Range") == f"bytes */{size}"
        assert got.code()


@pytest.mark.parametrize("value", ["bytes=", "bytes=abc", "bytes=5-3", "bytes=1-2-3", "lines=1-2", "bytes",
                                   "bytes=--5", "bytes=1", "bytes=0-1;2-3", "bytes=0x0-0x5", "bytes=,", "=0-1"])
def test_malformed_ranges_mean_the_whole(http, stored, value):
    """A Range that cannot be understood is left aside (RFC 9110 §14.2)."""
    document, body = stored
    got = http.get(document["id"], {"Range": value})
    assert got.status == 200 and got.body == body


def parts_of(reply, size):
    """The parts of a multipart/byteranges answer, each checked against its header."""
    match = re.match(r"multipart/byteranges; boundary=(\S+)$", reply.header("Content-Type"))
    assert match, reply.header("Content-Type")
    message = email.message_from_bytes(
        b"Content-Type: " + reply.header("Content-Type").encode() + b"\r\n\r\n" + reply.body,
        policy=email.policy.HTTP)
    # By hand as well, since the email parser changes line ends inside binary parts.
    delimiter = b"--" + match[1].encode()
    raw = reply.body.split(delimiter)
    assert raw[-1].startswith(b"--"), "the closing delimiter is missing"
    assert len(list(message.iter_parts())) == len(raw) - 2
    parts = []
    for piece in raw[1:-1]:
        assert piece.startswith(b"\r\n") and piece.endswith(b"\r\n")
        head, data = piece[2:-2].split(b"\r\n\r\n", 1)
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        assert lines["Content-Type"] == "text/plain; charset=utf-8"
        first, last, total = map(int, re.match(r"bytes (\d+)-(\d+)/(\d+)$", lines["Content-Range"]).groups())
        assert total == size and last - first + 1 == len(data)
        parts.append((first, last, data))
    return parts


@pytest.mark.parametrize("asked", [
    [(0, 9), (2 * BLOCK, 2 * BLOCK + 9)],
    [(4 * BLOCK, 5 * BLOCK + 1233), (0, 0), (2 * BLOCK - 1, 2 * BLOCK - 1)],
    [(BLOCK - 1, BLOCK), (4 * BLOCK - 1, 4 * BLOCK), (5 * BLOCK + 1233, 5 * BLOCK + 1233)],
])
@pytest.mark.parametrize("size", [5 * BLOCK + 1234, 4 << 20])
def test_multipart_ranges(http, asked, size):
    """Several ranges in different blocks come as multipart/byteranges, exact bytes, order kept."""
    body = noise(size, 22)
    object_id = http.stored(body, name="r.txt")["id"]
    value = "bytes=" + ", ".join(f"{a}-{b}" for a, b in asked)
    got = http.get(object_id, {"Range": value})
    assert got.status == 206 and got.header("Content-Range") is None
    parts = parts_of(got, size)
    assert [(a, b) for a, b, _ in parts] == asked
    for first, last, data in parts:
        assert data == body[first:last + 1]


def test_multipart_ranges_of_a_small_body(http):
    """Ranges of one block are merged into one; whatever the shape, each asked byte is there."""
    body = noise(1000, 23)
    object_id = http.stored(body, name="r.txt")["id"]
    got = http.get(object_id, {"Range": "bytes=0-9,500-509,-10"})
    assert got.status == 206
    assert got.header("Content-Range") == "bytes 0-999/1000" and got.body == body
    body = noise(4 * BLOCK, 23)
    object_id = http.stored(body, name="r.txt")["id"]
    for _ in range(2):
        got = http.get(object_id, {"Range": f"bytes=10-19, {3 * BLOCK}-{3 * BLOCK + 5},{4 * BLOCK}-,-7"})
        assert got.status == 206
        for first, last, data in parts_of(got, len(body)):
            assert data == body[first:last + 1]


def test_many_ranges(http):
    """Sixteen ranges are served; a seventeenth, or more bytes than the body, gives the whole body."""
    body = noise(40 * BLOCK, 24)
    object_id = http.stored(body, name="r.txt")["id"]
    asked = [(2 * i * BLOCK, 2 * i * BLOCK + 3) for i in range(16)]
    value = "bytes=" + ",".join(f"{a}-{b}" for a, b in asked)
    got = http.get(object_id, {"Range": value})
    assert got.status == 206 and [(a, b) for a, b, _ in parts_of(got, len(body))] == asked
    got = http.get(object_id, {"Range": value + f",{39 * BLOCK}-{39 * BLOCK + 1}"})
    assert got.status == 200 and got.body == body
    got = http.get(object_id, {"Range": "bytes=0-,0-,0-"})
    assert got.status == 200 and got.body == body


def test_range_of_an_empty_body(http):
    """No range of nothing can be satisfied."""
    object_id = http.stored(b"")["id"]
    for spec in ("0-", "0-0", "-1", "5-9"):
        got = http.get(object_id, {"Range": f"bytes={spec}"})
        assert got.status == 416 and got.header("Content-Range") == "bytes */0"


def test_head_with_a_range(http, stored):
    """Range is defined for GET alone: HEAD tells of the whole."""
    document, body = stored
    head = http.get(document["id"], {"Range": "bytes=0-1"}, method="HEAD")
    assert head.status == 200 and head.header("Content-Length") == str(len(body))


# ---- Conditional requests ----

PAST, FUTURE = "Sat, 29 Oct 1994 19:43:31 GMT", "Fri, 01 Jan 2199 00:00:00 GMT"
OTHER = '"' + "0" * 64 + '"'


def conditions():
    tag, date = "{tag}", "{date}"
    yield {"If-Match": tag}, 200
    yield {"If-Match": "*"}, 200
    yield {"If-Match": f"{OTHER}, {tag}"}, 200
    yield {"If-Match": OTHER}, 412
    yield {"If-Match": f"W/{tag}"}, 412  # compared strongly
    yield {"If-None-Match": tag}, 304
    yield {"If-None-Match": f"W/{tag}"}, 304  # compared weakly
    yield {"If-None-Match": f"{OTHER},{tag}"}, 304
    yield {"If-None-Match": "*"}, 304
    yield {"If-None-Match": OTHER}, 200
    yield {"If-Modified-Since": date}, 304
    yield {"If-Modified-Since": FUTURE}, 304
    yield {"If-Modified-Since": PAST}, 200
    yield {"If-Modified-Since": "yesterday"}, 200
    yield {"If-Unmodified-Since": date}, 200
    yield {"If-Unmodified-Since": FUTURE}, 200
    yield {"If-Unmodified-Since": PAST}, 412
    yield {"If-Unmodified-Since": "yesterday"}, 200
    # Precedence (RFC 9110 §13.2.2)
    yield {"If-None-Match": OTHER, "If-Modified-Since": FUTURE}, 200
    yield {"If-None-Match": tag, "If-Modified-Since": PAST}, 304
    yield {"If-Match": tag, "If-Unmodified-Since": PAST}, 200
    yield {"If-Match": OTHER, "If-None-Match": tag}, 412
    yield {"If-Match": tag, "If-None-Match": tag}, 304


@pytest.mark.parametrize("headers,status", conditions(), ids=str)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(http, stored, headers, status, method):
    """Every precondition, alone and together, evaluated as RFC 9110 §13 says."""
    document, body = stored
    date = http.get(document["id"], method="HEAD").header("Last-Modified")
    tag = f'"{document["sha256"]}"'
    sent = {name: value.replace("{tag}", tag).replace("{date}", date) for name, value in headers.items()}
    got = http.get(document["id"], sent, method=method)
    assert got.status == status
    if status == 200 and method == "GET":
        assert got.body == body
    if status == 304:
        assert got.body == b"" and got.header("ETag") == tag
        assert got.header("Content-Length") in (None, str(len(body)))


@pytest.mark.parametrize("value,partial", [("{tag}", True), (OTHER, False), ("W/{tag}", False),
                                           ("{date}", True), (PAST, False), (FUTURE, False), ("x", False)])
def test_if_range(http, stored, value, partial):
    """If-Range: the range where the validator is exactly ours, else the whole body."""
    document, body = stored
    date = http.get(document["id"], method="HEAD").header("Last-Modified")
    value = value.replace("{tag}", f'"{document["sha256"]}"').replace("{date}", date)
    got = http.get(document["id"], {"Range": "bytes=2-5", "If-Range": value})
    assert (got.status, got.body) == ((206, body[2:6]) if partial else (200, body))


def test_condition_before_range(http, stored):
    """A failed precondition decides before the range is looked at."""
    document, _ = stored
    got = http.get(document["id"], {"Range": "bytes=0-1", "If-None-Match": f'"{document["sha256"]}"'})
    assert got.status == 304
    got = http.get(document["id"], {"Range": "bytes=0-1", "If-Match": OTHER})
    assert got.status == 412 and got.code()
