"""Copies of small bodies for every node, and what those notice who read meanwhile."""

import subprocess
import time

from peers import peers, wait_alive, wait_equal, wait_until
from report import median
from tools import LIMIT_S, load, load_command

KIB = 1 << 10
HOT_RATE = 2000  # GETs a second: below what the machine can do, so that waiting shows


def _copied(node):
    return node.stats()["replication"]["copied"]


def _hot(ctx, node, ids, seconds):
    return load(node, "get", read_ids=ids, hot=1, connections=16, rate=HOT_RATE, seconds=seconds)


def _catch_up(ctx, source, others, count):
    """All of COUNT objects, which SOURCE alone has, get to OTHERS, who have been away: copies a
    second at each of them, from the first to the last."""
    for node in others:
        node.stop()
    load(source, "put", size=KIB, count=count, connections=64, full=True)
    source.settle()
    used = source.cpu_ns()
    for node in others:
        node.start()
    wait_until(lambda: all(_copied(node) > 0 for node in others), "the first copies", pause_s=0.01)
    begun, had = time.monotonic(), {node: _copied(node) for node in others}
    hot = _hot(ctx, source, source.ids, 2)
    wait_until(lambda: all(_copied(node) >= count for node in others), "all copies", LIMIT_S)
    seconds = time.monotonic() - begun
    copies = sum(count - had[node] for node in others) / len(others)
    wait_equal(source, *others)
    return {"per_s": copies / seconds, "mb_s": copies * KIB / seconds / 1e6, "seconds": seconds,
            "cpu_us": (source.cpu_ns() - used) / count / 1000,
            "others_cpu_us": sum(node.cpu_ns() for node in others) / count / len(others) / 1000,
            "p50_us": hot["p50_us"], "p99_us": hot["p99_us"], "max_us": hot["max_us"]}


def replicate(ctx):
    count = ctx.pick(20000, 100000)
    ctx.report.heading("level 2: copies of 1 KiB objects on two other nodes")
    with peers(ctx) as make:
        a = make("a")
        a.start()
        load(a, "put", size=KIB, count=1, write_ids=a.ids, connections=1)
        others = [make("b", a), make("c", a)]
        for node in others:
            node.start()
        wait_alive(a, *others)
        alone, rounds = [], []
        for _ in range(ctx.rounds):
            for node in a, *others:
                node.settle()
            alone.append(_hot(ctx, a, a.ids, ctx.seconds))
            rounds.append(_catch_up(ctx, a, others, count))
        ctx.report.case(f"hot GET at {HOT_RATE:,}/s, alone", alone)
        middle = ctx.report.case("copies to two peers, hot GETs meanwhile", rounds)
        ctx.report.note("  CPU a copy at the receiver, us", cpu=middle["others_cpu_us"])
        ctx.report.at_least("copies of 1 KiB to each of two peers", 10000, middle["per_s"], "/s")
        ctx.report.at_most("hot GET: p99 beside replication / alone", 2,
                           median(rounds, "p99_us") / median(alone, "p99_us"), "x")
