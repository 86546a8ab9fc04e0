"""What it costs to find and mend what differs between two nodes that know the same events."""

import subprocess
import time

from peers import agree, peers, wait_alive, wait_equal, wait_until
from tools import DIFFER, LIMIT_S, Failed, load

MIB = 1 << 20
DIFFERENT = 10


def _make_different(node, ids):
    """While it is stopped: what it says of IDS is not what its peers say."""
    done = subprocess.run([DIFFER, node.base / "state", node.base / "files"], text=True, timeout=LIMIT_S,
                          input="".join(line + "\n" for line in ids), stderr=subprocess.PIPE)
    if done.returncode:
        raise Failed(done.stderr)


def merge(ctx):
    count = ctx.pick(100000, 1000000)
    ctx.report.heading(f"two nodes with {count:,} objects of which {DIFFERENT} differ")
    with peers(ctx) as make:
        a = make("a")
        a.start()
        listed = a.base / "ids"
        load(a, "put", size=16, count=count, connections=256, write_ids=listed)
        ids = listed.read_text().split()
        a.ctl("journal", "compact")
        b = make("b", a)
        b.start()
        wait_alive(a, b)
        wait_equal(a, b)
        b.settle()
        used, rounds = [], []
        for i in range(ctx.rounds):
            b.stop()
            _make_different(b, ids[i::count // DIFFERENT][:DIFFERENT])
            served = a.stats()["merge"]["rows_in"]
            b.start()
            begun = time.monotonic()
            wait_until(lambda: agree(a, b), "the same facts on both", LIMIT_S)
            seconds = time.monotonic() - begun
            wait_until(lambda: a.stats()["cluster"]["unequal"] == 0, "both to notice")
            b.settle()
            rows = a.stats()["merge"]["rows_in"] - served
            if rows < DIFFERENT:
                raise Failed(f"only {rows} rows came")
            used.append(b.link_bytes())
            rounds.append({"seconds": seconds, "rows": rows, "bytes": used[-1]})
            ctx.report.note(f"  round {i + 1}", **rounds[-1])
        ctx.report.keep("merge", rounds)
        ctx.report.at_most(f"{DIFFERENT} of {count:,} rows differ: all that is said until they agree", MIB,
                           max(used), "bytes")
