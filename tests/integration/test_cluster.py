"""Joining, leaving, and who is let in: clusters of real processes on loopback."""

import random
import re
import socket
import time

import pytest

from cluster import FAILED_S, WHERE, Cluster, Member, stable_port  # noqa: F401
from harness import noise, run, wait_for, OBJCTL

SECRET = "a secret that is long enough"


# ---- Joining ----


def test_join_by_any_member(nodes):
    """Each joins by one address, whoever of the cluster has it; then each knows each, by id and
    address, itself included, and all have the same facts."""
    cluster = Cluster(nodes, 2).start()
    cluster.add(seeds=[cluster[1]]).start()
    cluster.add(seeds=[cluster[2]]).start()
    cluster.wait_together()
    for member in cluster.members:
        rows = member.members()
        assert {row["addr"] for row in rows.values()} == {m.private for m in cluster.members}
        assert [i for i, row in rows.items() if row["self"]] == [member.id]
        others = [row for i, row in rows.items() if i != member.id]
        wait_for(lambda m=member: all(r["self"] or r["rtt_ms"] is not None for r in m.members().values()),
                 "round trips to be measured")
        assert len(others) == 3
    cluster.wait_equal()
    cluster.wait_all(lambda m: all(row["digest_equal"] for row in m.members().values()), "that digests are equal")
    cluster.wait_all(lambda m: m.stats()["cluster"]["health"] == "good", "good health")


def test_seeds_and_addresses(nodes):
    """Of three seeds one is not there, one is a name, one is the node itself: it joins; what it advertises
    is what the others know of it."""
    cluster = Cluster(nodes, 1).start()
    joiner = cluster.add(seeds=[f"127.0.0.1:{stable_port()}", f"localhost:{cluster[0].private_port}"])
    joiner.seeds.append(joiner)
    joiner.advertise = f"localhost:{joiner.private_port}"
    joiner.start()
    cluster.wait_together()
    wait_for(lambda: re.search(r"seed .* is this node itself", joiner.log()), "a line about itself")
    assert len(joiner.members()) == 2
    assert cluster[0].members()[joiner.id]["addr"] == joiner.advertise


def test_a_seed_that_comes_later(nodes):
    """The seed is not up yet: the node serves meanwhile, and joins when it comes."""
    cluster = Cluster(nodes, 2)
    first, second = cluster.members
    second.start()
    early = second.http.stored(b"put before it joined")
    first.start()
    cluster.wait_together()
    wait_for(lambda: first.http.meta(early["id"]).status == 200, "the early object")
    cluster.wait_equal()


def test_a_new_address(trio):
    """A node that comes back under another address is the same node, found there by all; and it needs
    no seed, since it knows the others."""
    moved = trio[1]
    moved.stop()
    moved.private_port, moved.seeds = stable_port(), []
    moved.start()
    trio.wait_together()
    trio.wait_all(lambda m: m.members()[moved.id]["addr"] == moved.private, "the new address")
    assert all(len(m.members()) == 3 for m in trio.members)
    trio.wait_equal()


# ---- Going ----


def test_stop_is_leaving_and_kill_is_failing(nodes):
    """Of five nodes one gets SIGTERM: the others see soon that it left, and never that it failed. One gets
    kill -9: within six seconds they call it failed. Health is degraded, the others serve; once both are
    back, all is good, and nothing is missing."""
    cluster = Cluster(nodes, 5).start()
    stopped, killed = cluster[0], cluster[3]
    assert stopped.id and killed.id
    killed.kill()
    begin, seen = time.monotonic(), set()
    stopped.stop()
    for member in cluster.running():
        wait_for(lambda m=member: seen.add(m.sees(stopped)) or m.sees(stopped) == "left", "`left`", FAILED_S)
    cluster.wait_all(lambda m: seen.add(m.sees(stopped)) or m.sees(killed) == "failed", "`failed`",
                     timeout_s=begin + FAILED_S - time.monotonic())
    assert all(m.stats()["cluster"]["health"] == "degraded" for m in cluster.running())
    stored = cluster[1].http.stored(b"while two are away")
    wait_for(lambda: cluster[2].http.meta(stored["id"]).status == 200, "a write to arrive")
    # It stays so, beyond the time after which a silent one has failed.
    wait_for(lambda: seen.add(cluster[1].sees(stopped)) or time.monotonic() > begin + FAILED_S, "time to pass")
    assert "failed" not in seen
    cluster.repair()
    cluster.wait_all(lambda m: m.http.meta(stored["id"]).status == 200, "what was missed")
    cluster.wait_all(lambda m: m.stats()["cluster"]["health"] == "good", "good health")
    assert all(len(m.members()) == 5 for m in cluster.members)


# ---- Who is let in ----


def lonely(member, others, seconds=2):
    """For some seconds neither of them takes MEMBER in; each time looked at, the others are well."""
    end = time.monotonic() + seconds

    def apart():
        assert [row["id"] for row in member.stats()["cluster"]["members"]] in ([], [member.id])
        for other in others:
            rows = other.members()
            assert member.id not in rows
            assert {rows[m.id]["state"] for m in others} == {"alive"}
        return time.monotonic() > end

    wait_for(apart, "time to pass")


def test_another_tag(nodes):
    """A node with another tag is not taken in, nor are its facts; both sides say so in their logs."""
    cluster = Cluster(nodes, 2).start()
    other = cluster.add(tag="elsewhere").start()
    stored = other.http.stored(b"of another cluster")
    # Both know of the misfit as soon as a line says so.
    for member in (other, cluster[0]):
        wait_for(lambda m=member: re.search(r"WARN.*\btag\b", m.log()), f"{member.name}: a line about the tag")
    lonely(other, cluster.members[:2])
    assert cluster[0].http.meta(stored["id"]).status == 404
    assert cluster[0].stats()["link"]["other_tag"] > 0


def test_another_secret(nodes):
    """A node with another secret does not get past the handshake, and one without any neither;
    the others are not disturbed."""
    cluster = Cluster(nodes, 2, secret=[SECRET]).start()
    wrong = cluster.add(secret=[SECRET + "!"]).start()
    without = cluster.add(secret=None).start()
    stored = wrong.http.stored(b"behind the wrong secret")
    wait_for(lambda: cluster[0].stats()["link"]["refused"] > 0, "a handshake to be refused")
    for member in (wrong, without):
        wait_for(lambda m=member: f"{cluster[0].private} lets nobody in" in m.log(), "a line about the secret")
    lonely(wrong, cluster.members[:2])
    lonely(without, cluster.members[:2], 0)
    here = cluster[0].http.stored(b"inside")
    wait_for(lambda: cluster[1].http.meta(here["id"]).status == 200, "a write to arrive")
    assert cluster[0].http.meta(stored["id"]).status == 404
    assert wrong.http.meta(here["id"]).status == without.http.meta(here["id"]).status == 404


def test_secret_rotation(nodes):
    """Another secret, in three rounds of restarts, one node after the other: the nodes stay
    together, and what is written meanwhile arrives. The old one is then worth nothing."""
    old, new = (run([OBJCTL, "cluster", "secret"]).stdout.strip() for _ in range(2))
    assert len(old) >= 16 and old != new
    cluster = Cluster(nodes, 3, secret=[old]).start()
    for lines in ([old, new], [new, old], [new]):
        for member in cluster.members:
            member.stop()
            member.secret = lines
            member.start()
            stored = member.http.stored(noise(100, 1))
            cluster.wait_all(lambda m, i=stored["id"]: m.http.meta(i).status == 200, "the object")
        cluster.wait_together()
    late = cluster.add(secret=[old]).start()
    wait_for(lambda: any(m.stats()["link"]["refused"] for m in cluster.members[:3]), "the old one to be refused")
    lonely(late, cluster.members[:3], 0)


def test_no_secret_no_other_machine(nodes):
    """Without a secret there is no address beyond loopback to listen on: one clear line, exit 78,
    nothing on disk; any address means loopback then; a seed elsewhere is left alone, with a line."""
    member = Member(nodes.base, "elsewhere", host="192.0.2.1")
    code, log = member.fails()
    assert code == 78, log
    errors = [line for line in log.splitlines() if " ERROR " in line]
    assert len(errors) == 1 and "secret" in errors[0] and member.private in errors[0], log
    assert not member.state.exists() and not member.files.exists()
    cluster = Cluster(nodes, 1, host="0.0.0.0")
    cluster[0].seeds = ["192.0.2.1:11999"]
    log = cluster.start()[0].log
    assert f"listening on 127.0.0.1:{cluster[0].private_port}" in log()
    wait_for(lambda: re.search(r"WARN .*without a secret.* 192\.0\.2\.1:11999", log()), "a line about the seed")


@pytest.mark.parametrize("lines,mode", [(["short"], 0o600), ([], 0o600), ([SECRET, SECRET + "2", SECRET + "3"], 0o600),
                                        ([SECRET], 0o644), (None, 0o600)],
                         ids=["short", "empty", "three lines", "readable by others", "missing"])
def test_a_bad_secret_file(nodes, lines, mode):
    """A secret's file that is no good is refused in one line that names it and tells nothing of it."""
    node = nodes.make()
    path = node.base / "the-secret"
    if lines is not None:
        path.write_text("".join(line + "\n" for line in lines))
        path.chmod(mode)
    code, log = node.fails("--cluster-secret-file", path)
    assert code == 78, log
    assert str(path) in log and SECRET not in log and "short\n" not in log, log


# ---- Noise on the port ----


@pytest.mark.parametrize("secret", [None, [SECRET]], ids=["loopback", "secret"])
def test_garbage_on_the_private_port(request, secret):
    """10 MB of random bytes, over several connections, some of which begin like a ZeroMQ peer: the
    node keeps serving, its memory is bounded, the cluster stays together."""
    cluster = Cluster(request.getfixturevalue("nodes"), 2, secret=secret).start() if secret \
        else request.getfixturevalue("trio")
    target, rnd = cluster[0], random.Random(5)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + (b"CURVE" if secret else b"NULL").ljust(20, b"\0") + bytes(32)
    ready = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER" + b"\x08Identity\0\0\0\0"
    starts = (b"", b"\xff", greeting[:64], greeting[:64] + ready, b"GET / HTTP/1.1\r\n\r\n")
    before, sent, number = target.resident_bytes("VmRSS"), 0, 0
    while sent < 10_000_000:
        number += 1
        with socket.create_connection((target.host, target.private_port), 10) as sock:
            sock.settimeout(10)
            try:
                sock.sendall(starts[number % len(starts)])
                for _ in range(8):
                    sock.sendall(rnd.randbytes(64 << 10))
                    sent += 64 << 10
            except OSError:
                continue  # it has hung up, as it may
    assert target.resident_bytes("VmRSS") - before < 64 << 20
    cluster.wait_together()
    stored = target.http.stored(b"after the noise")
    wait_for(lambda: cluster[1].http.meta(stored["id"]).status == 200, "a write to arrive")
    assert target.stats()["cluster"]["health"] == "good"


def peer_socket(member):
    """A connection that speaks ZeroMQ well (ZMTP 3.1, no security), as far as its handshake."""
    sock = socket.create_connection(("127.0.0.1", member.private_port), 10)
    sock.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32))
    ready = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0"
    sock.sendall(b"\x04" + bytes([len(ready)]) + ready)
    stream = sock.makefile("rb")
    assert len(stream.read(64)) == 64
    flags, length = stream.read(2)
    assert flags == 4 and stream.read(length).startswith(b"\x05READY")
    return sock, stream


def test_bad_frames(trio):
    """Who gets past the handshake and then sends frames that mean nothing is dropped, frame by frame, and
    counted; one that announces a gigabyte loses its connection before it is read; one that stops in the
    middle of a frame costs nothing. The node serves, and the cluster stays together."""
    cluster = trio
    target, rnd = cluster[0], random.Random(6)
    before, malformed = target.resident_bytes("VmRSS"), target.stats()["link"]["malformed"]
    sock, stream = peer_socket(target)
    for number in range(500):
        # Some begin as a message does: an array of five, version 1, a type, a tag.
        start = b"\x95\x01" + bytes([rnd.randrange(32)]) + b"\xa4test" if number % 2 else b""
        frame = start + rnd.randbytes(rnd.randrange(60))
        sock.sendall(b"\0" + bytes([len(frame)]) + frame)
    wait_for(lambda: target.stats()["link"]["malformed"] >= malformed + 500, "500 frames to be dropped")
    stream.close()
    sock.close()
    for length in (1 << 20, 1 << 30, 1 << 62, (1 << 64) - 1):
        sock, stream = peer_socket(target)
        sock.sendall(b"\x02" + length.to_bytes(8, "big"))
        try:
            # It may be told more before, never for long.
            while stream.read(1):
                pass
        except ConnectionResetError:
            pass
        stream.close()
        sock.close()
    cut = [peer_socket(target) for _ in range(20)]
    for sock, stream in cut:
        sock.sendall(b"\x02" + (100_000).to_bytes(8, "big") + bytes(1000))
    assert cluster.together()
    for sock, stream in cut:
        stream.close()
        sock.close()
    assert target.resident_bytes("VmRSS") - before < 64 << 20
    stored = target.http.stored(b"after bad frames")
    wait_for(lambda: cluster[1].http.meta(stored["id"]).status == 200, "a write to arrive")
    assert target.stats()["cluster"]["health"] == "good" and len(target.members()) == 3
