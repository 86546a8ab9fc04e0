"""What probing costs and how soon it tells: the simulator's figures, in virtual time."""

import os
import re
import subprocess

from tools import LIMIT_S, TOP, Failed

SIMULATOR = "build/unit/probe_sim_test"
KIB = 1 << 10


def probes(ctx):
    hours = ctx.pick(24, 168)
    ctx.report.heading(f"probes in the simulator: 32 nodes; {hours} hours of 8 nodes at 5 % loss")
    subprocess.run(["make", "--no-print-directory", SIMULATOR], cwd=TOP, check=True,
                   stdout=subprocess.DEVNULL)
    done = subprocess.run([str(TOP / SIMULATOR)], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=LIMIT_S,
                          env={**os.environ, "PROBE_HOURS": str(hours)})
    found = {name: float(value) for name, value in re.findall(r"figure: (\w+) (\S+)", done.stdout)}
    if done.returncode or found.get("hours") != hours:
        raise Failed(f"the simulator failed:\n{done.stdout}")
    report = ctx.report
    report.at_most("32 nodes: bytes a node and second, in and out", 20 * KIB,
                   found["probes_bytes_a_second"], "bytes/s")
    report.at_most("a crash is known to all after", 5000, found["crash_known_ms"], "ms")
    report.at_most(f"false failures in {hours} hours", 0, found["false_failures"])
    report.note("  suspicions that passed", count=found["suspicions"])
