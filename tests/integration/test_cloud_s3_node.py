"""Goal: a node with an S3 bucket behind it: what it acknowledges at level 1 lies there, and comes back from there."""

import harness
import pytest
import s3


@pytest.fixture
def server(tmp_path):
    made = s3.Server(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def start(nodes, server, monkeypatch):
    for name, value in s3.credentials().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)

    def begin(bucket=s3.BUCKET):
        return nodes.start("--cloud=s3", f"--bucket={bucket}", f"--s3-endpoint={server.endpoint}",
                           "--s3-path-style=yes")

    return begin


@pytest.mark.parametrize("size", [0, 1000, 30_000_000])
def test_level_1_is_in_the_bucket_and_comes_back_to_an_empty_node(server, start, size):
    data = harness.noise(size)
    put = start().http.put(data, {"X-Meta-Name": "n", "X-Meta-ConsistencyLevel": "1",
                                  "X-Meta-UserMeta": '{"k":"v"}'})
    assert put.status == 200, put
    made = put.json()
    assert made["pending"] == []
    stored = server.client().get_object(Bucket=s3.BUCKET, Key=made["id"])
    assert stored["Body"].read() == data and stored["Metadata"]["sha256"] == harness.sha256(data)
    got = start().http.get(made["id"], {"X-Meta-Fetch": "1"})
    assert got.status == 200 and got.body == data
    assert got.header("X-Meta-Fetched") == "true" and got.header("X-Meta-Name") == "n"


def goes_on(node, says):
    """Puts do not wait for what refuses them, however patient their clients are; the reason is one line."""
    for n in range(3):
        put = node.http.put(b"%d" % n, {"X-Meta-ConsistencyLevel": "1", "X-Meta-Timeout": "3600"})
        assert put.status == 202 and "cloud" in put.json()["pending"], put
        assert node.http.get(put.json()["id"]).body == b"%d" % n
    harness.wait_for(lambda: says in node.log(), "it is said")
    assert len([line for line in node.log().splitlines() if says in line]) == 1, node.log()


def test_a_missing_bucket_is_one_clear_line_and_the_node_goes_on(start):
    goes_on(start(bucket="no-such-bucket"), "no bucket 'no-such-bucket'")


def test_a_refused_key_is_one_clear_line_and_the_node_goes_on(start, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    node = start()
    goes_on(node, "the secret key is wrong")
    assert "not-the-secret" not in node.log()
