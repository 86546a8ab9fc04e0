"""What every case needs: the report, the pace, and a directory that is gone afterwards."""

import contextlib
import dataclasses
import pathlib

import machine
from report import Report
from servers import Nginx, Node


@dataclasses.dataclass
class Context:
    report: Report
    data: pathlib.Path
    quick: bool
    rounds: int
    seconds: float

    def disk_now(self):
        """What the disk does at this moment, beside the figures that depend on it."""
        p50, p99 = machine.sync_latency_us(self.data, 200)
        self.report.note("  bare fdatasync just now, us", p50=p50, p99=p99)

    def disk_beside(self, mb_s):
        """The same beside plain writes: what no server that syncs can go below."""
        p50, p99, got = machine.sync_latency_beside_us(self.data, mb_s)
        self.report.note("  bare fdatasync beside plain writes, us", p50=p50, p99=p99,
                         **{"MB/s": got})

    def pick(self, quick, full):
        return quick if self.quick else full

    @contextlib.contextmanager
    def node(self, name, *options):
        """A fresh node that runs, removed at the end."""
        node = Node(self.data, name, *options)
        try:
            node.start()
            yield node
        finally:
            node.remove()

    @contextlib.contextmanager
    def nginx(self, files):
        """nginx with FILES (name → bytes)."""
        server = Nginx(self.data)
        for name, body in files.items():
            server.add(name, body)
        try:
            server.start()
            yield server
        finally:
            server.stop()

    def alternate(self, runs):
        """RUNS (name → function) in turn, ROUNDS times, so that a noisy neighbour hits all of
        them alike; the figures by name, medians reported."""
        found = {name: [] for name in runs}
        for _ in range(self.rounds):
            for name, run in runs.items():
                found[name].append(run())
        return {name: self.report.case(name, rounds) for name, rounds in found.items()}
