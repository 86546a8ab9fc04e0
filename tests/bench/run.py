#!/usr/bin/env python3
"""make bench: what a node costs and how long it takes, beside nginx on the same machine in the
same run. Prints a table and writes build/bench/results.json. Servers listen on the loopback alone,
and their data lies on the disk of this checkout and is removed at the end.

    make bench BENCH="--quick"             a minute or two
    make bench ONE=get,cluster             some cases: "cluster" is all of cluster-...
"""

import argparse
import os
import pathlib
import shutil
import signal
import sys

import case_cloud
import case_cluster
import case_compact
import case_replicate
import case_crowd
import case_get
import case_memory
import case_merge
import case_probe
import case_put
import case_scale
import machine
import tools
from context import Context
from report import Report

CASES = {
    "get": case_get.get_hot,
    "put": case_put.put_small,
    "put-medium": case_put.put_medium,
    "open-loop": case_put.put_open_loop,
    "idle": case_memory.idle,
    "through": case_memory.through,
    "crowd": case_crowd.crowd,
    "scale": case_scale.scale,
    "scale-random": case_scale.scale_random,
    "compact": case_compact.compact,
    "cluster-facts": case_cluster.facts,
    "cluster-merge": case_merge.merge,
    "cluster-visible": case_cluster.visible,
    "cluster-body": case_cluster.body,
    "cluster-replicate": case_replicate.replicate,
    "cluster-probes": case_probe.probes,
    "cloud-put": case_cloud.put,
    "cloud-cold": case_cloud.cold,
    "cloud-range": case_cloud.range_of_huge,
    "cloud-crowd": case_cloud.crowd,
    "cloud-drain": case_cloud.drain,
}
DATA = tools.TOP / "build/bench-data"


def picks(word, name):
    return name == word or name.startswith(word + "-") and word not in CASES


def parse():
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer objects")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of one run (4; quick: 2)")
    parser.add_argument("--only", default="", help="cases, or what they begin with, by comma: " + ", ".join(CASES))
    parser.add_argument("--json", type=pathlib.Path, default=tools.BUILD / "results.json")
    options = parser.parse_args()
    words = [word for word in options.only.split(",") if word]
    unknown = [word for word in words if not any(picks(word, name) for name in CASES)]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}")
    options.only = [name for name in CASES if not words or any(picks(word, name) for word in words)]
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = int(options.seconds or (2 if options.quick else 4))
    return options


def describe_machine(report):
    p50, p99 = machine.sync_latency_us(DATA)
    report.machine(processor=machine.processor(), cpus=os.cpu_count(),
                   load_average=round(os.getloadavg()[0], 2),
                   **{"fdatasync of 2 KiB, p50 / p99": f"{p50:.0f} / {p99:.0f} us",
                      "writing and syncing 256 MiB": f"{machine.write_mb_s(DATA):.0f} MB/s"})


def main():
    options = parse()
    tools.build_load()
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    report = Report(options.json, {"quick": options.quick, "rounds": options.rounds,
                                   "seconds": options.seconds})
    ctx = Context(report, DATA, options.quick, options.rounds, options.seconds)
    # So that an end from outside stops the servers, too.
    signal.signal(signal.SIGTERM, lambda *ignored: sys.exit(1))
    try:
        describe_machine(report)
        before = machine.cpu_ticks()
        for name, case in CASES.items():
            if name not in options.only:
                continue
            try:
                case(ctx)
            except (tools.Failed, RuntimeError) as error:
                report.failed(name, error)
        busy, stolen, total = (b - a for a, b in zip(before, machine.cpu_ticks()))
        report.machine(**{"CPU busy / stolen": f"{busy / total:.0%} / {stolen / total:.1%}"})
        report.write()
    finally:
        shutil.rmtree(DATA, ignore_errors=True)
    return 1 if report.document["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
