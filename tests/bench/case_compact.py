"""What a snapshot and the compaction of the journal cost, and what they take."""

import os
import pathlib
import subprocess
import time

from servers import OBJSTORE
from tools import load

KIB = 1 << 10
MIB = 1 << 20
OBJCTL = os.environ.get("OBJCTL_BIN") or str(pathlib.Path(OBJSTORE).with_name("objctl"))


def _ctl(node, *arguments):
    """Run objctl on the node's directories; seconds it took."""
    begun = time.monotonic()
    subprocess.run([OBJCTL, *arguments, "--state-dir", str(node.base / "state"), "--files-dir",
                    str(node.base / "files"), "-q"], check=True)
    return time.monotonic() - begun


def _compact(ctx, node, label):
    cpu_ns = node.cpu_ns()
    seconds = _ctl(node, "journal", "compact")
    journal = node.stats()["journal"]
    ctx.report.note(f"  compact {label}", seconds=seconds,
                    cpu_s=(node.cpu_ns() - cpu_ns) / 1e9,
                    snapshot_MiB=journal["snapshot_bytes"] / MIB, events_left=journal["events"])


def compact(ctx):
    count = ctx.pick(100000, 1000000)
    ctx.report.heading(f"snapshot and compaction with {count:,} objects of 1 KiB")
    with ctx.node("compact") as node:
        load(node, "put", size=KIB, count=count, connections=64, write_ids=node.ids)
        journal = node.stats()["journal"]
        ctx.report.note("  while it was filled", snapshots=journal["snapshots"],
                        compacted_events=journal["compacted_events"],
                        event_MiB=journal["event_bytes"] / MIB)
        _compact(ctx, node, "all")
        _compact(ctx, node, "again, nothing new")
        load(node, "put", size=KIB, count=count // 10, connections=64)
        _compact(ctx, node, f"{count // 10:,} later puts")
        before = node.stats()["journal"]["digest"]
        node.stop()
        ctx.report.note("  rebuild from the snapshot",
                        seconds=_ctl(node, "journal", "rebuild"))
        node.start()
        assert node.stats()["journal"]["digest"] == before, "another digest after the rebuild"
