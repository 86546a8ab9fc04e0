"""The daemon as a process: options, refusals with their exit codes, signals."""

import json
import os
import re
import shutil
import signal
import socket
import stat

import pytest

import wire
from harness import OBJSTORE, noise, run, sha256, ulid, wait_for


def one_line(log):
    """The refusal: exactly one line of the log is an error, and it is returned."""
    lines = [line for line in log.splitlines() if " ERROR " in line or line.startswith("objstore: ")]
    assert len(lines) == 1, log
    return lines[0]


# ---- Settings ----


def test_version_and_help():
    """--version and --help answer on stdout and end with 0."""
    version = run([OBJSTORE, "--version"])
    assert version.returncode == 0 and re.match(r"^objstore \d+\.\d+\.\d+\n$", version.stdout)
    shown = run([OBJSTORE, "--help"])
    assert shown.returncode == 0 and shown.stderr == ""
    for option in ("-d", "-N", "-T", "-R", "-B", "--private-addr", "--debug-addr", "--public-addr",
                   "--state-dir", "--files-dir", "--memory", "--disk-cache", "--range-cache", "--durability", "--max-body", "--anonymous",
                   "--isolated", "--cloud", "--cloud-prefix", "--s3-endpoint", "--s3-path-style", "--s3-ca-file",
                   "--s3-download-concurrency", "--egress-price",
                   "--config", "--log-format", "--scrub-interval", "--version", "--help"):
        assert option in shown.stdout, option
    for variable in ("APP_DEBUG_LEVEL", "APP_CLUSTER_NODES", "APP_CLUSTER_TAGNAME", "NET_PRIVATE_ADDR",
                     "NET_DEBUG_ADDR", "NET_PUBLIC_ADDR", "APP_STATE_DIR", "APP_FILES_DIR",
                     "S3_REGION_NAME", "S3_BUCKET_NAME"):
        assert variable in shown.stdout, variable
    for standard in ("0.0.0.0:11999", "0.0.0.0:10999", "us-east-1", "state/", "files/"):
        assert standard in shown.stdout


@pytest.mark.parametrize("arguments", [
    ["--no-such-option"], ["-z"], ["surplus"], ["--memory", "much"], ["--memory=-1"], ["--memory=1"],
    ["--durability", "maybe"], ["--anonymous", "all"], ["--isolated", "no"], ["--public-addr", "nonsense"],
    ["--public-addr", "127.0.0.1:99999"], ["--max-body", "1.5X"], ["--scrub-interval", "soon"],
    ["--log-format", "xml"], ["--cloud", "ftp"], ["--cloud", "dir:"], ["--s3-endpoint", "nonsense"], ["-d", "7"], ["--memory"], ["-N", "a:b:c"]])
def test_wrong_options(nodes, arguments):
    """A wrong command line: 64, one line or two that say what is wrong, nothing made."""
    node = nodes.make()
    code, log = node.fails(*arguments)
    assert code == 64, log
    # getopt begins its lines with the program as it was called.
    assert 1 <= len(log.splitlines()) <= 2 and re.match(r"(\S*/)?objstore: \S", log), log
    assert not node.state.exists() and not node.files.exists()


def test_wrong_environment(nodes):
    """A wrong value in the environment: 78, and the line names the variable."""
    for name, value in (("OBJSTORE_MEMORY", "much"), ("APP_DEBUG_LEVEL", "loud")):
        node = nodes.make(env={name: value})
        code, log = node.fails()
        assert code == 78 and name in one_line(log)
        assert not node.state.exists()


@pytest.mark.parametrize("text,word", [
    ("no-such-key = 1\n", "no-such-key"), ("memory = much\n", "memory"), ("memory\n", ":1:"),
    ("memory = 32MiB\nbogus = x\n", "bogus"), ("= 1\n", ""), ("memory = 32MiB\nmemory = 16MiB\n", "memory")])
def test_wrong_configuration(nodes, text, word):
    """An unknown or wrong setting in the file: 78, and the line names the file and the setting."""
    node = nodes.make()
    path = node.base / "node.conf"
    path.write_text(text)
    code, log = node.fails("--config", str(path))
    assert code == 78, log
    assert "node.conf" in one_line(log) and word in one_line(log)
    assert not node.state.exists() and not node.files.exists()


def test_a_configuration_that_is_not_there(nodes):
    """A file that was named and cannot be read is an error, not a default."""
    node = nodes.make()
    code, log = node.fails("--config", str(node.base / "nothing.conf"))
    assert code in (64, 78) and "nothing.conf" in one_line(log)


def test_precedence(nodes):
    """Flag before environment before file before default; the ancestor's variables count as ours."""
    path = nodes.base / "node.conf"
    path.write_text("# a comment\nmemory = 16MiB\ntag = from-file\nmax-body = 5MiB\nlog-format = json\n\n")

    def settings(*options, env=None):
        node = nodes.start("--config", str(path), *options, env=env)
        stats = node.stats()
        limit = 5 << 20
        with wire.Connection(node.address) as connection:
            connection.send(wire.head("PUT", "/api/v1/put", {"Expect": "100-continue"}, limit + 1))
            refused = connection.read(until_continue=True).status == 413
        node.stop()
        return stats["memory"]["limit_bytes"] >> 20, stats["node"]["tag"], refused

    assert settings() == (16, "from-file", True)
    env = {"OBJSTORE_MEMORY": "32MiB", "APP_CLUSTER_TAGNAME": "from-env"}
    assert settings(env=env) == (32, "from-env", True)
    assert settings("--memory=8MiB", "-T", "from-flag", "--max-body=0", env=env) == (8, "from-flag", False)
    assert settings(env={"OBJSTORE_TAG": "from-ours"})[1] == "from-ours"


def test_directories_from_the_environment(nodes):
    """The ancestor's variables for address and directories work without a flag."""
    node = nodes.make()
    port = wire.socket.socket()
    port.bind(("127.0.0.1", 0))
    node.port = port.getsockname()[1]
    port.close()
    node.env = {"NET_PUBLIC_ADDR": f"127.0.0.1:{node.port}", "APP_STATE_DIR": str(node.state),
                "APP_FILES_DIR": str(node.files), "NET_PRIVATE_ADDR": "127.0.0.1:0"}
    node.command = lambda *extra: ["setpriv", "--pdeathsig", "KILL", OBJSTORE, *extra]
    node.start()
    assert (node.state / "NODE_ID").exists() and (node.files / "STORE").exists()


def test_the_ancestors_options(nodes):
    """All options of the ancestor are accepted; a bucket that nobody reaches keeps no node from starting."""
    node = nodes.start("-d", "1", "-N", "localhost:11999,10.0.0.2", "-T", "mine", "-R", "eu-west-1", "-B", "a-bucket",
                       "--private-addr", "127.0.0.1:0", "--s3-endpoint", "http://127.0.0.1:9",
                       env={"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"})
    assert node.stats()["node"]["tag"] == "mine"
    assert node.stats()["cloud"]["backend"] == "s3" and node.stats()["cloud"]["bucket"] == "a-bucket"


# ---- Refusing to start ----


def test_address_in_use(nodes):
    """69, the address named, nothing half-created."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        node = nodes.make()
        node.port = taken.getsockname()[1]
        code, log = node.fails()
    assert code == 69 and f"127.0.0.1:{node.port}" in one_line(log)
    assert not node.state.exists() and not node.files.exists()


def test_an_address_that_is_not_ours(nodes):
    """69 as well for an address of another machine."""
    node = nodes.make(public="192.0.2.1")
    code, log = node.fails()
    assert code == 69 and "192.0.2.1" in one_line(log)
    assert not node.state.exists() and not node.files.exists()


@pytest.mark.parametrize("which", ["state", "files"])
def test_a_directory_that_cannot_be_made(nodes, which):
    """73, the path named, and the other directory is not left behind."""
    node = nodes.make()
    blocker = node.base / "file"
    blocker.write_text("not a directory")
    setattr(node, which, blocker / "below")
    code, log = node.fails()
    assert code == 73 and str(blocker) in one_line(log), log
    assert not (node.files if which == "state" else node.state).exists()
    assert blocker.read_text() == "not a directory"


@pytest.mark.parametrize("which", ["state", "files"])
def test_a_directory_without_permission(nodes, which):
    """A directory that this user may not write: 73, the path named."""
    user = 65534 if os.geteuid() == 0 else None
    node, binary = non_root(nodes, user)
    closed = node.base / "closed"
    closed.mkdir(mode=0o500)
    closed.chmod(0o555)
    setattr(node, which, closed / which)
    code, log = node.fails()
    assert code == 73 and str(closed) in one_line(log), log
    assert not (node.files if which == "state" else node.state).exists()


def non_root(nodes, user):
    """A node run by another user where we are root: its base and binary in that user's reach."""
    nodes.base.chmod(0o755)
    binary = nodes.base / "objstore"
    shutil.copy(OBJSTORE, binary)
    binary.chmod(0o755)
    node = nodes.make(binary=str(binary), user=user)
    if user:
        os.chown(node.base / node.name, user, user)
    return node, binary


def test_as_a_user_who_is_not_root(nodes):
    """It works without root, and what it makes belongs to its user alone."""
    node, _ = non_root(nodes, 65534 if os.geteuid() == 0 else None)
    node.start()
    document = node.http.stored(b"mine")
    assert node.http.get(document["id"]).body == b"mine"
    for path in (node.state, node.files, *node.state.iterdir(), *node.files.iterdir()):
        mode = path.stat().st_mode
        assert not mode & (stat.S_IRWXG | stat.S_IRWXO), f"{path} {mode:o}"
    assert stat.S_ISSOCK((node.state / "control.sock").stat().st_mode)


def test_a_second_node_on_the_same_directories(nodes):
    """75 while the first runs, and the first is not disturbed; also where only one is shared."""
    first = nodes.start()
    document = first.http.stored(b"here first")
    for state, files in ((first.state, first.files), (first.state, nodes.base / "x" / "files"),
                         (nodes.base / "x" / "state", first.files)):
        second = nodes.make(state=state, files=files)
        code, log = second.fails()
        assert code == 75, log
        assert str(state) in one_line(log) or str(files) in one_line(log)
    assert not (nodes.base / "x" / "state").exists() and not (nodes.base / "x" / "files").exists()
    assert first.http.get(document["id"]).body == b"here first"
    assert first.restart().http.get(document["id"]).body == b"here first"


def test_directories_of_different_stores(nodes):
    """78, both paths named, and both stores still work with their own."""
    one, two = nodes.start(), nodes.start()
    document = one.http.stored(b"one")
    one.stop()
    two.stop()
    mixed = nodes.make(state=one.state, files=two.files)
    code, log = mixed.fails()
    assert code == 78 and str(one.state) in one_line(log) and str(two.files) in one_line(log)
    swapped = nodes.make(state=one.files, files=one.state)
    code, log = swapped.fails()
    assert code == 78, log
    assert one.start().http.get(document["id"]).body == b"one"
    two.start()


@pytest.mark.parametrize("missing", ["state", "files"])
def test_one_directory_is_missing(nodes, missing):
    """One of the two lost: 78, both named, nothing made anew in its place."""
    node = nodes.start()
    node.http.stored(b"x")
    node.stop()
    shutil.rmtree(getattr(node, missing))
    code, log = node.fails()
    assert code == 78 and str(node.state) in one_line(log) and str(node.files) in one_line(log)
    assert not getattr(node, missing).exists()


def test_accepting_that_the_files_are_lost(nodes):
    """--accept-data-loss starts without the lost files directory: ids and facts stay, bodies say that
    they are not here, and new ones can be put."""
    node = nodes.start()
    document = node.http.stored(b"lost")
    node.stop()
    shutil.rmtree(node.files)
    node.start("--accept-data-loss")
    got = node.http.get(document["id"])
    assert got.status >= 400 and b"lost" != got.body
    meta = node.http.meta(document["id"])
    assert meta.status == 200 and meta.json()["sha256"] == sha256(b"lost")
    assert node.http.put(b"lost", id=document["id"]).status == 200
    assert node.http.get(document["id"]).body == b"lost"
    other = node.http.stored(b"new")
    node.restart()
    assert node.http.get(document["id"]).body == b"lost" and node.http.get(other["id"]).body == b"new"


def test_a_directory_that_is_not_a_store(nodes):
    """A directory with somebody's files in it is left alone: 78."""
    for which in ("state", "files"):
        node = nodes.make()
        path = getattr(node, which)
        path.mkdir(parents=True)
        (path / "precious.txt").write_text("do not touch")
        code, log = node.fails()
        assert code == 78 and str(path) in one_line(log), log
        assert [p.name for p in path.iterdir()] == ["precious.txt"]
        other = node.files if which == "state" else node.state
        assert not other.exists()


def test_both_directories_the_same(nodes):
    """One directory for both: refused, nothing made."""
    node = nodes.make()
    node.files = node.state
    code, log = node.fails()
    assert code in (64, 78), log
    assert not node.state.exists()


def test_a_store_of_a_later_version(nodes):
    """A STORE file with an unknown format version or feature: 78, refused, untouched."""
    node = nodes.start()
    node.stop()
    path = node.files / "STORE"
    good = path.read_bytes()
    path.write_bytes(good[:8] + bytes([good[8] + 1]) + good[9:])
    damaged = path.read_bytes()
    code, log = node.fails()
    assert code in (74, 78) and "STORE" in one_line(log) or str(node.files) in one_line(log)
    assert path.read_bytes() == damaged
    path.write_bytes(good)
    node.start()


# ---- Running and ending ----


def test_restart_keeps_everything(nodes):
    """Stop and start: the node id, every object and tombstone, digest and counters stay."""
    node = nodes.start()
    kept = [(node.http.stored(noise(size, 31), name=f"{size}")["id"], noise(size, 31))
            for size in (0, 1, 1000, 100000, 300000, 2 << 20)]
    gone = node.http.stored(b"gone")["id"]
    node.http.delete(gone)
    before = node.stats()
    node.restart()
    after = node.stats()
    for section, name in (("journal", "digest"), ("journal", "events"), ("node", "id"), ("objects", "count"),
                          ("objects", "bytes"), ("objects", "deleted")):
        assert after[section][name] == before[section][name], name
    for object_id, body in kept:
        assert node.http.get(object_id).body == body
        assert node.http.meta(object_id).json()["name"] == str(len(body))
    assert node.http.get(gone).header("X-Meta-Deleted") == "true"
    assert before["journal"]["position"] <= after["journal"]["position"]


def test_sigterm_drains_an_upload(nodes):
    """An upload under way when SIGTERM comes is finished and answered; no new client is let in."""
    node = nodes.start()
    body, object_id = noise(1 << 20, 41), ulid()
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("PUT", "/api/v1/put", {"X-Meta-ID": object_id}, len(body)) + body[:500000])
        wait_for(lambda: node.stats()["http"]["in_flight"] == 2, "the upload to be under way")
        node.http.close()
        node.signal(signal.SIGTERM)
        wait_for(lambda: "stopping" in node.log() or "SIGTERM" in node.log(), "the node to take the signal")
        assert node.process.poll() is None
        connection.send(body[500000:])
        reply = connection.read()
        assert reply.status == 200 and reply.json()["sha256"] == sha256(body)
        assert reply.header("Connection") == "close" and connection.at_end()
    code, log = node.end_of()
    assert code == 0, log
    assert node.start().http.get(object_id).body == body


def test_sigterm_drains_a_download(nodes):
    """So is a download under way."""
    node = nodes.start()
    body = noise(20 << 20, 42)
    object_id = node.http.stored(body)["id"]
    with wire.Connection(node.address) as connection:
        connection.send(wire.head("GET", f"/api/v1/get/{object_id}"))
        first = connection.stream.read(1000)
        node.http.close()
        node.signal(signal.SIGTERM)
        wait_for(lambda: "SIGTERM" in node.log(), "the node to take the signal")
        rest = connection.read_raw()
    answer = first + rest
    assert answer.split(b"\r\n\r\n", 1)[1] == body
    assert node.end_of()[0] == 0


def test_sigint_ends_as_well(nodes):
    """Ctrl-C in a terminal is a clean stop."""
    node = nodes.start()
    document = node.http.stored(b"x")
    node.http.close()
    node.signal(signal.SIGINT)
    code, log = node.end_of()
    assert code == 0, log
    assert node.start().http.get(document["id"]).body == b"x"


def test_sighup_and_sigpipe_do_nothing(nodes):
    """SIGHUP (a closed terminal) and SIGPIPE do not end it."""
    node = nodes.start()
    node.signal(signal.SIGHUP)
    node.signal(signal.SIGPIPE)
    assert node.http.request("GET", "/readyz").status == 200


def test_idle_connections_do_not_delay_the_end(nodes):
    """Clients that keep connections open cannot hold a stop up."""
    node = nodes.start()
    idle = [wire.Connection(node.address) for _ in range(30)]
    for connection in idle[:15]:
        assert connection.request("GET", "/api/v1/ping").status == 200
    node.http.close()
    import time
    begin = time.monotonic()
    node.signal(signal.SIGTERM)
    code, log = node.end_of()
    assert code == 0, log
    assert time.monotonic() - begin < 20  # the drain's patience is 25 s
    for connection in idle:
        connection.close()


def test_logs(nodes):
    """Logs go to stderr: UTC with milliseconds and a level; as JSON one object a line; -d 1 says
    more."""
    text = nodes.start()
    text.stop()
    for line in text.log().splitlines():
        assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARN|ERROR) +\S", line), line
    assert "node ID: " in text.log()
    as_json = nodes.start("--log-format=json")
    as_json.stop()
    for line in as_json.log().splitlines():
        entry = json.loads(line)
        assert {"time", "level"} <= set(entry), entry
    access = nodes.start("--access-log=yes")
    access.http.request("GET", "/api/v1/version")
    access.stop()
    assert any("access GET /api/v1/version 200" in line for line in access.log().splitlines())
    assert "access GET" not in text.log()


def test_port_zero_is_said(nodes):
    """Port 0 takes a free port and the log says which."""
    node = nodes.make()
    node.port = 0
    node.launch()
    wait_for(lambda: re.search(r"listening on 127\.0\.0\.1:[1-9]\d*", node.log()), "the port in the log")
    port = int(re.search(r"listening on 127\.0\.0\.1:(\d+)", node.log())[1])
    node.port = port
    wait_for(node._ready_or_code, "the node to be ready")


def test_ipv6(nodes):
    """[v6]:port is listened on, and ::1 counts as this machine."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    node = nodes.make(public="[::1]")
    node.port = port
    node.launch()

    def answer():
        try:
            with wire.Connection(("::1", port)) as connection:
                return connection.request("PUT", "/api/v1/put", {}, b"six")
        except OSError:
            return None

    reply = wait_for(lambda: (lambda r: r if r and r.status != 503 else None)(answer()), "an answer on ::1")
    assert reply.status == 200


def test_long_directory_names(nodes):
    """Paths longer than a socket's address has room for work as any others."""
    deep = nodes.base / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    node = nodes.start(state=deep / "state", files=deep / "files")
    document = node.http.stored(b"deep")
    assert node.restart().http.get(document["id"]).body == b"deep"


def test_durability_async_says_so(nodes):
    """--durability=async is told in stats; a clean stop loses nothing."""
    node = nodes.start("--durability=async")
    assert node.stats()["node"]["durability"] == "async"
    ids = [node.http.stored(f"{i}".encode())["id"] for i in range(50)]
    node.restart()
    for number, object_id in enumerate(ids):
        assert node.http.get(object_id).body == f"{number}".encode()


def test_many_connections(nodes):
    """A thousand open connections are served, and counted."""
    node = nodes.start()
    connections = []
    try:
        for _ in range(1000):
            connections.append(wire.Connection(node.address))
        for connection in connections[::10]:
            assert connection.request("GET", "/api/v1/ping").status == 200
        assert node.stats()["http"]["connections"] >= 1000
    finally:
        for connection in connections:
            connection.close()
    wait_for(lambda: node.stats()["http"]["connections"] < 10, "the connections to be gone")


def test_out_of_file_descriptors(nodes):
    """With its descriptors used up a node refuses clients, keeps those it has, and recovers."""
    node = nodes.make()
    plain = node.command
    node.command = lambda *extra: ["prlimit", "--nofile=160:160", *plain(*extra)]
    node.start()
    document = node.http.stored(noise(5000))
    connections = []
    try:
        for _ in range(300):
            try:
                connections.append(wire.Connection(node.address, timeout=20))
            except OSError:
                pass
        assert node.http.get(document["id"]).body == noise(5000)
    finally:
        for connection in connections:
            connection.close()
    wait_for(lambda: node.http.stats()["http"]["connections"] < 10, "the connections to be gone")
    assert wire.Client(node.address).get(document["id"]).body == noise(5000)


def test_control_socket_is_private(nodes):
    """Administration lies on control.sock, mode 0600, and goes with the node."""
    node = nodes.start()
    path = node.state / "control.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    node.stop()
    assert not path.exists()
