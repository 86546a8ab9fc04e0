"""Goal: `objctl cloud check` and `cloud import` with a real S3 server behind real nodes: what is wrong is one line
and what to do about it, while the node goes on serving; a bucket is adopted whole, and what was deleted is not."""

import email.utils
import hashlib
import json
import re
import time

import fault_proxy
import harness
import pytest
import s3
import test_cloud_dir as directory

ONE = directory.ONE
STEPS = ["list", "put", "head", "get", "range", "tags", "delete", "gone"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = s3.Server(tmp_path_factory.mktemp("s3"))
    yield made
    made.stop()


@pytest.fixture
def start(nodes, server, monkeypatch):
    def begin(*options, bucket=s3.BUCKET, endpoint=server.endpoint, **more):
        for name, value in s3.credentials(**more).items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)
        return nodes.start("--cloud=s3", f"--bucket={bucket}", f"--s3-endpoint={endpoint}", "--s3-path-style=yes",
                           *options)

    return begin


@pytest.fixture
def proxy(server):
    made = fault_proxy.Proxy(server.port)
    yield made
    made.close()


@pytest.fixture
def bucket(server):
    """An empty bucket of its own."""
    name = f"bucket-{time.monotonic_ns()}"
    server.client().create_bucket(Bucket=name)
    return name


def steps(done):
    return [line.split()[:2] for line in done.stdout.splitlines()[1:] if line[0] != " "]


def serves(node):
    body = harness.noise(1000)
    put = node.http.put(body)
    assert put.status == 200, put
    assert node.http.get(put.json()["id"]).body == body


def fails(node, step, message, advice):
    """The check names the step, says why in a line and what to do in the next; the node goes on."""
    done = node.ctl("cloud", "check")
    assert done.returncode == 1, done
    bad = [name for name, result in steps(done) if result == "FAILED"]
    assert bad == [step], done.stdout
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(step + " "))
    assert re.search(message, lines[at]), done.stdout
    assert lines[at + 1].startswith(" ") and re.search(advice, lines[at + 1]), done.stdout
    assert s3.SECRET not in done.stdout + done.stderr
    assert "cannot be used" in done.stderr and len(done.stderr.splitlines()) == 1
    serves(node)


# ---- Check ----


@pytest.mark.parametrize("prefix", [None, "team/one"])
def test_a_good_bucket_passes_and_is_left_as_it_was(server, start, bucket, prefix):
    node = start(*([f"--cloud-prefix={prefix}"] if prefix else []), bucket=bucket)
    done = node.ctl("cloud", "check")
    assert done.returncode == 0, done
    assert steps(done) == [[name, "ok"] for name in STEPS]
    assert "KeyCount" in server.client().list_objects_v2(Bucket=bucket)
    assert server.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_missing_bucket_is_named(start):
    fails(start(bucket="no-such-bucket"), "list", "no bucket 'no-such-bucket'", "--bucket")


def test_a_wrong_secret_is_named_and_not_told(start):
    node = start(secret="quite-another-secret")
    done = node.ctl("cloud", "check")
    assert done.returncode == 1 and "quite-another-secret" not in done.stdout + node.log()
    # Who may not list may be allowed the rest: the put is tried, too.
    assert steps(done)[:2] == [["list", "FAILED"], ["put", "FAILED"]] and len(steps(done)) == 2
    assert "the secret key is wrong" in done.stdout and "its secret" in done.stdout
    serves(node)


def test_an_unknown_key_is_named(start):
    done = start(key="nobody").ctl("cloud", "check")
    assert done.returncode == 1 and "access key is not known" in done.stdout


def test_another_region_is_found(start, proxy):
    """Goal: a wrong --region is no reason to fail where the server tells the right one."""
    node = start("--region=eu-west-9", endpoint=proxy.endpoint)
    done = node.ctl("cloud", "check")
    assert done.returncode == 0 and steps(done) == [[name, "ok"] for name in STEPS], done
    regions = {head.split(b"Credential=")[1].split(b"/")[2] for head in proxy.heads}
    assert regions == {b"eu-west-9", b"us-east-1"}


def test_a_wrong_clock_is_named(start, proxy):
    date = email.utils.formatdate(time.time() + 7200, usegmt=True)
    proxy.fault("status", status=403, headers=f"Date: {date}\r\n",
                body=b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>")
    node = start(endpoint=proxy.endpoint)
    done = node.ctl("cloud", "check")
    assert done.returncode == 1 and re.search(r"clock of this machine is 7\d\d\d s behind", done.stdout), done
    assert "clock" in done.stdout.splitlines()[2]
    serves(node)


def test_a_server_that_is_not_there_is_named(start):
    port = harness.free_port()
    fails(start(endpoint=f"http://127.0.0.1:{port}"), "list", f"no connection to 127.0.0.1:{port}", "--s3-endpoint")


def test_a_name_that_is_not_known_is_named(start):
    fails(start(endpoint="http://s3.invalid"), "list", "s3.invalid is not known", "name look-up")


def test_what_is_no_s3_is_named(start, proxy):
    proxy.fault("status", status=404, body=b"<html>404</html>")
    fails(start(endpoint=proxy.endpoint), "list", "404", "--s3-endpoint speaks S3")


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    made = s3.tls_server(tmp_path_factory.mktemp("tls"))
    yield made
    made.stop()


def test_a_certificate_of_ones_own_wants_its_authority(start, tls):
    fails(start(endpoint=tls.endpoint), "list", "certificate of 127.0.0.1", "--s3-ca-file")
    node = start(f"--s3-ca-file={tls.certificate}", endpoint=tls.endpoint)
    assert node.ctl("cloud", "check").returncode == 0


# ---- Import ----

FOREIGN = {"photos/2019/a b.jpg": 1000, "photos/\u00fc+%41&.txt": 5, "notes/large.bin": harness.INLINE + 5,
           "notes/empty": 0, "plain": 70_000}


def names_of(node):
    """Names of all puts in the journal, by id."""
    node.stop()
    events = [json.loads(line) for line in node.ctl("journal", "dump").stdout.splitlines()]
    node.start()
    return {event["name"]: event["id"] for event in events if event.get("kind") == "put"}


def test_a_bucket_is_adopted_whole_and_what_was_deleted_is_not(server, start, bucket):
    """Goal: a node with nothing but the bucket has every object again: its own with name, level, user meta, time
    and checksum; others' under their keys as names; deleted ones not, nor what is under another prefix."""
    boto = server.client()
    node = start(bucket=bucket)
    kept = directory.fill(node)
    gone = list(kept)[:2]
    for object_id in gone:
        del kept[object_id]
        assert node.http.delete(object_id).status == 200

    def keys():
        return [entry["Key"] for entry in boto.list_objects_v2(Bucket=bucket).get("Contents", [])]

    harness.wait_for(lambda: {f".deleted/{object_id}" for object_id in gone} <= set(keys()), "deletes are marked")
    bodies = {key: harness.noise(size) for key, size in FOREIGN.items()}
    for key, body in bodies.items():
        boto.put_object(Bucket=bucket, Key=key, Body=body)
    before = sorted(keys())

    directory.wipe(node)
    some = directory.cloud_import(node, "--prefix", "photos/")
    assert some["adopted"] == some["keys"] == 2
    every = directory.cloud_import(node)
    assert every["adopted"] == len(kept) + 3 and every["known"] == 2 and every["deleted"] == len(gone)
    assert every["refused"] == 0 and every["read"] == 3
    again = directory.cloud_import(node)
    assert again["adopted"] == 0 and again["known"] == len(kept) + 5 and again["read"] == 0
    assert sorted(keys()) == before  # nothing was written, nothing copied
    names = names_of(node)
    server.requests()
    directory.expect(node, kept)
    for key, body in bodies.items():
        reply = node.http.get(names[key])
        assert reply.status == 200 and reply.body == body, key
        assert node.http.meta(names[key]).json()["sha256"] == hashlib.sha256(body).hexdigest()
    for object_id in gone:
        assert node.http.get(object_id, {"X-Meta-Fetch": "1"}).status == 404


def test_an_import_that_cannot_begin_says_why(start):
    """Goal: a bucket that is not there fails the import with one line; the node goes on."""
    node = start(bucket="no-such-bucket")
    done = node.ctl("cloud", "import")
    assert done.returncode == 76 and "no bucket 'no-such-bucket'" in done.stderr, done
    serves(node)
