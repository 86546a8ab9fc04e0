"""Goal: whatever network and server do to a request, it ends with the right answer, and never with half a body."""

import time

import fault_proxy
import harness
import pytest
import s3

DATA = harness.noise(3_000_000)
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = s3.Server(tmp_path_factory.mktemp("s3"))
    made.client().put_object(Bucket=s3.BUCKET, Key="there", Body=DATA, Metadata={"id": "x"})
    yield made
    made.stop()


@pytest.fixture
def proxy(server):
    made = fault_proxy.Proxy(server.port)
    yield made
    made.close()


@pytest.fixture
def drive(proxy):
    with s3.Drive(proxy.endpoint, tries=3, stall_timeout_ms=700, connect_timeout_ms=2000,
                  part_bytes=5 << 20) as made:
        yield made


@pytest.fixture
def path(tmp_path):
    return s3.put_file(tmp_path / "in", DATA)


def whole(got):
    return got["rc"] == "ok" and got["got"] == len(DATA) and got["sha256"] == harness.sha256(DATA)


# ---- GET ----


@pytest.mark.parametrize("kind", ["cut", "stall"])
@pytest.mark.parametrize("after", [-1, 0, 1, 1_000_000, len(DATA) - 1])
def test_a_get_that_breaks_is_continued(proxy, drive, kind, after):
    proxy.fault(kind, method="GET", times=1, after=after)
    got = drive.do("get", "there")
    assert whole(got), got
    assert got["heads"] == 1 and len(proxy.hits) == 1 and len(proxy.requests) == 2
    assert drive.figures()["retries"] == 1


@pytest.mark.parametrize("kind, code", [("cut", "closed"), ("stall", "timeout")])
@pytest.mark.parametrize("after", [-1, 0, 300_000])
def test_a_get_that_keeps_breaking_is_never_a_short_success(proxy, drive, kind, code, after):
    proxy.fault(kind, method="GET", after=after)
    got = drive.do("get", "there")
    assert got["rc"] == code and got["got"] <= 3 * max(after, 0), got
    assert len(proxy.requests) == 3 and got["message"]


def test_a_get_goes_on_for_as_long_as_it_makes_progress(proxy, drive):
    proxy.fault("cut", method="GET", after=1_200_000, times=2)
    got = drive.do("get", "there")
    assert whole(got) and len(proxy.requests) == 3


def test_a_body_that_changes_meanwhile_is_not_mixed(proxy, drive, server, path):
    server.client().put_object(Bucket=s3.BUCKET, Key="changing", Body=DATA)
    proxy.fault("cut", method="GET", after=2_900_000, times=1)
    number = drive.start("get", "changing", hold_after=100_000)
    harness.wait_for(lambda: drive.do("progress", of=number).get("got", 0) > 1_000_000, "it is under way")
    server.client().put_object(Bucket=s3.BUCKET, Key="changing", Body=harness.noise(len(DATA), seed=2))
    consumed = 100_000

    def consume_all():
        nonlocal consumed
        given = drive.do("progress", of=number).get("got", consumed)
        if given > consumed:
            drive.tell({"id": number, "op": "consume", "bytes": given - consumed})
            consumed = given
        return drive.done(number)

    harness.wait_for(consume_all, "it ends")
    got = drive.wait(number)
    assert got["rc"] == "precondition_failed" and got["got"] < len(DATA), got


@pytest.mark.parametrize("parts", [1, 4])
def test_ranges_that_break_are_continued(proxy, server, parts):
    large = harness.noise(18_000_000)
    server.client().put_object(Bucket=s3.BUCKET, Key="large", Body=large)
    with s3.Drive(proxy.endpoint, tries=3, stall_timeout_ms=700, download_parts=parts) as drive:
        proxy.fault("cut", method="GET", after=3_000_000, times=3)
        got = drive.do("get", "large", offset=5, length=16_000_000)
        assert got["rc"] == "ok" and got["sha256"] == harness.sha256(large[5:16_000_005]), got
        proxy.fault("cut", method="GET", after=1000)
        got = drive.do("get", "large")
        assert got["rc"] == "closed" and got["got"] < len(large)


def test_bytes_damaged_on_their_way_are_the_callers_to_find(proxy, drive):
    proxy.fault("corrupt", method="GET", after=1_234_567, times=1)
    got = drive.do("get", "there")
    assert got["rc"] == "ok" and got["got"] == len(DATA) and got["sha256"] != harness.sha256(DATA)


@pytest.mark.parametrize("change", [
    lambda head: head.replace(b"206 ", b"200 "),
    lambda head: head.replace(b"bytes 7-", b"bytes 8-"),
    lambda head: head.replace(b"/3000000", b"/30"),
    lambda head: b"\r\n".join(x for x in head.split(b"\r\n") if not x.lower().startswith(b"content-range")),
], ids=["not partial", "another range", "nonsense", "no range"])
def test_an_answer_to_another_question_is_refused(proxy, drive, change):
    proxy.fault("rewrite", method="GET", change=change)
    got = drive.do("get", "there", offset=7, length=1000)
    assert got["rc"] == "invalid" and got["got"] == 0, got


def test_a_length_below_that_of_the_range_is_no_end(proxy, drive):
    proxy.fault("rewrite", method="GET", change=lambda head: head.replace(b"Length: 1000", b"Length: 10"))
    got = drive.do("get", "there", offset=7, length=1000)
    assert got["rc"] == "ok" and got["sha256"] == harness.sha256(DATA[7:1007]), got
    assert len(proxy.requests) == 2


# ---- Errors of the server ----


@pytest.mark.parametrize("op, method", [("get", "GET"), ("head", "HEAD"), ("put", "PUT"), ("list", "GET"),
                                        ("tags", "GET")])
@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_few_5xx_are_ridden_out(proxy, drive, path, op, method, status):
    proxy.fault("status", method=method, status=status, times=2, body=INTERNAL)
    key = "put" if op == "put" else "there"
    got = drive.do(op, key, file=path if op == "put" else None)
    assert got["rc"] == "ok", got
    assert len(proxy.requests) == 3
    assert drive.figures()[op] == [3, 2]
    proxy.fault("status", method=method, status=status, body=INTERNAL)
    got = drive.do(op, key, file=path if op == "put" else None)
    assert got["rc"] == "again" and str(status) in got["message"], got
    assert len(proxy.requests) == 6


@pytest.mark.parametrize("fault, code, asked", [
    ({"kind": "status", "status": 503, "body": SLOW_DOWN}, "ok", 2),
    ({"kind": "lost"}, "closed", 1), ({"kind": "stall", "after": -1}, "timeout", 1),
    ({"kind": "status", "status": 500, "body": INTERNAL}, "again", 1),
], ids=str)
def test_a_delete_is_repeated_only_where_it_was_refused(proxy, drive, fault, code, asked):
    proxy.fault(method="DELETE", times=1, **fault)
    assert drive.do("delete", "there-not")["rc"] == code and len(proxy.requests) == asked


def test_slow_down_is_respected(proxy, drive):
    proxy.fault("status", status=503, times=1, body=SLOW_DOWN, headers="Retry-After: 1\r\n")
    begun = time.monotonic()
    assert whole(drive.do("get", "there"))
    assert time.monotonic() - begun >= 1.0
    proxy.fault("status", status=503, body=SLOW_DOWN, headers="Retry-After: 120\r\n")
    got = drive.do("get", "there")
    assert got["rc"] == "again" and got["retry_after_ms"] == 120_000 and len(proxy.requests) == 3
    proxy.clear()
    proxy.fault("status", status=503, body=SLOW_DOWN)
    got = drive.do("head", "there")
    assert got["rc"] == "again" and got["retry_after_ms"] == 0  # nobody tells a HEAD why
    got = drive.do("list", "there")
    assert got["rc"] == "again" and got["retry_after_ms"] == 1000 and "SlowDown" in got["message"]


def test_a_404_of_somebody_else_is_no_missing_key(proxy, drive):
    proxy.fault("status", status=404, body=b"<html>nothing here</html>")
    got = drive.do("get", "there")
    assert got["rc"] == "invalid" and "404" in got["message"]


@pytest.mark.parametrize("body", [
    b"", b"<", b"<ListBucketResult/>x", b"<Error><Code>x</Code></Error>",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]><ListBucketResult>&b;</ListBucketResult>",
    b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
    b"<ListBucketResult><Contents><Key>other</Key><Size>1</Size></Contents></ListBucketResult>",
    b"<ListBucketResult><Contents><Key>there</Key><Size>x</Size></Contents></ListBucketResult>",
    b"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
    b"<ListBucketResult>" + b"<a>" * 20 + b"</a>" * 20 + b"</ListBucketResult>",
], ids=lambda body: body[:30].decode())
def test_a_list_that_makes_no_sense_is_refused_whole(proxy, drive, body):
    proxy.fault("status", status=200, body=body)
    got = drive.do("list", "there")
    assert got["rc"] == "invalid" and got["entries"] == [], got


# ---- PUT ----


@pytest.mark.parametrize("after", [0, 1, 1_000_000, len(DATA)])
def test_a_put_that_is_reset_is_repeated(proxy, drive, server, path, after):
    proxy.fault("reset", method="PUT", times=2, after=after)
    put = drive.do("put", f"reset{after}", file=path)
    assert put["rc"] == "ok" and len(proxy.requests) == 3, put
    assert server.client().get_object(Bucket=s3.BUCKET, Key=f"reset{after}")["Body"].read() == DATA
    proxy.fault("reset", method="PUT", after=after)
    assert drive.do("put", f"never{after}", file=path)["rc"] == "closed"
    assert drive.do("head", f"never{after}")["rc"] == "not_found"


def test_a_put_whose_answer_is_lost_is_repeated(proxy, drive, server, path):
    proxy.fault("lost", method="PUT", times=1)
    server.requests()
    assert drive.do("put", "lost", file=path, pairs={"a": "b"})["rc"] == "ok"
    assert [name for name, _, _ in server.requests()] == ["PutObject", "PutObject"]
    proxy.fault("lost", method="PUT")
    put = drive.do("put", "lost-for-ever", file=path)
    assert put["rc"] == "closed" and put["message"]
    proxy.clear()
    assert drive.do("head", "lost-for-ever")["rc"] == "ok"  # which is why the outcome is not known


def test_a_put_that_is_damaged_on_its_way_is_repeated(proxy, drive, server, path):
    proxy.fault("garble", method="PUT", times=1, after=2_000_000)
    assert drive.do("put", "garbled", file=path)["rc"] == "ok"
    assert server.client().get_object(Bucket=s3.BUCKET, Key="garbled")["Body"].read() == DATA
    proxy.fault("garble", method="PUT", after=0)
    assert drive.do("put", "garbled-for-ever", file=path)["rc"] == "mismatch"
    proxy.clear()
    assert drive.do("head", "garbled-for-ever")["rc"] == "not_found"


def test_a_put_without_an_answer_times_out(proxy, drive, path):
    proxy.fault("stall", method="PUT", after=-1)
    put = drive.do("put", "stalled", file=path)
    assert put["rc"] == "timeout" and "silent" in put["message"] and len(proxy.requests) == 3


def test_a_slow_answer_is_waited_for(proxy, drive, path):
    proxy.fault("delay", seconds=0.5)
    assert drive.do("put", "slow", file=path)["rc"] == "ok"
    assert drive.do("head", "slow")["rc"] == "ok" and len(proxy.requests) == 2


# ---- Uploads in parts ----


@pytest.fixture
def large(tmp_path):
    return s3.put_file(tmp_path / "large", harness.noise(12_000_000))


def stored(server, key, large):
    return server.client().get_object(Bucket=s3.BUCKET, Key=key)["Body"].read() == large.read_bytes()


def none_left(server):
    boto = server.client()
    harness.wait_for(lambda: "Uploads" not in boto.list_multipart_uploads(Bucket=s3.BUCKET), "they are aborted", 20)


@pytest.mark.parametrize("fault", [
    {"kind": "reset", "method": "PUT", "after": 1_000_000, "times": 3},
    {"kind": "lost", "method": "PUT", "times": 3},
    {"kind": "garble", "method": "PUT", "after": 9, "times": 3},
    {"kind": "status", "method": "PUT", "status": 503, "body": SLOW_DOWN, "times": 2},
    {"kind": "status", "method": "POST", "status": 500, "body": INTERNAL, "times": 2},
    {"kind": "stall", "method": "PUT", "after": -1, "times": 2},
], ids=lambda fault: f"{fault['kind']} {fault['method']}")
def test_an_upload_in_parts_rides_out_some_trouble(proxy, drive, server, large, fault):
    proxy.fault(**fault)
    put = drive.do("put", "parts", file=large, pairs={"a": "b"})
    assert put["rc"] == "ok" and put["etag"].endswith("-3"), put
    assert stored(server, "parts", large)
    assert len(proxy.hits) == fault["times"]
    drive.do("delete", "parts")


@pytest.mark.parametrize("fault, code", [
    ({"kind": "reset", "method": "PUT", "after": 1_000_000}, "closed"),
    ({"kind": "status", "method": "PUT", "status": 500, "body": INTERNAL}, "again"),
    ({"kind": "status", "query": "partNumber=3", "status": 403,
      "body": b"<Error><Code>AccessDenied</Code></Error>"}, "permission"),
    ({"kind": "garble", "method": "PUT", "after": 7}, "mismatch"),
], ids=["reset", "500", "403", "garble"])
def test_an_upload_in_parts_that_fails_is_aborted(proxy, drive, server, large, fault, code):
    proxy.fault(**fault)
    put = drive.do("put", "failing", file=large)
    assert put["rc"] == code, put
    none_left(server)
    assert drive.do("head", "failing")["rc"] == "not_found"


def test_an_upload_completed_without_an_answer_is_found(proxy, drive, server, large):
    proxy.fault("lost", method="POST", query="uploadId=", times=1)
    put = drive.do("put", "found", file=large, pairs={"sha256": "abc", "stamp": "1"})
    assert put["rc"] == "ok" and put["etag"].endswith("-3"), put
    assert stored(server, "found", large)
    # Every try is lost: the look at the key decides.
    proxy.fault("lost", method="POST", query="uploadId=")
    put = drive.do("put", "found2", file=large, pairs={"sha256": "abc", "stamp": "1"})
    assert put["rc"] == "ok" and stored(server, "found2", large), put
    # Without anything to know it by, what lies there may be somebody else's.
    put = drive.do("put", "found3", file=large)
    assert put["rc"] == "closed" and put["message"], put
    none_left(server)


def test_an_upload_that_cannot_be_completed_is_an_error(proxy, drive, server, large):
    # S3 may begin its answer as a success, and tell of the error in its body.
    proxy.fault("status", method="POST", query="uploadId=", status=200, body=INTERNAL)
    put = drive.do("put", "incomplete", file=large, pairs={"a": "b"})
    assert put["rc"] == "again" and "together" in put["message"], put
    none_left(server)
    assert drive.do("head", "incomplete")["rc"] == "not_found"


def test_an_upload_cancelled_at_any_moment_leaves_nothing(proxy, drive, server, large):
    for query in ("uploads", "partNumber=1", "partNumber=3", "uploadId="):
        proxy.clear()
        fault = proxy.fault("delay", query=query, seconds=0.3, times=1)
        number = drive.start("put", "cancelled", file=large)
        harness.wait_for(lambda: fault.times == 0, f"{query} is asked")
        drive.tell({"id": number, "op": "cancel"})
        assert drive.wait(number)["rc"] == "closed"
        none_left(server)


# ---- No cloud at all ----


def test_a_cloud_that_is_away_and_comes_back(proxy, drive, path):
    assert drive.do("head", "there")["rc"] == "ok"
    proxy.stop()
    for op in ("get", "head", "put", "list", "delete"):
        got = drive.do(op, "there", file=path if op == "put" else None)
        assert got["rc"] == "closed" and "no connection to 127.0.0.1" in got["message"], got
    proxy.start()
    assert whole(drive.do("get", "there"))


def test_a_name_that_does_not_resolve(tmp_path):
    with s3.Drive("http://no-such-host.invalid:1", tries=1) as drive:
        got = drive.do("head", "k")
        assert got["rc"] == "closed" and "no-such-host.invalid" in got["message"]
    with s3.Drive("http://s3.invalid", tries=1, path_style=False) as drive:
        assert f"{s3.BUCKET}.s3.invalid" in drive.do("head", "k")["message"]


@pytest.mark.parametrize("config, says", [
    ({"endpoint": "127.0.0.1:1"}, "endpoint"), ({"endpoint": "ftp://x"}, "endpoint"),
    ({"endpoint": "http://a b"}, "endpoint"), ({"endpoint": "https://"}, "endpoint"),
    ({"bucket": ""}, "bucket"), ({"bucket": "a/b"}, "bucket"), ({"region": "a b"}, "region"),
    ({"download_parts": 99}, "parts"),
], ids=str)
def test_options_that_make_no_sense(config, says):
    with s3.Drive(config.pop("endpoint", "http://127.0.0.1:1"), **config) as drive:
        assert drive.opened["rc"] == "invalid" and says in drive.opened["message"]
