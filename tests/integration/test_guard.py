"""Protected mode: who may do what while there is no access control, from a network of its own where
the client's address is not loopback."""

import json

import pytest

import wire
from harness import ulid

OUTSIDE = "10.99.0.1"


@pytest.fixture(scope="module")
def network(shared):
    try:
        return shared.namespace("net")
    except OSError as error:
        pytest.skip(f"no network namespace here: {error}")


def stranger(node, method, path, *more):
    """Ask through an address that is not loopback: status, code."""
    done = node.namespace.run(["curl", "-s", "-X", method, "-w", "\n%{http_code}", *more,
                               f"http://{OUTSIDE}:{node.port}{path}"])
    assert done.returncode == 0, done
    body, status = done.stdout.rsplit("\n", 1)
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        code = None
    return int(status), code, body


def local(node, *arguments):
    return node.namespace.run(["curl", "-s", *arguments]).stdout


READS = [("GET", "/api/v1/get/{id}"), ("GET", "/api/v1/meta/{id}"), ("GET", "/api/v1/id"),
         ("GET", "/api/v1/ping"), ("GET", "/api/v1/version"), ("GET", "/api/v1/stats"), ("GET", "/metrics")]
WRITES = [("POST", "/api/v1/put"), ("PUT", "/api/v1/put"), ("POST", "/api/v1/meta/{id}"),
          ("POST", "/api/v1/delete/{id}"), ("DELETE", "/api/v1/delete/{id}")]


@pytest.mark.parametrize("anonymous,reads,writes", [(None, 403, 403), ("none", 403, 403), ("read", 200, 403),
                                                    ("write", 200, 200)])
def test_strangers(nodes, network, anonymous, reads, writes):
    """A client beyond this machine may do what --anonymous says, and nothing more; liveness is for
    all; a client on this machine may do everything."""
    options = ["--anonymous", anonymous] if anonymous else []
    node = nodes.start(*options, namespace=network, public="0.0.0.0")
    document = json.loads(local(node, "--data-binary", "mine", f"{node.url}/api/v1/put"))
    for method, path in READS:
        status, code, body = stranger(node, method, path.format(id=document["id"]))
        assert (status, code) == (reads, "no_access_control" if reads == 403 else None), path
        if reads == 403:
            assert "--anonymous" in body
    for method, path in WRITES:
        status, code, body = stranger(node, method, path.format(id=document["id"]))
        assert status == writes, (path, body)
        assert code == ("no_access_control" if writes == 403 else None)
    for path in ("/healthz", "/readyz"):
        assert stranger(node, "GET", path)[0] == 200
    got = local(node, f"{node.url}/api/v1/get/{document['id']}")
    assert got == "mine" if writes == 403 else "deleted" in got
    stats = json.loads(local(node, f"{node.url}/api/v1/stats"))
    assert stats["journal"]["events"] == (1 if writes == 403 else stats["journal"]["events"])


def test_a_refused_stranger_cannot_make_us_read_a_body(nodes, network):
    """A stranger's upload is refused from its header, without waiting for the body."""
    node = nodes.start(namespace=network, public="0.0.0.0")
    done = network.run(["curl", "-s", "-w", "%{http_code}", "-o", "/dev/null", "-T", "/dev/zero", "--max-time", "30",
                        f"http://{OUTSIDE}:{node.port}/api/v1/put"])
    assert done.stdout == "403"
    assert not node.temporaries()


SITES = [("cross-site", True), ("Cross-Site", True), ("same-origin", False), ("same-site", False),
         ("none", False), (None, False)]


@pytest.mark.parametrize("site,refused", SITES)
def test_cross_site_requests(node, http, site, refused):
    """A page of another site may not change anything, even from a browser on this machine; reading
    is as before."""
    headers = {"Sec-Fetch-Site": site} if site else {}
    object_id = http.stored(b"kept")["id"]
    fresh = ulid()
    before = node.facts()
    for method, path in (("POST", "/api/v1/put"), ("PUT", "/api/v1/put"),
                         ("POST", f"/api/v1/meta/{object_id}")):
        reply = http.request(method, path, {**headers, "X-Meta-Name": "n"}, b"")
        assert reply.status == (403 if refused else 200), (path, reply)
        if refused:
            assert reply.code() == "cross_site"
    reply = http.delete(fresh, headers)
    assert reply.status == (403 if refused else 200)
    assert http.get(object_id, headers).body == b"kept"
    assert (node.facts() == before) is refused


def test_a_cross_site_upload_is_not_read(node, http):
    """Refused from its header: a page cannot fill the disk, either."""
    with node.unchanged(), wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {"Sec-Fetch-Site": "cross-site"}, 1 << 30))
        assert connection.read().status == 403
