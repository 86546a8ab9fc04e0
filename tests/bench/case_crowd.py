"""Many connections that do nothing, and some that do it slowly: what they cost in memory, and what
those notice who work."""

import contextlib
import json
import subprocess
import time

from report import median
from tools import HOLD, Failed, load

IDLE = 10000
SLOW = 128  # of each kind
RATE = 5000  # a second: below what the machine can do, so that waiting shows


@contextlib.contextmanager
def held(server, **options):
    """Connections held open by another process; the server must have ended none that was idle."""
    command = [str(HOLD), "--port", str(server.port)]
    for name, value in options.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if holder.stdout.readline() != "ready\n":
            raise Failed("hold could not open its connections")
        yield
        rest, _ = holder.communicate("", timeout=60)
        ended = json.loads(rest)
        if ended["idle"]:
            raise Failed(f"the server ended {ended['idle']} idle connections")
    finally:
        holder.kill()
        holder.wait()


def connections(node):
    return node.stats()["http"]["connections"] - 1


def expect_connections(node, least):
    found = connections(node)
    if found < least:
        raise Failed(f"{found} connections stand, not {least}")


def memory_of_idle(ctx, node):
    load(node, "get", read_ids=node.ids, hot=1, connections=64, seconds=1)
    before = node.memory()["RssAnon"]
    with held(node, idle=IDLE):
        expect_connections(node, IDLE)
        each = (node.memory()["RssAnon"] - before) / IDLE
    ctx.report.at_most("idle connection: RssAnon each", 4096, each, "bytes")


def crowd(ctx):
    ctx.report.heading(f"{IDLE:,} idle connections and {2 * SLOW} slow ones, hot GETs of 1 KiB on others")
    with ctx.node("crowd") as node:
        load(node, "put", size=1024, count=1, connections=1, write_ids=node.ids)
        large = node.base / "large"
        load(node, "put", size=16 << 20, count=1, connections=1, write_ids=large)
        path = "/api/v1/get/" + large.read_text().strip()
        memory_of_idle(ctx, node)
        rounds = {"open": ([], []), "closed": ([], [])}

        def measure(which):
            node.settle()
            common = {"read_ids": node.ids, "connections": 64, "seconds": ctx.seconds}
            rounds["open"][which].append(load(node, "get", rate=RATE, **common))
            rounds["closed"][which].append(load(node, "get", **common))

        for _ in range(ctx.rounds):
            measure(0)
            with held(node, idle=IDLE, slow_headers=SLOW, slow_readers=SLOW, path=path):
                measure(1)
                expect_connections(node, IDLE + 2 * SLOW)
    for loop, label in (("open", f"at {RATE:,}/s"), ("closed", "closed loop")):
        alone, beside = rounds[loop]
        ctx.report.case(f"GET 1 KiB {label}, alone", alone)
        ctx.report.case(f"GET 1 KiB {label}, beside the crowd", beside)
        ctx.report.at_most(f"GET {label}: p99 beside the crowd / alone", 3,
                           median(beside, "p99_us") / median(alone, "p99_us"), "x")
