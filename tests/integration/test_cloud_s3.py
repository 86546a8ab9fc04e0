"""Goal: the S3 backend against a real server that checks signatures: what one side wrote the other reads."""

import harness
import pytest
import s3


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = s3.Server(tmp_path_factory.mktemp("s3"))
    yield made
    made.stop()


@pytest.fixture
def drive(server):
    with s3.Drive(server.endpoint) as made:
        assert made.opened["rc"] == "ok", made.opened
        yield made


def no_uploads_stay(server):
    """An abort may come after the request's end."""
    boto = server.client()
    harness.wait_for(lambda: "Uploads" not in boto.list_multipart_uploads(Bucket=s3.BUCKET), "uploads are aborted", 20)


@pytest.mark.parametrize("size", [0, 1, 1000, 256 << 10, (256 << 10) + 1, 5_000_000])
def test_a_body_comes_back_as_it_was_put(server, drive, tmp_path, size):
    data = harness.noise(size)
    put = drive.do("put", "some/key", file=s3.put_file(tmp_path / "in", data), type="text/plain",
                   pairs={"id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "empty": "", "name": "a  b; c=d"})
    assert put["rc"] == "ok", put
    assert put["etag"] and '"' not in put["etag"]
    got = drive.do("get", "some/key", file=tmp_path / "out")
    assert got["rc"] == "ok", got
    assert (tmp_path / "out").read_bytes() == data
    assert got["size"] == size and got["head_etag"] == put["etag"] and got["type"] == "text/plain"
    assert got["pairs"]["id"] == "01ARZ3NDEKTSV4RRFFQ69G5FAV" and got["pairs"]["name"] == "a  b; c=d"
    head = drive.do("head", "some/key")
    assert head["rc"] == "ok" and head["size"] == size and head["pairs"] == got["pairs"]
    assert server.client().get_object(Bucket=s3.BUCKET, Key="some/key")["Body"].read() == data
    assert drive.do("delete", "some/key")["rc"] == "ok"
    assert drive.do("get", "some/key")["rc"] == "not_found"
    assert drive.do("head", "some/key")["rc"] == "not_found"
    assert drive.do("delete", "some/key")["rc"] == "ok"


def test_a_body_in_parts_comes_back_and_is_one_upload(server, tmp_path):
    data = harness.noise(17_000_001)
    with s3.Drive(server.endpoint, part_bytes=5 << 20) as drive:
        server.requests()
        put = drive.do("put", "large", file=s3.put_file(tmp_path / "in", data), type="video/mp4",
                       pairs={"id": "x"}, tags={"usermeta-a": "b c", "usermeta-d": ""})
        assert put["rc"] == "ok", put
        assert put["etag"].endswith("-4")
        asked = [name for name, _, _ in server.requests()]
        assert asked.count("CreateMultipartUpload") == 1 and asked.count("CompleteMultipartUpload") == 1
        assert asked.count("UploadPart") == 4 and len(asked) == 6
        got = drive.do("get", "large", file=tmp_path / "out")
        assert got["rc"] == "ok" and got["sha256"] == harness.sha256(data)
        assert got["pairs"] == {"id": "x"} and got["head_etag"] == put["etag"] and got["type"] == "video/mp4"
        assert drive.do("tags", "large")["pairs"] == {"usermeta-a": "b c", "usermeta-d": ""}
        figures = drive.figures()
        assert figures["put"] == [6, 0] and figures["retries"] == 0
        assert figures["up"] == len(data) and figures["down"] == len(data)


@pytest.mark.parametrize("parts", [1, 4])
def test_ranges(server, tmp_path, parts):
    data = harness.noise(20_000_000)
    with s3.Drive(server.endpoint, download_parts=parts) as drive:
        assert drive.do("put", "ranges", file=s3.put_file(tmp_path / "in", data))["rc"] == "ok"
        for offset, length in [(0, 1), (0, 0), (5, 10), (19_999_999, 0), (19_999_999, 1), (19_999_990, 100),
                               (1_000_000, 12_345_678), (0, 4 << 20), (0, (4 << 20) + 1), (0, 99_999_999)]:
            got = drive.do("get", "ranges", offset=offset, length=length, file=tmp_path / "out")
            assert got["rc"] == "ok", (offset, length, got)
            wanted = data[offset:offset + length] if length else data[offset:]
            assert got["got"] == len(wanted) and got["sha256"] == harness.sha256(wanted), (offset, length)
            assert got["size"] == len(data) and got["heads"] == 1
        assert drive.do("get", "ranges", offset=20_000_000)["rc"] == "out_of_range"
        assert drive.do("get", "ranges", offset=99_000_000, length=5)["rc"] == "out_of_range"
        assert drive.do("put", "empty", file=s3.put_file(tmp_path / "in", b""))["rc"] == "ok"
        for length in (0, 10, 9_000_000):
            got = drive.do("get", "empty", length=length)
            assert got["rc"] == "ok" and got["got"] == 0 and got["size"] == 0, got


def test_a_download_in_parts_asks_for_ranges(server, tmp_path):
    with s3.Drive(server.endpoint, download_parts=4) as drive:
        assert drive.do("put", "p", file=s3.put_file(tmp_path / "in", harness.noise(9 << 20)))["rc"] == "ok"
        server.requests()
        assert drive.do("get", "p")["rc"] == "ok"
        assert [name for name, _, _ in server.requests()] == ["GetObject"] * 3


def test_if_match(server, drive, tmp_path):
    first = drive.do("put", "m", file=s3.put_file(tmp_path / "in", b"one"))
    assert drive.do("get", "m", if_match=first["etag"])["rc"] == "ok"
    second = drive.do("put", "m", file=s3.put_file(tmp_path / "in2", b"two!"))
    got = drive.do("get", "m", if_match=first["etag"])
    assert got["rc"] == "precondition_failed" and got["got"] == 0 and "heads" not in got
    assert drive.do("get", "m", if_match=second["etag"], offset=1, length=2)["sha256"] == harness.sha256(b"wo")


KEYS = ["list/a", "list/a b", "list/a+b", "list/d/b", "list/a~", "list/\u00fc", "list/%41", "list/&<>\"'",
        "list/..z", "list/\U0001f600"]


def test_lists_go_by_bytes_and_in_pages(server, drive, tmp_path):
    made = sorted(KEYS, key=lambda key: key.encode())
    path = s3.put_file(tmp_path / "in", b"12345")
    for key in made:
        assert drive.do("put", key, file=path)["rc"] == "ok", key
    listed = drive.do("list", "list/")
    assert listed["rc"] == "ok" and not listed["more"]
    assert [entry[0] for entry in listed["entries"]] == made
    assert all(size == 5 and etag and modified > 1_500_000_000 for _, size, etag, modified in listed["entries"])
    paged, after = [], None
    while True:
        page = drive.do("list", "list/", max=3, after=after)
        assert page["rc"] == "ok" and len(page["entries"]) <= 3
        paged += [entry[0] for entry in page["entries"]]
        if not page["more"]:
            break
        after = paged[-1]
    assert paged == made
    assert drive.do("list", "list/nothing")["entries"] == []
    for key in made:
        assert drive.do("get", key)["got"] == 5, key
        assert drive.do("delete", key)["rc"] == "ok", key
    assert drive.do("list", "list/")["entries"] == []


def test_boto3_reads_what_we_wrote_and_the_other_way_round(server, drive, tmp_path):
    boto = server.client()
    data = harness.noise(123_456)
    assert drive.do("put", "ours", file=s3.put_file(tmp_path / "in", data), type="image/png",
                    pairs={"sha256": harness.sha256(data)}, tags={"usermeta-x": "y=z/1"})["rc"] == "ok"
    read = boto.get_object(Bucket=s3.BUCKET, Key="ours")
    assert read["Body"].read() == data and read["ContentType"] == "image/png"
    assert read["Metadata"] == {"sha256": harness.sha256(data)}
    assert boto.get_object_tagging(Bucket=s3.BUCKET, Key="ours")["TagSet"] == [
        {"Key": "usermeta-x", "Value": "y=z/1"}]

    boto.put_object(Bucket=s3.BUCKET, Key="theirs/\u00e4 +", Body=data, ContentType="text/css",
                    Metadata={"Name": "v 1", "two": "2"}, Tagging="a=1&b%20c=%C3%BC")
    got = drive.do("get", "theirs/\u00e4 +")
    assert got["rc"] == "ok" and got["sha256"] == harness.sha256(data) and got["type"] == "text/css"
    assert got["pairs"] == {"name": "v 1", "two": "2"} and got["tag_count"] in (0, 2)
    assert drive.do("tags", "theirs/\u00e4 +")["pairs"] == {"a": "1", "b c": "\u00fc"}
    assert drive.do("tags", "ours-not")["rc"] == "not_found"


def test_user_meta_up_to_the_limits(server, drive, tmp_path):
    path = s3.put_file(tmp_path / "in", b"x")
    pairs = {f"usermeta-{i:02}": "v" * 21 for i in range(62)} | {"z": "1" * 63}
    assert sum(len(k) + len(v) for k, v in pairs.items()) == 2048
    assert drive.do("put", "limits", file=path, pairs=pairs)["rc"] == "ok"
    assert drive.do("head", "limits")["pairs"] == pairs
    # Two objects: the server keeps both in extended attributes, which the file system limits.
    tags = {f"{i}" + "n" * 127: "v" * 256 if i == 0 else "\u00fc/" * 3 for i in range(10)}
    assert drive.do("put", "limits", file=path, tags=tags)["rc"] == "ok"
    assert drive.do("tags", "limits")["pairs"] == tags


@pytest.mark.parametrize("more", [
    {"pairs": {"A": "upper"}}, {"pairs": {"a_b": ""}}, {"pairs": {"a": "\u00fc"}}, {"pairs": {"a": "b\r\nx: y"}},
    {"pairs": {"a": " b"}}, {"pairs": {"a": "b "}}, {"pairs": {"a": "v" * 2048}}, {"tags": {"": "x"}},
    {"tags": {"a": "v" * 257}}, {"tags": {"n" * 129: ""}}, {"tags": {"a": "<"}}, {"type": "a\nb"},
    {"tags": {str(i): "" for i in range(11)}}, {"tags": {str(i): "/" * 69 for i in range(10)}}, {"bucket": "a/b"}, {"bucket": "a\r\nHost: x"},
], ids=str)
def test_what_s3_could_not_take_is_refused_before_it_is_sent(server, drive, tmp_path, more):
    server.requests()
    refused = drive.do("put", "k", file=s3.put_file(tmp_path / "in", b"x"), **more)
    assert refused["rc"] == "invalid"
    assert server.requests() == [] and drive.figures()["put"] == [0, 0]


def test_a_wrong_secret_is_refused_and_never_told(server, tmp_path):
    env = s3.credentials(secret="another-secret-than-that")
    with s3.Drive(server.endpoint, env) as drive:
        refused = drive.do("put", "k", file=s3.put_file(tmp_path / "in", b"x"))
        assert refused["rc"] == "permission" and "secret key is wrong" in refused["message"]
        assert drive.do("get", "k")["rc"] == "permission" and drive.do("head", "k")["rc"] == "permission"
        assert drive.do("list", "k")["rc"] == "permission" and drive.do("delete", "k")["rc"] == "permission"
        assert drive.figures()["retries"] == 0
        assert "another-secret" not in drive.log() + str(drive.replies)
    with s3.Drive(server.endpoint, s3.credentials(key="nobody")) as drive:
        refused = drive.do("get", "k")
        assert refused["rc"] == "permission", refused
        assert "access key is not known" in refused["message"]


def test_a_missing_bucket_is_named(server, tmp_path):
    with s3.Drive(server.endpoint, bucket="no-such-bucket") as drive:
        path = s3.put_file(tmp_path / "in", b"x")
        for reply in (drive.do("put", "k", file=path), drive.do("get", "k"), drive.do("list", "")):
            assert reply["rc"] == "not_found"
            assert "no bucket 'no-such-bucket'" in reply["message"]
        other = drive.do("put", "k", bucket=s3.BUCKET, file=path)
        assert other["rc"] == "ok", other


def test_bytes_that_are_not_those_of_the_hash_are_not_stored(server, tmp_path):
    with s3.Drive(server.endpoint, part_bytes=5 << 20) as drive:
        for key, size in (("h1", 1000), ("h2", 12_000_000)):
            put = drive.do("put", key, file=s3.put_file(tmp_path / "in", harness.noise(size)), wrong_hash=True)
            assert put["rc"] == "mismatch", put
            put = drive.do("put", key, file=tmp_path / "in", garble_read=True)
            assert put["rc"] == "mismatch", put
            assert drive.do("head", key)["rc"] == "not_found"
        no_uploads_stay(server)


def test_a_body_that_cannot_be_read_here_gives_that_error(server, tmp_path):
    with s3.Drive(server.endpoint, part_bytes=5 << 20) as drive:
        for key, size, at in (("u1", 1000, 1), ("u2", 3_000_000, 2_000_000), ("u3", 17_000_000, 16_000_000)):
            put = drive.do("put", key, file=s3.put_file(tmp_path / "in", harness.noise(size)), fail_read_at=at)
            assert put["rc"] == "corrupt" and "read here" in put["message"], put
            assert drive.do("head", key)["rc"] == "not_found"
        no_uploads_stay(server)


@pytest.mark.parametrize("parts", [1, 4])
def test_no_more_comes_than_the_owner_takes(server, tmp_path, parts):
    data = harness.noise(16_000_000)
    with s3.Drive(server.endpoint, download_parts=parts) as drive:
        assert drive.do("put", "w", file=s3.put_file(tmp_path / "in", data))["rc"] == "ok"
        held = drive.start("get", "w", hold_after=100_000, file=tmp_path / "out")

        def got():
            return drive.do("progress", of=held).get("got", 0)

        harness.wait_for(lambda: got() > (1 << 20), "the window fills")
        free = drive.do("get", "w", offset=10, length=100)  # others are not held up meanwhile
        assert free["rc"] == "ok"
        before = got()
        assert 100_000 <= before <= 100_000 + (2 << 20) + (256 << 10) and not drive.done(held)
        drive.tell({"id": held, "op": "consume", "bytes": before - 100_000})
        harness.wait_for(lambda: got() > before, "it goes on")
        drive.tell({"id": held, "op": "cancel"})
        assert drive.wait(held)["rc"] == "closed"
        again = drive.do("get", "w")
        assert again["rc"] == "ok" and again["sha256"] == harness.sha256(data)


def test_many_at_once_and_a_full_house(server, drive, tmp_path):
    path = s3.put_file(tmp_path / "in", harness.noise(300_000))
    numbers = [drive.start("put", f"many/{i}", file=path) for i in range(100)]
    assert all(drive.wait(number)["rc"] == "ok" for number in numbers)
    large = s3.put_file(tmp_path / "large", harness.noise(5_000_000))
    assert drive.do("put", "many/large", file=large)["rc"] == "ok"
    held = [drive.start("get", "many/large", hold_after=1) for _ in range(110)]
    assert drive.do("put", "many/x", file=path)["rc"] == "ok"  # readers that stand still hold up no writer
    more = [drive.start("get", "many/1") for _ in range(40)]
    for number in held:
        drive.tell({"id": number, "op": "cancel"})
    ends = [drive.wait(number)["rc"] for number in more]
    assert ends.count("full") == 22 and ends.count("ok") == 18, ends


def test_the_owner_may_refuse_the_head_and_cancel_at_any_time(server, drive, tmp_path):
    path = s3.put_file(tmp_path / "in", harness.noise(12_000_000))
    assert drive.do("put", "c", file=path)["rc"] == "ok"
    refused = drive.do("get", "c", refuse_head=True)
    assert refused["rc"] == "conflict" and refused["got"] == 0
    assert drive.do("get", "c", cancel_after=1)["rc"] == "closed"
    assert drive.do("get", "c", cancel_after=5_000_000)["rc"] == "closed"
    for op in ("put", "get", "head", "list", "tags"):
        number = drive.start(op, "c2" if op == "put" else "c", file=path if op == "put" else None)
        drive.tell({"id": number, "op": "cancel"})
        assert drive.wait(number)["rc"] in ("closed", "ok")


def test_closing_ends_what_is_under_way(server, tmp_path):
    data = s3.put_file(tmp_path / "in", harness.noise(40_000_000))
    with s3.Drive(server.endpoint, part_bytes=5 << 20) as drive:
        assert drive.do("put", "close", file=data)["rc"] == "ok"
        gets = [drive.start("get", "close", hold_after=1) for _ in range(5)]
        puts = [drive.start("put", f"close{i}", file=data) for i in range(5)]
        harness.wait_for(lambda: any(name == "UploadPart" for name, _, _ in server.requests()), "parts are sent")
        drive.close()
        assert {drive.replies[number]["rc"] for number in gets} == {"closed"}
        assert {drive.replies[number]["rc"] for number in puts} <= {"closed", "ok"}
    no_uploads_stay(server)
