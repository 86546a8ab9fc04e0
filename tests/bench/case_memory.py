"""Memory: idle, and while much more goes through than there is."""

import contextlib
import threading
import time

from tools import load

MIB = 1 << 20
MEMORY = 64 * MIB


@contextlib.contextmanager
def peak_of(server):
    """The largest sizes of /proc/PID/status seen meanwhile, by name."""
    peak, ended = {}, threading.Event()

    def watch():
        while not ended.wait(0.02):
            for name, size in server.memory().items():
                peak[name] = max(size, peak.get(name, 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def idle(ctx):
    ctx.report.heading("memory, idle")
    with ctx.node("idle") as node:
        time.sleep(1)  # what the threads do at their start is done
        memory = node.memory()
        ctx.report.at_most("idle: RssAnon", 6, memory["RssAnon"] / MIB, "MiB")
        ctx.report.at_most("idle: VmRSS", 20, memory["VmRSS"] / MIB, "MiB")


def through(ctx):
    size = 16 * MIB
    count = ctx.pick(64, 640)
    label = f"{count * size / (1 << 30):.0f} GiB"
    ctx.report.heading(f"memory while {label} are uploaded and read back")
    with ctx.node("through") as node, peak_of(node) as peak:
        load(node, "put", size=size, count=count, connections=4, write_ids=node.ids)
        load(node, "get", read_ids=node.ids, count=count, connections=4)
        stored = node.stats()["objects"]["bytes"]
    if stored != count * size:
        raise RuntimeError(f"{stored} bytes stored of {count * size}")
    for name in "RssAnon", "VmRSS":
        ctx.report.at_most(f"{label} through: peak {name} - --memory", 32,
                           (peak[name] - MEMORY) / MIB, "MiB")
