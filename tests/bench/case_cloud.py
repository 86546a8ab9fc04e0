"""What the cloud costs through a node, beside the same S3 server asked directly: versitygw, on this
machine and its disk."""

import contextlib
import hashlib
import http.client
import json
import subprocess
import time
import urllib.parse

from peers import OBJCTL, peers, wait_alive, wait_equal, wait_until
from report import median
from servers import Versitygw
from tools import BUILD, LIMIT_S, Failed, load, load_command, measured

KIB = 1 << 10
MIB = 1 << 20
GB = 10**9
BLOCK = 8 * MIB
BUCKET = "bench"
DRAIN_CONNECTIONS = 16  # as many uploads of small bodies as a node has under way


@contextlib.contextmanager
def s3(ctx):
    server = Versitygw(ctx.data)
    try:
        server.start()
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        server.remove()


def node_options(server):
    return ("--cloud", "s3", "--bucket", BUCKET, "--region", "us-east-1", "--s3-endpoint", server.url,
            "--s3-path-style")


def imported(node):
    """The node knows what is in the bucket: ids by name."""
    done = subprocess.run([OBJCTL, "cloud", "import", "--state-dir", node.base / "state"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=LIMIT_S)
    if done.returncode:
        raise Failed(f"import: {done.stderr}")


def get(port, path, headers=()):
    """One GET on a connection of its own: seconds to the first byte of the body, to its end, bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        begun = time.monotonic()
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        if answer.status not in (200, 206):
            raise Failed(f"GET {path}: {answer.status} {answer.read(300)}")
        size = len(answer.read(1))
        first = time.monotonic() - begun
        while data := answer.read(MIB):
            size += len(data)
        return {"first_s": first, "seconds": time.monotonic() - begun, "bytes": size}
    finally:
        connection.close()


def direct(server, key, headers=()):
    """The same from the server itself, by a signed URL."""
    url = urllib.parse.urlsplit(server.client().generate_presigned_url(
        "get_object", Params={"Bucket": BUCKET, "Key": key}))
    return get(server.port, f"{url.path}?{url.query}", headers)


def put_through(node, body, object_id):
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
    begun = time.monotonic()
    connection.request("POST", "/api/v1/put", body, {"X-Meta-ID": object_id, "X-Meta-ConsistencyLevel": "1",
                                                     "X-Meta-Timeout": "60"})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise Failed(f"a level-1 put: {answer.status} {said[:300]}")
    connection.close()
    return time.monotonic() - begun


def fresh_id(node):
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
    connection.request("GET", "/api/v1/id")
    return connection.getresponse().read().decode().strip().strip('"')


def put(ctx):
    """A level-1 put waits for the cloud, and for this node's disk."""
    ctx.report.heading("level-1 put of 16 MiB, beside boto3 to the same server")
    body = bytes(range(256)) * (16 * MIB // 256)
    ours, theirs = [], []
    with s3(ctx) as server, ctx.node("put", *node_options(server)) as node:
        client = server.client()
        for i in range(ctx.pick(6, 20) + 1):
            seconds = put_through(node, body, fresh_id(node))
            begun = time.monotonic()
            client.put_object(Bucket=BUCKET, Key=f"beside-{i}", Body=body)
            if i:  # both have their connections by then
                ours.append({"seconds": seconds})
                theirs.append({"seconds": time.monotonic() - begun})
        ctx.report.keep("cloud-put: node", ours)
        ctx.report.keep("cloud-put: boto3", theirs)
        ctx.report.note("  seconds", node=median(ours, "seconds"), boto3=median(theirs, "seconds"))
        ctx.report.at_most("level-1 put of 16 MiB: time / boto3's", 1.3,
                           median(ours, "seconds") / median(theirs, "seconds"), "x")
        ctx.report.note("  peak RssAnon", MiB=node.memory()["RssAnon"] / MIB)


def cold(ctx):
    ctx.report.heading("cold GET of 16 MiB through a node, beside the server itself")
    body = bytes(range(256)) * (16 * MIB // 256)
    count = ctx.pick(6, 20)
    with s3(ctx) as server:
        with ctx.node("writer", *node_options(server)) as writer:
            ids = [fresh_id(writer) for _ in range(count)]
            for object_id in ids:
                put_through(writer, body, object_id)
        with ctx.node("reader", *node_options(server)) as node:
            imported(node)
            direct(server, ids[0])
            found = {"node": [], "server": [], "again": []}
            for object_id in ids:
                found["server"].append(direct(server, object_id))
                found["node"].append(get(node.port, f"/api/v1/get/{object_id}"))
                found["again"].append(get(node.port, f"/api/v1/get/{object_id}"))
            if any(r["bytes"] != len(body) for rounds in found.values() for r in rounds):
                raise Failed("a body of another size")
            for name, rounds in found.items():
                middle = ctx.report.keep(f"cloud-cold: {name}", rounds)
                ctx.report.note(f"  {name}: ms", first=middle["first_s"] * 1e3, all=middle["seconds"] * 1e3)
            ctx.report.at_most("cold GET of 16 MiB: time / the server's", 1.15,
                               median(found["node"], "seconds") / median(found["server"], "seconds"), "x")
            ctx.report.at_most("its first byte: ms after the server's", 10,
                               (median(found["node"], "first_s") - median(found["server"], "first_s")) * 1e3,
                               "ms")
            ctx.report.note("  peak RssAnon", MiB=node.memory()["RssAnon"] / MIB)


def _sha256_of_zeros(size):
    digest, zeros = hashlib.sha256(), bytes(MIB)
    for at in range(0, size, MIB):
        digest.update(zeros[:min(MIB, size - at)])
    return digest.hexdigest()


def range_of_huge(ctx):
    """100 bytes of an object of 10 GB that the node never had."""
    ctx.report.heading("100 bytes of a cold object of 10 GB")
    with s3(ctx) as server:
        found = {"node": [], "server": []}
        with ctx.node("range", *node_options(server)) as node:
            ids = [fresh_id(node) for _ in range(ctx.pick(3, 7))]
            sha256 = _sha256_of_zeros(10 * GB)
            for object_id in ids:
                server.sparse(BUCKET, object_id, 10 * GB, {"sha256": sha256})
            imported(node)
            direct(server, ids[0], [("Range", "bytes=0-99")])
            for i, object_id in enumerate(ids):
                at = 7 * GB + i * 123456789
                wanted = [("Range", f"bytes={at}-{at + 99}")]
                before = node.stats()["cloud"]["bytes_down"]
                found["server"].append(direct(server, object_id, wanted))
                found["node"].append(get(node.port, f"/api/v1/get/{object_id}", wanted))
                found["node"][-1]["fetched"] = node.stats()["cloud"]["bytes_down"] - before
            for name, rounds in found.items():
                ctx.report.keep(f"cloud-range: {name}", rounds)
            ctx.report.note("  ms", node=median(found["node"], "seconds") * 1e3,
                            server=median(found["server"], "seconds") * 1e3)
            ctx.report.at_most("100 bytes of 10 GB: ms after the server's", 15,
                               (median(found["node"], "seconds") - median(found["server"], "seconds")) * 1e3,
                               "ms")
            ctx.report.at_most("bytes fetched for them", 2 * BLOCK,
                               max(r["fetched"] for r in found["node"]), "bytes")


def crowd(ctx):
    """Many clients of three nodes ask for one object that none of them has."""
    clients = ctx.pick(150, 1000)
    ctx.report.heading(f"{clients:,} clients of three nodes ask for one cold object of 16 MiB")
    body = bytes(range(256)) * (16 * MIB // 256)
    with s3(ctx) as server:
        with ctx.node("writer", *node_options(server)) as writer:
            object_id = fresh_id(writer)
            put_through(writer, body, object_id)
        with peers(ctx) as make:
            first = make("a", options=node_options(server))
            first.start()
            others = [make(name, first, options=node_options(server)) for name in ("b", "c")]
            for node in others:
                node.start()
            wait_alive(first, *others)
            imported(first)
            wait_equal(first, *others)
            ids = ctx.data / "crowd-ids"
            ids.write_text(object_id + "\n")
            before = server.count("GetObject", object_id)
            each = -(-clients // 3)
            runs = [subprocess.Popen(load_command(node, "get", read_ids=ids, hot=1, connections=each, count=each),
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
                    for node in (first, *others)]
            said = [json.loads(run.communicate(timeout=LIMIT_S)[0]) for run in runs]
            if any(s["errors"] for s in said):
                raise Failed(f"{[s['errors'] for s in said]} answers were errors")
            ctx.report.note("  ms", **{f"p50 of node {i + 1}": s["p50_us"] / 1e3 for i, s in enumerate(said)})
            ctx.report.at_most("GETs at the server", 1, server.count("GetObject", object_id) - before)
            ctx.report.note("  peak RssAnon, MiB",
                            **{node.base.name: node.memory()["RssAnon"] / MIB for node in (first, *others)})


_WRK_UPLOAD = """
local paths = {{}}
for line in io.lines("{paths}") do paths[#paths + 1] = line end
local body, at = string.rep("x", {size}), 0
function request()
    at = at % #paths + 1
    return wrk.format("PUT", paths[at], nil, body)
end
done = function(summary)
    local errors = summary.errors
    print(string.format('{{"requests": %d, "errors": %d, "seconds": %.6f, "bytes": %d}}', summary.requests,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        summary.duration / 1e6, summary.bytes))
end
"""


def _best_client(ctx, server, count):
    """Signed beforehand, so that the client has nothing to do but to send."""
    client = server.client()
    paths = ctx.data / "paths"
    with open(paths, "w") as out:
        for i in range(count):
            url = urllib.parse.urlsplit(client.generate_presigned_url(
                "put_object", Params={"Bucket": BUCKET, "Key": f"best-{i}"}, ExpiresIn=3600))
            out.write(f"{url.path}?{url.query}\n")
    script = BUILD / "wrk-upload.lua"
    script.write_text(_WRK_UPLOAD.format(paths=paths, size=KIB))
    return measured(["wrk", "-t", 1, "-c", DRAIN_CONNECTIONS, "-d", f"{ctx.pick(3, 10)}s", "--timeout", "10s", "-s", script,
                     server.url], server, put_bytes=KIB)


def drain(ctx):
    """What was written while the cloud was away goes up once it is back."""
    count = ctx.pick(5000, 100000)
    ctx.report.heading(f"uploads of {count:,} x 1 KiB that are owed")
    with s3(ctx) as server:
        best = _best_client(ctx, server, ctx.pick(3000, 20000))
        with ctx.node("drain", *node_options(server)) as node:
            server.stop()
            load(node, "put", size=KIB, count=count, connections=64, full=True)
            server.start()
            wait_until(lambda: node.stats()["cloud"]["outbox"]["pending"] < count, "the first upload", LIMIT_S)
            begun, owed = time.monotonic(), node.stats()["cloud"]["outbox"]["pending"]
            used = node.cpu_ns()
            wait_until(lambda: node.stats()["cloud"]["outbox"]["pending"] == 0, "all uploads", LIMIT_S)
            seconds = time.monotonic() - begun
            ctx.report.note("  a second", node=owed / seconds, best_client=best["per_s"])
            ctx.report.note("  CPU an upload at the node, us", cpu=(node.cpu_ns() - used) / owed / 1000)
            ctx.report.at_least("uploads a second / the best client's", 0.7, owed / seconds / best["per_s"], "x")
            ctx.report.note("  peak RssAnon", MiB=node.memory()["RssAnon"] / MIB)
