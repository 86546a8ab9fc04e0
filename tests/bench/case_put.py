"""Durable uploads: closed loops by wrk, the open loop by our own generator."""

import subprocess

from tools import LIMIT_S, load, load_command, wrk

PUT = "/api/v1/put"
KIB = 1 << 10
MIB = 1 << 20


def put_small(ctx):
    ctx.report.heading("PUT 1 KiB, full durability and async")
    ctx.disk_now()
    report, seconds = ctx.report, ctx.seconds
    with ctx.node("put-full") as full, ctx.node("put-async", "--durability=async") as fast:
        for node in full, fast:
            wrk(node, PUT, 64, 1, KIB, threads=1)
        def alone(node):
            for each in full, fast:
                each.settle()
            return wrk(node, PUT, 1, seconds, KIB)

        found = ctx.alternate({
            "PUT 1 KiB x 64": lambda: wrk(full, PUT, 64, seconds, KIB, threads=1),
            "PUT 1 KiB x 64 async": lambda: wrk(fast, PUT, 64, seconds, KIB, threads=1)})
        found |= ctx.alternate({"PUT 1 KiB x 1": lambda: alone(full),
                                "PUT 1 KiB x 1 async": lambda: alone(fast)})
    many, many_fast = found["PUT 1 KiB x 64"], found["PUT 1 KiB x 64 async"]
    report.at_least("PUT 1 KiB x 64: requests/s", 30000, many["per_s"], "/s")
    report.at_most("PUT 1 KiB x 64: p99", 5, many["p99_us"] / 1000, "ms")
    report.at_most("PUT 1 KiB x 64: CPU a request", 30, many["cpu_us"], "us")
    report.at_least("PUT 1 KiB x 1: requests/s", 5000, found["PUT 1 KiB x 1"]["per_s"], "/s")
    report.at_least("PUT 1 KiB x 64: full / async", 0.8, many["per_s"] / many_fast["per_s"], "x")


def put_medium(ctx):
    """Each round on a fresh node: a round takes up to 4 GB of page cache, and what a virtual
    machine pays its host for memory never used before would soon be most of the figure."""
    ctx.report.heading("PUT 64 KiB x 16, PUT 16 MiB x 4")
    found = {}
    for name, connections, size in ("PUT 64 KiB x 16", 16, 64 * KIB), ("PUT 16 MiB x 4", 4, 16 * MIB):
        ctx.disk_now()
        rounds = []
        for _ in range(ctx.rounds):
            with ctx.node("put-medium") as node:
                rounds.append(wrk(node, PUT, connections, ctx.seconds, size, threads=1))
        found[name] = ctx.report.case(name, rounds)
    ctx.report.at_least("PUT 64 KiB x 16: requests/s", 8000,
                        found["PUT 64 KiB x 16"]["per_s"], "/s")
    large = found["PUT 16 MiB x 4"]
    ctx.report.at_least("PUT 16 MiB x 4: MB/s", 600, large["per_s"] * 16 * MIB / 1e6, "MB/s")


def _open_loop(node, seconds):
    return load(node, "put", rate=10000, seconds=seconds, size=KIB, connections=128)


def put_open_loop(ctx):
    """10,000 arrivals a second whatever the server does. Long enough for checkpoints (one in about
    four seconds) and, in full, for changes of the segment: 10,000 x 1.4 KB fill 1 GiB in 80 s, so
    segments are made smaller for it."""
    seconds = ctx.pick(10, 40)
    ctx.report.heading(f"PUT 1 KiB at 10,000/s, open loop, {seconds} s")
    ctx.disk_now()
    with ctx.node("open-loop", f"--segment-bytes={64 * MIB}") as node:
        _open_loop(node, 2)
        before = node.stats()["journal"]
        found = ctx.report.case("PUT 1 KiB at 10,000/s", [_open_loop(node, seconds)])
        after = node.stats()["journal"]
        segments = len(list((node.base / "files/log").glob("*.seg")))
        ctx.report.note("  segments on disk, bytes checkpointed", segments=segments,
                        checkpointed=_moved(before, after))
        ctx.report.at_most("PUT at 10,000/s: p99", 5, found["p99_us"] / 1000, "ms")
        ctx.disk_beside(350)
        # One that sends 16 MiB bodies, one after the other.
        uploader = subprocess.Popen(load_command(node, "put", size=16 * MIB, connections=1,
                                                 seconds=seconds + 1),
                                    stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            found = ctx.report.case("PUT 1 KiB at 10,000/s beside 16 MiB",
                                    [_open_loop(node, seconds)])
        finally:
            uploader.communicate(timeout=LIMIT_S)
        ctx.report.at_most("PUT at 10,000/s beside a 16 MiB uploader: p99", 10,
                           found["p99_us"] / 1000, "ms")


def _moved(before, after):
    return after["durable_position"] - before["durable_position"]
