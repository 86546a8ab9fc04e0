"""A cluster as its operator sees it: options that bring nodes together, refusals to start, figures,
the debug door, objctl cluster, make cluster."""

import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import time

import pytest

from harness import OBJCTL, OBJSTORE, PATIENCE_S, TOP, clean_environment, free_port, run, sha256, ulid, wait_for

OUTSIDE = "10.99.0.1"
LISTENS = re.compile(r"cluster: listening on (\S+)$", re.MULTILINE)
DEBUGS = re.compile(r"private API: listening on (\S+)$", re.MULTILINE)


def one_line(log):
    """The refusal: exactly one line of the log is an error, and it is returned."""
    lines = [line for line in log.splitlines() if " ERROR " in line or line.startswith("objstore: ")]
    assert len(lines) == 1, log
    return lines[0]


def private(node):
    return LISTENS.search(node.log())[1]


def debug_url(node):
    return f"http://{DEBUGS.search(node.log())[1]}/private/v1"


def curl(*arguments):
    done = run(["curl", "-s", "-S", *arguments])
    assert done.returncode == 0, done
    return done.stdout


def cluster_of(node):
    return node.stats()["cluster"]


def together(*nodes):
    """Wait until each of NODES sees all of them, and their facts are the same."""
    def agreed():
        for node in nodes:
            cluster = cluster_of(node)
            if (cluster["health"], cluster["joined"], cluster["alive"], cluster["unequal"]) != \
                    ("good", len(nodes), len(nodes), 0):
                return False
        return len({node.stats()["journal"]["digest"] for node in nodes}) == 1
    wait_for(agreed, f"{len(nodes)} nodes to come together")


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text(run([OBJCTL, "cluster", "secret"]).stdout)
    path.chmod(0o600)
    return path


# ---- Coming together ----


def test_two_nodes(nodes, secret):
    """A node joins with one address and the secret; stats, metrics, readyz, objctl and the debug door
    of both tell of both; when one is killed the other says so."""
    first = nodes.start("--cluster-secret-file", secret, "--debug-addr", ":0")
    assert cluster_of(first)["health"] == "alone"
    second = nodes.start("--cluster-secret-file", secret, "--debug-addr", ":0", "-N", private(first))
    together(first, second)
    assert first.stats()["node"]["id"] != second.stats()["node"]["id"]
    for node, other in ((first, second), (second, first)):
        ids = {n.stats()["node"]["id"]: private(n) for n in (node, other)}
        members = cluster_of(node)["members"]
        assert {m["id"]: m["addr"] for m in members} == ids
        assert [m["self"] for m in members].count(True) == 1
        assert all(m["state"] == "alive" and m["joined"] and m["feature"] >= 1 for m in members)
        other_member = next(m for m in members if not m["self"])
        assert other_member["id"] == other.stats()["node"]["id"]
        wait_for(lambda: next(m for m in cluster_of(node)["members"] if not m["self"])["rtt_ms"] is not None,
                 "a round trip to be measured")
        assert node.http.request("GET", "/readyz").json()["cluster"] == "good"
        metrics = node.http.request("GET", "/metrics").body.decode()
        assert 'objstore_cluster_members{state="alive"} 2\n' in metrics
        assert f'objstore_cluster_member_info{{id="{other_member["id"]}",addr="{private(other)}"' in metrics
        listed = json.loads(curl(f"{debug_url(node)}/nodes"))
        assert {n["id"]: n["addr"] for n in listed} == ids and all(n["vaddr"] == n["id"] for n in listed)
        assert curl(f"{debug_url(node)}/ping") == node.stats()["node"]["id"]
        table = node.ctl("cluster")
        assert table.returncode == 0 and table.stderr == ""
        assert table.stdout.startswith("health good; 2 belong to it, 2 answer\nfeature level 1\n")
        rows = [line.split() for line in table.stdout.splitlines()[4:]]
        assert {row[0]: row[2] for row in rows} == ids and {row[1] for row in rows} == {"alive"}
        assert sorted(row[-1] for row in rows) == ["equal", "node"]
        assert re.search(rf"^  {other_member['id']} +alive {private(other)}$", node.ctl("stats").stdout, re.M)
    first.http.stored(b"known to both")
    together(first, second)
    assert second.stats()["sync"]["events_in"] >= 1 and first.stats()["sync"]["events_out"] >= 1

    second.kill()
    wait_for(lambda: cluster_of(first)["health"] == "bad", "the loss to show in health")
    lost = wait_for(lambda: next((m for m in cluster_of(first)["members"] if m["state"] == "failed"), None),
                    "the lost node to count as failed")
    assert not lost["self"] and lost["joined"]
    assert first.http.request("GET", "/readyz").status == 200
    assert first.http.request("GET", "/readyz").json()["cluster"] == "bad"


def test_a_node_that_stops_has_left(nodes):
    """One that ends in order is not taken for failed, and is back when it starts again."""
    first = nodes.start()
    second = nodes.start("-N", private(first))
    together(first, second)
    second.stop()
    wait_for(lambda: "left" in [m["state"] for m in cluster_of(first)["members"]], "it to have left")
    second.start()
    together(first, second)


def test_the_secret_stays_secret(nodes, secret):
    """Neither the log nor what the node says of itself has any of it."""
    node = nodes.start("--cluster-secret-file", secret, "-d", "1")
    text = secret.read_text().strip()
    assert len(text) >= 43
    for shown in (node.log(), json.dumps(node.stats()), node.http.request("GET", "/metrics").body.decode()):
        assert text not in shown
    assert "without --cluster-secret-file" not in node.log()


def test_another_secret(nodes, secret, tmp_path):
    """Who holds another secret does not get in, and disturbs nobody."""
    other = tmp_path / "other"
    other.write_text(run([OBJCTL, "cluster", "secret"]).stdout)
    other.chmod(0o600)
    first = nodes.start("--cluster-secret-file", secret)
    stranger = nodes.start("--cluster-secret-file", other, "-N", private(first))
    friend = nodes.start("--cluster-secret-file", secret, "-N", private(first))
    together(first, friend)
    assert cluster_of(stranger)["joined"] == 1
    assert {m["id"] for m in cluster_of(first)["members"]}.isdisjoint({stranger.stats()["node"]["id"]})
    wait_for(lambda: f"{private(first)} lets nobody in without its secret" in stranger.log()
             and "connections were not let in" in first.log(), "both to say why")
    assert wait_for(lambda: first.stats()["link"]["refused"], "refusals to be counted") > 0
    assert friend.stats()["link"]["refused"] == 0


def test_a_seed_that_comes_later(nodes):
    """A node waits for its seeds, says so, serves meanwhile, and joins when one is there; itself in
    the list is no harm."""
    own, later = free_port(), free_port()
    node = nodes.start("--private-addr", f"127.0.0.1:{own}", "-N", f"127.0.0.1:{own},127.0.0.1:{later}")
    wait_for(lambda: f"nobody answers at 127.0.0.1:{later}" in node.log(), "the missing seed to be told")
    node.http.stored(b"alone so far")
    assert cluster_of(node)["health"] == "alone"
    together(node, nodes.start("--private-addr", f"127.0.0.1:{later}"))


# ---- Refusing to start ----


def test_private_port_in_use(nodes):
    """69, the address named, nothing half-created."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node = nodes.make()
        code, log = node.fails("--private-addr", address)
    assert code == 69 and address in one_line(log)
    assert not node.state.exists() and not node.files.exists()


def test_debug_port_in_use(nodes):
    """The same for the debug door."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node = nodes.make()
        code, log = node.fails("--debug-addr", address.removeprefix("127.0.0.1"))
    assert code == 69 and address in one_line(log)
    assert not node.state.exists() and not node.files.exists()


@pytest.mark.parametrize("text,mode,says", [
    (None, 0, "secret"), ("", 0o600, "secret"), ("short\n", 0o600, "16"), ("long enough, a secret\n", 0o644, "secret"),
    ("long enough, the first\n" * 3, 0o600, "line")])
def test_secrets_that_are_none(nodes, tmp_path, text, mode, says):
    """A secret's file that is missing, malformed or open to others: 78, the file named, and none of
    its text."""
    path = tmp_path / "the-secret"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    node = nodes.make()
    code, log = node.fails("--cluster-secret-file", path)
    assert code == 78 and str(path) in one_line(log) and says in one_line(log), log
    assert "enough" not in log
    assert not node.state.exists() and not node.files.exists()


def test_beyond_this_machine_without_a_secret(nodes):
    """An address that others could reach needs a secret: 78. Every address means loopback then."""
    node = nodes.make()
    code, log = node.fails("--private-addr", "192.0.2.1:0")
    assert code == 78 and "192.0.2.1" in one_line(log)
    node = nodes.start("--private-addr", "0.0.0.0:0")
    assert private(node).startswith("127.0.0.1:") and "nodes on this machine alone" in node.log()


def test_an_address_by_name(nodes):
    """Names and a port alone do for --private-addr; a name that is nobody's is 78."""
    assert private(nodes.start("--private-addr", "localhost:0")).rsplit(":", 1)[0] in ("127.0.0.1", "[::1]")
    assert private(nodes.start("--private-addr", ":0")).startswith("127.0.0.1:")
    code, log = nodes.make().fails("--private-addr", "no-such-host.invalid:1")
    assert code == 78 and "no-such-host.invalid" in one_line(log)


@pytest.mark.parametrize("listens", ["0.0.0.0:0", "localhost:0"])
def test_localhost_with_two_addresses(nodes, listens):
    """Most machines' localhost is ::1 first, but a node listens on 127.0.0.1: -N localhost finds it."""
    try:
        space = nodes.namespace("mount")
    except OSError as error:
        pytest.skip(f"no mount namespace here: {error}")
    hosts = nodes.base / "hosts"
    hosts.write_text("::1 localhost\n127.0.0.1 localhost\n")
    done = space.run(["mount", "--bind", hosts, "/etc/hosts"])
    if done.returncode != 0:
        pytest.skip(f"no mount here: {done.stderr}")
    first = nodes.start("--private-addr", listens, namespace=space)
    port = private(first).rsplit(":", 1)[1]
    second = nodes.start("--private-addr", listens, "-N", f"localhost:{port}", namespace=space)
    together(first, second)


# ---- The debug door ----


def test_the_debug_door(nodes, tmp_path):
    """The ancestor's private paths with curl; without --debug-addr there is no such door."""
    node = nodes.start("--debug-addr", ":0")
    (tmp_path / "file").write_bytes(b"private " * 100000)
    url, object_id = debug_url(node), ulid()
    document = json.loads(curl("-T", tmp_path / "file", "-H", f"X-Meta-ID: {object_id}", f"{url}/put"))
    assert document["sha256"] == sha256(b"private " * 100000)
    assert curl(f"{url}/get/{object_id}") == "private " * 100000
    assert node.http.get(object_id).body == b"private " * 100000
    assert json.loads(curl("-X", "POST", f"{url}/delete/{object_id}"))["is_deleted"]
    assert node.http.get(object_id).status == 404
    assert node.http.request("GET", "/private/v1/ping").status == 404
    assert "private API" not in nodes.start().log()


@pytest.mark.parametrize("host,answers", [("", False), ("127.0.0.1", False), ("0.0.0.0", True)])
def test_the_debug_door_and_strangers(nodes, host, answers):
    """It is there for this machine alone, unless an address says otherwise; then the log warns."""
    try:
        network = nodes.namespace("net")
    except OSError as error:
        pytest.skip(f"no network namespace here: {error}")
    node = nodes.start("--debug-addr", f"{host}:0", namespace=network)
    port = DEBUGS.search(node.log())[1].rsplit(":", 1)[1]
    inside = network.run(["curl", "-s", f"http://127.0.0.1:{port}/private/v1/ping"])
    assert inside.returncode == 0 and len(inside.stdout) == 26
    outside = network.run(["curl", "-s", f"http://{OUTSIDE}:{port}/private/v1/ping"])
    assert (outside.stdout == inside.stdout) == answers and (outside.returncode == 0) == answers
    assert ("whoever reaches" in node.log()) == answers


# ---- objctl cluster ----


def test_secrets_are_new_ones():
    """Each is another, good as it is for a file, and needs no node."""
    made = [run([OBJCTL, "cluster", "secret"], env={"OBJSTORE_ADDR": "127.0.0.1:1"}) for _ in range(3)]
    assert all(done.returncode == 0 and re.fullmatch(r"[\w-]{43}\n", done.stdout) for done in made)
    assert len({done.stdout for done in made}) == 3


def test_watching(nodes):
    """On a terminal the table comes again, also after the node was away; elsewhere it comes once."""
    node = nodes.start()
    done = node.ctl("cluster", "watch")
    assert done.returncode == 0 and done.stdout.startswith("health alone; 1 belong to it, 1 answer\n")
    assert "\033" not in done.stdout and "facts in" not in done.stdout

    master, slave = pty.openpty()
    env = clean_environment({"OBJSTORE_ADDR": f"127.0.0.1:{node.port}", "TERM": "xterm"})
    process = subprocess.Popen([OBJCTL, "cluster", "watch"], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
                               env=env)
    os.close(slave)
    shown = b""

    def until(condition, what):
        nonlocal shown
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end and process.poll() is None, (what, shown)
            if select.select([master], [], [], 0.1)[0]:
                shown += os.read(master, 65536)

    until(lambda: shown.count(b"health alone") >= 2, "two looks")
    assert b"facts in" in shown and b"bodies out" in shown
    node.stop()
    until(lambda: b"objctl: " in shown, "the node's absence to be told")
    seen = shown.count(b"health alone")
    node.start()
    until(lambda: shown.count(b"health alone") > seen, "a look at the node that is back")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == -signal.SIGINT
    os.close(master)


# ---- make cluster ----


def test_make_cluster(nodes, tmp_path):
    """Three nodes come together, the tour that is printed works, and Ctrl-C leaves nothing."""
    try:
        network = nodes.namespace("net")
    except OSError as error:
        pytest.skip(f"no network namespace here: {error}")
    log = tmp_path / "log"
    with open(log, "wb") as out:
        process = subprocess.Popen([*network.enter(), "setpriv", "--pdeathsig", "TERM", TOP / "scripts" / "cluster.sh",
                                    pathlib.Path(OBJSTORE).parent], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=out, env=clean_environment(), start_new_session=True)
    try:
        wait_for(lambda: "cluster watch" in log.read_text() or process.poll() is not None, "the tour to be printed")
        text = log.read_text()
        assert text.startswith("health good; 3 belong to it, 3 answer\n"), text
        tour = re.findall(r"^  # .*\n((?:  .+\n)+)", text, re.MULTILINE)[:3]
        object_id = "x"
        for block, shows in zip(tour, ("It works!", "X-Meta-Symlink: true", "X-Meta-Deleted: true"), strict=True):
            head, last = block.strip().rsplit("\n", 1)
            done = network.run(["bash", "-e", "-c", f"id={object_id}\n{head}\necho; echo id=$id"], cwd=tmp_path)
            assert done.returncode == 0, done
            object_id = re.findall(r"^id=(.*)", done.stdout, re.MULTILINE)[-1]
            # Facts reach the other nodes within moments, but after the answer.
            ask = ["bash", "-c", f"id={object_id}\n{last} 2>&1"]
            wait_for(lambda: shows in network.run(ask).stdout, f"{last.strip()} to show {shows}")
        pids = [int(pid) for pid in re.findall(r"process (\d+)", "".join(
            path.read_text() for path in tmp_path.glob("run/cluster-*/log")))]
        assert len(pids) == 3
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(PATIENCE_S) == 0, log.read_text()
        assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)
        for number in (1, 2, 3):
            assert "stopped" in (tmp_path / f"run/cluster-{number}/log").read_text()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_S)
