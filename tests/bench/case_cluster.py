"""What nodes cost each other: joining, keeping in step, and bodies that come from another node."""

import http.client
import json
import subprocess
import time

from peers import Watch, agree, peers, wait_alive, wait_equal, wait_until
from report import median
from tools import LIMIT_S, VISIBLE, Failed, load, load_command, measured

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
QUIET_S = 10
RATE = 5000


# ---- Facts ----

def _join(server, joiner, facts):
    """A fresh node takes all that SERVER has, as FACTS events or as what has become of them."""
    watch = Watch(server, joiner)
    used = {node: 0 if node is joiner else node.cpu_ns() for node in (server, joiner)}
    joiner.start()
    begun = time.monotonic()
    wait_until(lambda: watch.look() and agree(server, joiner), "all facts at the joiner", LIMIT_S, 0.1)
    seconds = time.monotonic() - begun
    came = {}

    def counted():
        stats = joiner.stats()
        came.update(events=stats["sync"]["events_in"], rows=stats["merge"]["rows_in"],
                    bytes=stats["sync"]["bytes_in"] + stats["merge"]["bytes_in"])
        return came["events"] + came["rows"] >= facts

    wait_until(counted, "its figures to tell of them")
    figures = {"per_s": facts / seconds, "seconds": seconds, **came,
               "mb_s": came["bytes"] / seconds / 1e6}
    for name, node in ("server", server), ("joiner", joiner):
        figures[f"{name}_cpu_us"] = (node.cpu_ns() - used[node]) / facts / 1000
        figures[f"{name}_rss"] = watch.peak[node]
    return figures


def _join_by_events(ctx, make, server, events):
    """While SERVER has all of them: it compacts them later."""
    joiner = make("early", server)
    found = _join(server, joiner, events)
    if found["rows"]:
        raise Failed(f"{events:,} events were compacted: {found['rows']:,} rows came")
    ctx.report.note(f"  {events:,} facts, as events", **found)
    joiner.remove()


def _joins(ctx, make, server, facts):
    """Some joiners, one after the other; the last one stays. What they join has compacted."""
    rounds = []
    for i in range(ctx.rounds):
        joiner = make(f"joiner-{i}", server)
        rounds.append(_join(server, joiner, facts))
        ctx.report.note(f"  joiner {i + 1}", **rounds[-1])
        if i + 1 < ctx.rounds:
            joiner.remove()
    middle = ctx.report.keep("join", rounds)
    way = "rows" if middle["rows"] > middle["events"] else "events"
    ctx.report.at_least(f"joining {facts:,} events, as {way}: events/s", 100000, middle["per_s"],
                        "/s")
    for name in "server", "joiner":
        ctx.report.at_most(f"joining: peak RssAnon of the {name}, above --memory", 64,
                           max(r[f"{name}_rss"] for r in rounds) / MIB - 64, "MiB")
    return joiner


def _quiet(ctx, a, b, label):
    """Bytes a second between two nodes that agree, in both directions together."""
    wait_equal(a, b)
    time.sleep(2)  # what the last exchange left to say
    before, begun = a.link_bytes(), time.monotonic()
    time.sleep(QUIET_S)
    used = (a.link_bytes() - before) / (time.monotonic() - begun)
    ctx.report.at_most(f"converged, {label}: bytes a peer and second", KIB, used, "bytes/s")
    return used


def _difference(ctx, a, b, count, quiet):
    """What it costs B to learn of COUNT events that it missed."""
    b.stop()
    load(a, "put", size=16, count=count, connections=min(count, 16))
    b.start()
    begun = time.monotonic()
    wait_until(lambda: agree(a, b), "the events that were missed", pause_s=0.005)
    seconds = time.monotonic() - begun
    time.sleep(0.3)  # figures are taken every 200 ms
    used = b.link_bytes() - quiet * (time.monotonic() - begun)
    ctx.report.at_most(f"a difference of {count:,}: bytes", 512 * count + 4 * KIB, used, "bytes")
    ctx.report.note("  learned of after", seconds=seconds, bytes_each=used / count)


def facts(ctx):
    events = ctx.pick(100000, 1000000)
    early = ctx.pick(30000, 300000)  # they take less than 64 MiB
    ctx.report.heading(f"joining with {events:,} events, keeping in step")
    with peers(ctx) as make:
        server = make("server")
        server.start()
        first = make("first", server)
        first.start()
        wait_alive(server, first)
        _quiet(ctx, server, first, "empty")
        first.remove()
        begun = time.monotonic()
        load(server, "put", size=16, count=early, connections=256)
        server.settle()
        _join_by_events(ctx, make, server, early)
        load(server, "put", size=16, count=events - early, connections=256)
        ctx.report.note("  filled", seconds=time.monotonic() - begun)
        server.ctl("journal", "compact")
        server.settle()
        joiner = _joins(ctx, make, server, events)
        quiet = _quiet(ctx, server, joiner, f"{events:,} objects")
        for count in 1, 10, 1000:
            _difference(ctx, server, joiner, count, quiet)


# ---- News ----

def _see(ctx, a, b, rate):
    writer = None
    if rate:
        writer = subprocess.Popen(load_command(a, "put", size=KIB, connections=64, rate=rate,
                                               seconds=ctx.seconds + 1),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
    try:
        found = measured([VISIBLE, "--put-port", a.port, "--see-port", b.port, "--seconds",
                          ctx.seconds], b)
    finally:
        if writer:
            said = json.loads(writer.communicate(timeout=LIMIT_S)[0])
    if rate and said["errors"]:
        raise Failed(f"{said['errors']} puts failed")
    wait_equal(a, b)
    return found


def visible(ctx):
    ctx.report.heading(f"put on A, seen on B; alone and under {RATE:,} puts/s")
    with peers(ctx) as make:
        a = make("a")
        a.start()
        b = make("b", a)
        b.start()
        wait_alive(a, b)
        found = ctx.alternate({"put to seen, alone": lambda: _see(ctx, a, b, 0),
                               f"put to seen, {RATE:,}/s": lambda: _see(ctx, a, b, RATE)})
    busy = found[f"put to seen, {RATE:,}/s"]
    ctx.report.at_most(f"seen on B under {RATE:,} puts/s: p50", 5, busy["p50_us"] / 1000, "ms")
    ctx.report.at_most(f"seen on B under {RATE:,} puts/s: p99", 50, busy["p99_us"] / 1000, "ms")


# ---- Bodies ----

def _get_all(a, b, ids, connections):
    """Each body once, from A's disk through B."""
    used = a.cpu_ns()
    found = load(b, "get", read_ids=ids, each=True, connections=connections,
                 count=len(ids.read_text().split()))
    found["holder_cpu_us"] = (a.cpu_ns() - used) / found["requests"] / 1000
    return found


def _first_byte(node, object_id):
    """Milliseconds until the first byte of the body has come."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    try:
        connection.connect()
        begun = time.monotonic()
        connection.request("GET", "/api/v1/get/" + object_id)
        answer = connection.getresponse()
        if answer.status != 200 or len(answer.read(1)) != 1:
            raise Failed(f"no body: {answer.status}")
        return (time.monotonic() - begun) * 1000
    finally:
        connection.close()


def body(ctx):
    count = ctx.pick(16, 64)
    size = ctx.pick(128 * MIB, GIB)
    ctx.report.heading("bodies that another node has")
    with peers(ctx) as make:
        a = make("a")
        a.start()
        sets = []
        for i in range(ctx.rounds):  # one for each round: B keeps what it has got
            sets.append(a.base / f"ids-{i}")
            load(a, "put", size=16 * MIB, count=count // 2, connections=2, write_ids=sets[-1])
        large = a.base / "large"
        load(a, "put", size=size, count=1, connections=1, write_ids=large)
        b = make("b", a)
        b.start()
        wait_alive(a, b)
        wait_equal(a, b)
        rounds = {n: [] for n in (1, 4)}
        for ids in sets:
            lines = ids.read_text().splitlines(keepends=True)
            for connections, part in (1, lines[0::2]), (4, lines[1::2]):
                some = ids.with_suffix(f".{connections}")
                some.write_text("".join(part))
                for node in a, b:
                    node.settle()
                rounds[connections].append(_get_all(a, b, some, connections))
        for connections, results in rounds.items():
            middle = ctx.report.case(f"GET 16 MiB through a peer x {connections}", results)
            ctx.report.at_least(f"GET 16 MiB through a peer x {connections}: MB/s", 400,
                                middle["per_s"] * 16 * MIB / 1e6, "MB/s")
            ctx.report.note("  CPU of the holder, ms", cpu=middle["holder_cpu_us"] / 1000)
        found = []
        for _ in range(ctx.pick(5, 20)):
            b.settle()
            found.append(_first_byte(b, large.read_text().strip()))
        found.sort()
        ctx.report.note("  first byte, ms: least, median, most", least=found[0],
                        median=found[len(found) // 2], most=found[-1])
        ctx.report.at_most(f"first byte of {size // MIB} MiB through a peer: median", 20,
                           found[len(found) // 2], "ms")
