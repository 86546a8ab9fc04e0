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
