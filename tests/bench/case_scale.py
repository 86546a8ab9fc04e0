"""The same work on stores of 10 thousand to a million objects; starting and memory with many."""

import contextlib
import re
import subprocess
import time

from tools import load, load_command

KIB = 1 << 10
MIB = 1 << 20
MEMORY = 64 * MIB
HOT = 10000


def _name(count):
    return f"{count // 1000000}M" if count >= 1000000 else f"{count // 1000}k"


def _fill(node, count, random_ids=False):
    load(node, "put", size=KIB, count=count, connections=64, write_ids=node.ids,
         random_ids=random_ids)


def _compare(ctx, label, rounds, counts):
    """Medians of ROUNDS (count → results), and the costliest against the smallest store."""
    found = {n: ctx.report.case(f"{label} {_name(n)} objects", rounds[n]) for n in counts}
    base = found[counts[0]]["cpu_us"]
    return max(found[n]["cpu_us"] for n in counts) / base


def _stores(ctx, stack, counts, random_ids):
    kind = "random" if random_ids else "server"
    nodes = {}
    for count in counts:
        nodes[count] = node = stack.enter_context(ctx.node(f"scale-{kind}-{count}"))
        _fill(node, count, random_ids)
        load(node, "get", read_ids=node.ids, hot=HOT, count=3 * HOT)  # the hot set is hot
    return nodes


def _measure(ctx, nodes, random_ids):
    """In turn: a hot GET, a uniform GET, a PUT. The few puts leave a store its size class."""
    gets, uniform, puts = ({n: [] for n in nodes} for _ in range(3))
    for _ in range(ctx.rounds):
        for count, node in nodes.items():
            gets[count].append(load(node, "get", read_ids=node.ids, hot=HOT, seconds=ctx.seconds))
        for count, node in nodes.items():
            uniform[count].append(load(node, "get", read_ids=node.ids, seconds=ctx.seconds))
        for count, node in nodes.items():
            puts[count].append(load(node, "put", size=KIB, count=20000, random_ids=random_ids))
    return gets, uniform, puts


def _idle_with_many(ctx, node, count):
    node.stop()
    node.start()
    load(node, "get", read_ids=node.ids, hot=HOT, count=3 * HOT)
    load(node, "get", read_ids=node.ids, count=200000)
    anon = node.memory()["RssAnon"]
    ctx.report.at_most(f"{_name(count)} objects: RssAnon - --memory", 10, (anon - MEMORY) / MIB,
                       "MiB")


def _start_clean(ctx, node, count):
    times = []
    for _ in range(3):
        node.stop()
        times.append(node.start())
    ctx.report.at_most(f"start with {_name(count)} objects, clean", 50, sorted(times)[1], "ms")


def _start_killed(ctx, node, count):
    """kill -9 under full load, in the middle of whatever it does."""
    times = []
    for _ in range(ctx.pick(1, 3)):
        loader = subprocess.Popen(load_command(node, "put", size=KIB, connections=64, seconds=60),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        try:
            time.sleep(ctx.pick(3, 5))
            node.kill()
        finally:
            loader.kill()
            loader.wait()
        times.append(node.start())
    ctx.report.at_most(f"start with {_name(count)} objects, kill -9", 2000, max(times), "ms")
    for line in node.log().splitlines()[-8:]:
        if re.search(r"recover|replay|log", line):
            print("    " + line)


def scale(ctx):
    counts = ctx.pick([10000, 100000], [10000, 100000, 1000000])
    ctx.report.heading("cost by number of objects (server-made ids; 10,000 hot)")
    with contextlib.ExitStack() as stack:
        nodes = _stores(ctx, stack, counts, False)
        gets, uniform, puts = _measure(ctx, nodes, False)
        ctx.report.at_most("GET hot: CPU, largest / smallest store", 1.2,
                           _compare(ctx, "GET hot", gets, counts), "x")
        ctx.report.at_most("PUT: CPU, largest / smallest store", 1.2,
                           _compare(ctx, "PUT", puts, counts), "x")
        ratio = _compare(ctx, "GET uniform", uniform, counts)
        ctx.report.note("  GET uniform: CPU, largest / smallest", ratio=ratio)
        largest = nodes[counts[-1]]
        ctx.report.heading(f"start and memory with {_name(counts[-1])} objects")
        _idle_with_many(ctx, largest, counts[-1])
        _start_clean(ctx, largest, counts[-1])
        _start_killed(ctx, largest, counts[-1])


def scale_random(ctx):
    counts = ctx.pick([10000, 100000], [10000, 100000, 1000000])
    ctx.report.heading("the same with random client ids (no target)")
    with contextlib.ExitStack() as stack:
        nodes = _stores(ctx, stack, counts, True)
        for label, rounds in zip(("GET hot, random ids,", "GET uniform, random ids,",
                                  "PUT, random ids,"), _measure(ctx, nodes, True)):
            ctx.report.note(f"  {label} largest / smallest",
                            ratio=_compare(ctx, label, rounds, counts))
