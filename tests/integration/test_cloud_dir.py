"""The cloud as a user meets it without an account: a directory. What its options refuse, what
`objctl cloud` says of it, and what comes back from it to a cluster that lost everything else."""

import hashlib
import json
import os
import re
import shutil

import pytest

from harness import INLINE, noise, wait_for

ONE = {"X-Meta-ConsistencyLevel": "1"}
TWO = {"X-Meta-ConsistencyLevel": "2"}


@pytest.fixture
def bucket(tmp_path):
    return tmp_path / "bucket"


@pytest.fixture
def start(nodes, bucket):
    def start(*options, **more):
        return nodes.start("--cloud", f"dir:{bucket}", *options, **more)

    return start


def put(node, body, headers=ONE, status=(200, 201), **more):
    reply = node.http.put(body, {**headers, **more})
    assert reply.status in status, reply
    return reply.json()["id"]


def files_in(bucket):
    return sorted(os.path.relpath(os.path.join(folder, name), bucket)
                  for folder, folders, names in os.walk(bucket) for name in names
                  if ".objstore-cloud" not in folder)


def summary(text):
    """The numbers of an import's last line."""
    line = text.strip().splitlines()[-1]
    found = re.search(r"(\d+) keys, (\d+) \(.*?\) (?:would be )?adopted, (\d+) known already, (\d+) deleted, "
                      r"(\d+) no objects, (\d+) refused; (\d+) ", text.replace("\n", " "))
    assert found, line
    return dict(zip(("keys", "adopted", "known", "deleted", "others", "refused", "read"),
                    map(int, found.groups())))


def cloud_import(node, *arguments, code=0):
    done = node.ctl("cloud", "import", *arguments)
    assert done.returncode == code, done.stderr
    return summary(done.stderr)


# ---- Options ----


def test_options_that_make_no_sense_end_the_start(nodes, tmp_path):
    """Goal: 64 or 78, one line that names what is wrong, nothing left behind."""
    for arguments, code, named in ((["--cloud", "ftp"], 64, "--cloud"),
                                   (["--cloud", "s3"], 78, "--bucket"),
                                   (["--cloud", f"dir:{tmp_path}/no/such"], 78, "parent"),
                                   (["--cloud", "dir:/dev/null"], 78, "/dev/null"),
                                   (["--egress-price", "much"], 64, "--egress-price"),
                                   (["--cloud-prefix", "/a"], 64, "--cloud-prefix")):
        node = nodes.make()
        got, log = node.fails(*arguments)
        assert got == code and named in log, log
        assert not node.state.exists() and not node.files.exists()


@pytest.mark.parametrize("how", ["no parent", "no directory", "empty directory"])
def test_a_cloud_that_is_away_keeps_nobody_from_starting(start, bucket, how):
    """Goal: a directory that was there once and is not (a file system that is not mounted) is neither made
    anew nor taken for an empty one: the node starts, serves, owes, and goes on once it is back."""
    bucket = bucket / "cloud"
    bucket.parent.mkdir()
    node = start("--cloud", f"dir:{bucket}")
    first = put(node, b"there before")
    node.stop()
    away = bucket.parent.with_name("away")
    bucket.parent.rename(away)
    if how != "no parent":
        bucket.parent.mkdir()
    if how == "empty directory":
        bucket.mkdir()
    node.start()
    second = put(node, b"put meanwhile", status=(202,), **{"X-Meta-Timeout": "0"})
    assert node.http.get(first).body == b"there before"
    assert node.http.get("01BRNMMS1DK3CBD4ZZM2TQ8C5B", {"X-Meta-Fetch": "1"}).status == 503
    assert node.ctl("cloud", "check").returncode == 1
    assert node.stats()["outbox"]["count"] == 1
    if how != "no parent":
        assert files_in(bucket.parent) == [] and not (bucket / ".objstore-cloud").exists()
        shutil.rmtree(bucket.parent)
    away.rename(bucket.parent)
    wait_for(lambda: files_in(bucket) == sorted([first, second]), "what was owed is there")


def test_the_outbox_is_listed_oldest_first(start, bucket):
    """Goal: `cloud outbox` names what is owed, by age, with names; --limit cuts the list, not the sums."""
    node = start()
    hidden = bucket.with_name("away")
    bucket.rename(hidden)
    ids = []
    for i in range(3):
        ids.append(put(node, b"x" * (i + 1), status=(202,),
                       **{"X-Meta-Name": f"n{i}", "X-Meta-Timeout": "0"}))
    wait_for(lambda: node.stats()["outbox"]["count"] == 3, "three are owed")
    done = node.ctl("cloud", "outbox")
    assert done.returncode == 0 and "owes the cloud 3 uploads" in done.stderr, done
    lines = [line.split() for line in done.stdout.splitlines()]
    assert sorted(line[3] for line in lines) == sorted(ids)
    assert all(line[0] == "upload" and line[-1] in ("n0", "n1", "n2") for line in lines)
    done = node.ctl("cloud", "outbox", "--limit", "1")
    assert len(done.stdout.splitlines()) == 1 and "3 uploads" in done.stderr
    assert node.ctl("cloud", "outbox", "--limit", "0").returncode == 64
    hidden.rename(bucket)
    wait_for(lambda: node.stats()["outbox"]["count"] == 0, "all is there")
    assert node.ctl("cloud", "outbox").stdout == ""


# ---- Check ----


def test_a_check_tries_each_request_and_leaves_nothing(start, bucket):
    """Goal: every step is ok, and the bucket is as before."""
    node = start("--cloud-prefix", "team/one")
    done = node.ctl("cloud", "check")
    assert done.returncode == 0, done
    steps = [line.split()[:2] for line in done.stdout.splitlines()[1:]]
    assert steps == [[name, "ok"] for name in ("list", "put", "head", "get", "range", "tags", "delete", "gone")]
    assert files_in(bucket) == []


def test_a_check_says_what_to_mend(nodes, start, bucket):
    """Goal: a cloud that is away fails the check by name, with advice; a node without one says so."""
    node = start()
    bucket.rename(bucket.with_name("away"))
    done = node.ctl("cloud", "check")
    assert done.returncode == 1
    assert re.search(r"^list +FAILED", done.stdout, re.M) and "mounted" in done.stdout, done.stdout
    bucket.with_name("away").rename(bucket)
    alone = nodes.start("--cloud", "none")
    for verb in ("check", "import"):
        done = alone.ctl("cloud", verb)
        assert done.returncode == 76 and "no cloud" in done.stderr, done
    assert alone.ctl("cloud", "outbox").returncode == 0
    assert alone.ctl("cloud").returncode == 64
    assert alone.ctl("cloud", "check", "--dry-run").returncode == 64


# ---- Import ----


def test_files_that_lie_there_become_objects(start, bucket):
    """Goal: keys that are no ULIDs are adopted under ids of their own, with the key as the name, without a
    copy; a second import adopts nothing; --dry-run changes nothing; --prefix picks."""
    bodies = {"photos/2019/a b.jpg": noise(1000), "photos/b.txt": b"plain text", "notes/empty": b"",
              "notes/large.bin": noise(INLINE + 5), "100%.txt": b"percent"}
    for key, body in bodies.items():
        (bucket / key).parent.mkdir(parents=True, exist_ok=True)
        (bucket / key).write_bytes(body)
    node = start()
    dry = cloud_import(node, "--dry-run")
    assert dry["adopted"] == 5 and dry["read"] == 5
    assert node.stats()["objects"]["count"] == 0
    some = cloud_import(node, "--prefix", "photos/")
    assert some["keys"] == 2 and some["adopted"] == 2
    all_ = cloud_import(node)
    assert all_["adopted"] == 3 and all_["known"] == 2 and all_["refused"] == 0
    again = cloud_import(node)
    assert again["adopted"] == 0 and again["known"] == 5 and again["read"] == 0
    assert files_in(bucket) == sorted(bodies)  # nothing was written
    names = {}
    node.stop()
    for line in node.ctl("journal", "dump").stdout.splitlines():
        event = json.loads(line)
        if event.get("kind") == "put":
            names[event["name"]] = event["id"]
    node.start()
    assert set(names) == set(bodies)
    for key, body in bodies.items():
        reply = node.http.get(names[key])
        assert reply.status == 200 and reply.body == body, key
        assert node.http.meta(names[key]).json()["sha256"] == hashlib.sha256(body).hexdigest()
        assert node.http.meta(names[key]).json()["level"] == 1


def wipe(node):
    node.stop()
    shutil.rmtree(node.state)
    shutil.rmtree(node.files)
    node.start()


def fill(node):
    """Objects of all kinds, and what their meta documents say: by id."""
    kept = {}
    for i, (headers, size) in enumerate([(ONE, 0), (ONE, 10), (TWO, 1000), (ONE, INLINE + 1), (TWO, 3 << 20)]):
        meta = {"plain": "value", "n": str(i)} if i % 2 else {"Capital": "50% \N{SNOWMAN}"}
        if i == 4:
            meta = {"long": "x" * 4000}
        object_id = put(node, noise(size), headers, **{
            "X-Meta-Name": f"caf\u00e9 {i}.bin".encode().decode("latin-1"),
            "X-Meta-UserMeta": json.dumps(meta), "Content-Type": "application/x-test"})
        kept[object_id] = node.http.meta(object_id).json()
    return kept


SAME = ("name", "size", "sha256", "level", "timestamp", "user_meta")


def expect(node, kept, headers=None):
    for object_id, meta in kept.items():
        reply = node.http.get(object_id, headers or {})
        assert reply.status == 200, (object_id, reply)
        assert hashlib.sha256(reply.body).hexdigest() == meta["sha256"]
        now = node.http.meta(object_id).json()
        assert {k: now[k] for k in SAME} == {k: meta[k] for k in SAME}


def delete_two(node, kept, bucket):
    """One stays in the cloud, marked; one is removed from there."""
    marked, purged = list(kept)[:2]
    assert node.http.delete(marked).status == 200
    assert node.http.request("POST", f"/api/v1/delete/{purged}", {"X-Meta-Purge": "1"}).status == 200
    wait_for(lambda: {f".deleted/{marked}", f".deleted/{purged}"} <= set(files_in(bucket)) and
             purged not in files_in(bucket), "the cloud knows of the deletes")
    for gone in (marked, purged):
        del kept[gone]
    return marked, purged


@pytest.mark.parametrize("way", ["import", "fetch"])
def test_a_wiped_cluster_gets_its_objects_back(start, bucket, way):
    """Goal: with the bucket alone left, every live object of level 1 or 2 comes back with name, level, user
    meta, time and checksum, by import or by asking for it; what was deleted does not."""
    node = start()
    local = put(node, b"level 0", {})
    kept = fill(node)
    deleted = delete_two(node, kept, bucket)
    wipe(node)
    for object_id in (*kept, *deleted, local):
        assert node.http.get(object_id).status == 404
    if way == "import":
        first = cloud_import(node)
        assert first["adopted"] == len(kept) and first["deleted"] == 1 and first["read"] == 0
        assert first["refused"] == 0
        assert cloud_import(node)["adopted"] == 0
        expect(node, kept)
    else:
        expect(node, kept, {"X-Meta-Fetch": "1"})
    for object_id in (*deleted, local):
        assert node.http.get(object_id, {"X-Meta-Fetch": "1"}).status == 404
    # What came back is deleted as anything is, and stays so when all is lost again.
    one = next(iter(kept))
    assert node.http.delete(one).status == 200
    wait_for(lambda: f".deleted/{one}" in files_in(bucket), "it is marked")
    wipe(node)
    again = cloud_import(node)
    assert node.http.get(one, {"X-Meta-Fetch": "1"}).status == 404
    assert again["adopted"] == len(kept) - 1


def test_an_import_goes_on_where_a_restart_ended_it(start, bucket):
    """Goal: a node that is killed in the middle of an import adopts the rest when it is asked again, and
    nothing twice."""
    bucket.mkdir()
    for i in range(1500):
        (bucket / f"key-{i:04}").write_bytes(str(i).encode())
    node = start()
    assert node.ctl("cloud", "import", "--no-wait").returncode == 0
    wait_for(lambda: node.stats()["objects"]["count"] > 20, "it is under way")
    node.kill()
    node.start()
    before = node.stats()["objects"]["count"]
    assert before < 1500
    done = cloud_import(node)
    assert done["adopted"] == 1500 - before and done["known"] == before
    assert node.stats()["objects"]["count"] == 1500


def test_an_import_can_be_cancelled_and_only_one_runs(start, bucket):
    """Goal: a second one is refused while one runs; a cancelled one ends and says so."""
    bucket.mkdir()
    for i in range(3000):
        (bucket / f"key-{i:04}").write_bytes(b"x")
    node = start()
    assert node.ctl("cloud", "import", "--no-wait").returncode == 0
    assert node.ctl("cloud", "import").returncode == 76
    assert node.ctl("cloud", "import", "--cancel").returncode == 0
    wait_for(lambda: node.ctl("cloud", "import", "--dry-run").returncode == 0, "another one may begin")
    assert node.stats()["objects"]["count"] < 3000


def test_what_contradicts_itself_is_refused_and_named(start, bucket):
    """Goal: an object whose bytes were changed behind its metadata is not adopted as if it were whole."""
    node = start()
    object_id = put(node, b"right bytes", ONE)
    wipe(node)
    path = bucket / object_id
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"size":"11"', b'"size":"12"'))  # the checksum no longer fits
    done = node.ctl("cloud", "import")
    assert done.returncode == 1 and object_id in done.stderr, done
    assert summary(done.stderr)["refused"] == 1
    assert node.http.get(object_id).status == 404


def test_keys_that_would_steer_a_terminal_do_not(start, bucket):
    """Goal: what others called their objects is shown without control characters."""
    node = start()
    object_id = put(node, b"right bytes", ONE)
    wipe(node)
    data = (bucket / object_id).read_bytes()
    (bucket / object_id).unlink()
    (bucket / "a%1B[31mred%07").write_bytes(data.replace(b'"size":"11"', b'"size":"12"'))
    done = node.ctl("cloud", "import")
    assert done.returncode == 1 and "not adopted: a?[31mred?" in done.stderr, done
    assert "\x1b" not in done.stderr and "\x07" not in done.stderr


# ---- Figures ----


def test_figures_say_what_was_asked_and_what_was_saved(start, bucket):
    """Goal: stats count requests, bytes and the outbox; what clients got and did not come from the cloud is
    saved, and costs --egress-price; what is of level 0 does not count."""
    node = start("--egress-price", "0.5")
    body = noise(1 << 20)
    object_id = put(node, body)
    local = put(node, body[:1000], {})
    for _ in range(3):
        assert node.http.get(object_id).status == 200
    assert node.http.get(object_id, {"Range": "bytes=0-99"}).status == 206
    assert node.http.get(local).status == 200
    cloud = node.stats()["cloud"]
    assert cloud["backend"] == "dir" and cloud["bucket"] == str(bucket) and cloud["state"] == "closed"
    assert cloud["requests"]["put"] == {"answered": 1, "failed": 0}
    assert cloud["bytes_up"] == len(body) and cloud["uploads"] == 1
    egress = cloud["egress"]
    assert egress["served_bytes"] == 3 * len(body) + 100 and egress["fetched_bytes"] == 0
    assert egress["saved_bytes"] == egress["served_bytes"] and egress["price"] == "0.5"
    assert egress["saved_estimate"] == pytest.approx(egress["saved_bytes"] / 1e9 * 0.5, abs=1e-6)
    wipe(node)
    assert node.http.get(object_id, {"X-Meta-Fetch": "1"}).body == body
    egress = node.stats()["cloud"]["egress"]
    assert egress["fetched_bytes"] == egress["served_bytes"] == len(body) and egress["saved_bytes"] == 0
    hidden = bucket.with_name("away")
    bucket.rename(hidden)
    put(node, b"owed", status=(202,), **{"X-Meta-Timeout": "0"})
    wait_for(lambda: node.stats()["cloud"]["outbox"]["oldest_s"] >= 1, "its age shows")
    cloud = node.stats()["cloud"]
    assert cloud["outbox"]["pending"] == 1 and cloud["outbox"]["bytes"] == 4
    wait_for(lambda: node.stats()["cloud"]["state"] != "closed", "the breaker opens")
    hidden.rename(bucket)
    wait_for(lambda: node.stats()["cloud"]["outbox"] == {"pending": 0, "bytes": 0, "oldest_s": 0}, "it is there")
    wait_for(lambda: node.stats()["cloud"]["state"] == "closed", "the breaker closes")
