"""Nodes that belong together, all on this machine, with a secret: what goes between them is
encrypted as it would be between machines."""

import contextlib
import os
import pathlib
import socket
import subprocess
import time

from servers import OBJSTORE, Node
from tools import LIMIT_S, Failed

OBJCTL = os.environ.get("OBJCTL_BIN") or str(pathlib.Path(OBJSTORE).with_name("objctl"))


class Peer(Node):
    def __init__(self, base, name, secret, seeds=(), *options):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.private_addr = f"127.0.0.1:{sock.getsockname()[1]}"
        seeds = [word for seed in seeds for word in ("-N", seed.private_addr)]
        super().__init__(base, name, "--cluster-secret-file", str(secret), *seeds, *options)

    def link_bytes(self):
        """Sent and received so far, before encryption."""
        link = self.stats()["link"]
        return link["bytes_in"] + link["bytes_out"]

    def digest(self):
        """Of all facts; None while some are not yet in the database."""
        stats = self.stats()
        return None if stats["commit"]["pending"] else stats["journal"]["digest"]

    def ctl(self, *arguments):
        """Run objctl on its directories."""
        subprocess.run([OBJCTL, *arguments, "--state-dir", str(self.base / "state"), "--files-dir",
                        str(self.base / "files"), "-q"], check=True, timeout=LIMIT_S)

    def cpu_by_thread(self):
        """CPU seconds by thread name."""
        found = {}
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                name = (task / "comm").read_text().strip()
                used = int((task / "schedstat").read_text().split()[0]) / 1e9
                found[name] = found.get(name, 0) + used
        return found


@contextlib.contextmanager
def peers(ctx):
    """Gives a function that makes a node, not yet started, of one cluster; all are removed at the
    end."""
    secret = ctx.data / "secret"
    made = []
    secret.write_text(subprocess.run([OBJCTL, "cluster", "secret"], check=True, text=True,
                                     stdout=subprocess.PIPE).stdout)
    secret.chmod(0o600)

    def make(name, *seeds, options=()):
        made.append(Peer(ctx.data, name, secret, seeds, *options))
        return made[-1]

    try:
        yield make
    finally:
        for node in made:
            node.remove()


def wait_until(condition, what, limit_s=120, pause_s=0.02):
    """Seconds until CONDITION holds."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > limit_s:
            raise Failed(f"not within {limit_s} s: {what}")
        time.sleep(pause_s)
    return time.monotonic() - begun


def agree(*nodes):
    digests = {node.digest() for node in nodes}
    return len(digests) == 1 and None not in digests


def wait_equal(*nodes):
    return wait_until(lambda: agree(*nodes), "the same facts on " + ", ".join(n.name for n in nodes))


def wait_alive(*nodes):
    """Each sees all others."""
    wait_until(lambda: all(node.stats()["cluster"]["alive"] == len(nodes) for node in nodes),
               "nodes that see each other")


class Watch:
    """The largest RssAnon of nodes since it began, looked at now and then."""

    def __init__(self, *nodes):
        self.nodes = nodes
        self.peak = {node: 0 for node in nodes}

    def look(self):
        for node in self.nodes:
            self.peak[node] = max(self.peak[node], node.memory()["RssAnon"])
        return True
