"""A real directory tree: put with objctl, the node killed during it and restarted, the rest put, and
all of it read back equal by checksum."""

import concurrent.futures
import hashlib
import os
import pathlib
import signal
import subprocess

import pytest

import harness
import wire


def read_ids(path):
    """What objctl printed: {path: id}."""
    ids = {}
    for line in path.read_bytes().splitlines():
        name, _, rest = line.partition(b"  ")
        assert len(name) == 26, line
        ids[os.fsdecode(rest)] = name.decode()
    return ids


def regular_files(tree):
    found = []
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path) and os.path.isfile(path) and os.access(path, os.R_OK):
                found.append(path)
    return found


def same_bytes(node, ids):
    """How many of IDS read back as the files they were made from."""

    def check(some):
        client = wire.Client(node.address)
        try:
            for path, name in some:
                answer = client.get(name)
                want = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
                assert answer.status == 200, (path, answer.status)
                assert hashlib.sha256(answer.body).hexdigest() == want, path
                assert answer.header("ETag") == f'"{want}"', path
        finally:
            client.close()
        return len(some)

    items = sorted(ids.items())
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return sum(pool.map(check, [items[i::16] for i in range(16)]))


def put_tree_through_a_kill(nodes, tree, kill_at):
    node = nodes.start()
    output = nodes.base / "ids.txt"
    env = harness.clean_environment({"OBJSTORE_ADDR": f"127.0.0.1:{node.port}"})
    with open(output, "wb") as out:
        putting = subprocess.Popen([harness.OBJCTL, "put", "-r", "--retry", "60s", str(tree)],
                                   stdout=out, stderr=subprocess.PIPE, env=env)
        try:
            harness.wait_for(lambda: output.read_bytes().count(b"\n") >= kill_at
                             or putting.poll() is not None, "objctl to be in the middle", 120)
            assert putting.poll() is None, "the tree is too small to be killed in"
            node.kill()
            node.start()
            errors = putting.communicate(timeout=1200)[1].decode(errors="replace")
        finally:
            if putting.poll() is None:
                putting.send_signal(signal.SIGKILL)
                putting.wait()
    ids = read_ids(output)
    missing = [path for path in regular_files(tree) if path not in ids]
    for start in range(0, len(missing), 200):  # names that the first run gave up on
        done = node.ctl("put", "-q", *missing[start:start + 200])
        assert done.returncode == 0, done.stderr
        ids.update(zip(missing[start:start + 200], done.stdout.split()))
    assert same_bytes(node, ids) == len(ids), errors
    assert node.stats()["faults"]["bad_blocks"] == 0
    node.kill()
    node.start()
    assert node.stats()["objects"]["count"] >= len(ids)
    assert same_bytes(node, dict(sorted(ids.items())[::10])) > 0
    node.stop()
    assert node.ctl("journal", "verify").returncode == 0
    assert node.ctl("verify").returncode == 0
    return len(ids)


def test_a_tree_survives_a_kill_in_the_middle(nodes):
    """Goal: nothing that objctl printed an id for is missing or different, in a few thousand files."""
    assert put_tree_through_a_kill(nodes, "/usr/share/perl", 200) > 200


@pytest.mark.large
def test_all_of_usr_share_survives_a_kill_in_the_middle(nodes):
    """Goal: the same with everything under /usr/share."""
    count = put_tree_through_a_kill(nodes, "/usr/share", 5000)
    print(f"{count} files put and read back equal")
    assert count > 5000
