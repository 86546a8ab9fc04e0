"""Nodes under test: real processes of the built binaries, on real sockets and directories."""

import contextlib
import hashlib
import itertools
import os
import pathlib
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import wire

TOP = pathlib.Path(__file__).resolve().parents[2]
OBJSTORE = os.environ.get("OBJSTORE_BIN", str(TOP / "build/objstore"))
OBJCTL = os.environ.get("OBJCTL_BIN", str(TOP / "build/objctl"))
FIGURES = []  # lines for the end of the run: counts that a document quotes
PATIENCE_S = wire.PATIENCE_S
INLINE = 256 << 10
BLOCK = 64 << 10
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# What a process of ours must never print.
ALARM = re.compile(r"(Sanitizer|runtime error:|[Aa]ssertion .*failed|SUMMARY: |stack smashing|"
                   r"buffer overflow detected|corrupted|double free)")


# ---- Small things ----


def ulid(time_ms=None, random_bits=None):
    """A ULID; by default a fresh one of now."""
    time_ms = int(time.time() * 1000) if time_ms is None else time_ms
    bits = secrets.randbits(80) if random_bits is None else random_bits
    number = time_ms << 80 | bits
    return "".join(CROCKFORD[number >> 5 * i & 31] for i in reversed(range(26)))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def noise(size, seed=0):
    """SIZE bytes, the same for the same seed, in which no block equals another."""
    return random.Random(f"{seed}/{size}").randbytes(size)


def wait_for(condition, what, timeout_s=PATIENCE_S):
    """Ask until CONDITION holds, and give what it returned."""
    end = time.monotonic() + timeout_s
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain: {what}")
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


# So that two runs at once never want the same ports, each has 9,000 from TEST_PORTS on; connections
# are given higher ones by the kernel. The second half is cluster.stable_port's.
FIRST_PORT = int(os.environ.get("TEST_PORTS", "13000"))
_ports = itertools.cycle(range(FIRST_PORT, FIRST_PORT + 4500))


def free_port():
    for port in itertools.islice(_ports, 4500):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


def clean_environment(extra=None):
    """The environment without any variable that is a setting of ours."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("OBJSTORE_", "APP_", "NET_", "S3_"))}
    env.update(extra or {})
    return env


def run(arguments, env=None, **more):
    """A program to its end: CompletedProcess with text output."""
    return subprocess.run([str(a) for a in arguments], env=clean_environment(env),
                          stdin=more.pop("stdin", None if "input" in more else subprocess.DEVNULL),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=more.pop("timeout", PATIENCE_S),
                          encoding=more.pop("encoding", "utf-8"), **more)


# ---- Namespaces: another machine's address, and a small disk, without leaving traces ----

_HOLDER = """
import fcntl, os, socket, struct, sys
try:
    if "net" in sys.argv:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for name, address in (("lo", "127.0.0.1"), ("lo:1", "10.99.0.1")):
            address = struct.pack("16sH2s4s8x", name.encode(), socket.AF_INET, b"",
                                  socket.inet_aton(address))
            fcntl.ioctl(sock, 0x8916, address)
            fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", name.encode(), 0x49))
    print("ready", flush=True)
except OSError as error:
    print(error, flush=True)
sys.stdin.read()
"""


class Namespace:
    """A network or mount namespace, kept by a process that lives as long as this does. Where there
    is neither root nor user namespaces, making one raises OSError."""

    def __init__(self, kind):
        assert kind in ("net", "mount")
        self.user = os.geteuid() != 0
        letters = "-n" if kind == "net" else "-m"
        command = ["unshare", *(["-r"] if self.user else []), letters,
                   "--kill-child=KILL", "--fork", sys.executable, "-c", _HOLDER, kind]
        # --fork: the holder is a child of unshare's, so its id is asked for.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
        line = self.process.stdout.readline().decode().strip()
        if line != "ready":
            self.close()
            raise OSError(line or "unshare is refused")
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.pid = int(children.read_text().split()[0])
        self.kind = kind

    def enter(self):
        """What to put before a command to run it inside."""
        user = ["-U", "--preserve-credentials"] if self.user else []
        return ["nsenter", "-t", str(self.pid), *user, "-n" if self.kind == "net" else "-m", "--"]

    def run(self, arguments, **more):
        return run([*self.enter(), *arguments], **more)

    def path(self, path):
        """PATH as seen inside, for us outside."""
        return pathlib.Path(f"/proc/{self.pid}/root{path}")

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


# ---- Nodes ----


class Node:
    """One objstore process and its directories."""

    def __init__(self, base, name="node", options=(), env=None, state=None, files=None,
                 namespace=None, binary=OBJSTORE, public="127.0.0.1", user=None):
        self.base = pathlib.Path(base)
        self.name, self.options, self.env = name, list(options), env
        self.state = pathlib.Path(state or self.base / name / "state")
        self.files = pathlib.Path(files or self.base / name / "files")
        (self.base / name).mkdir(parents=True, exist_ok=True)
        self.namespace, self.binary, self.public, self.user = namespace, binary, public, user
        self.process = None
        self.port = None
        self.runs = 0
        self.log_path = None
        self.kept_log = None  # once its file is gone
        self.http = None

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def command(self, *extra):
        inside = self.namespace.enter() if self.namespace else []
        user = ["--reuid", str(self.user), "--regid", str(self.user), "--clear-groups"]
        return [*inside, "setpriv", "--pdeathsig", "KILL", *(user if self.user else []), self.binary,
                "--public-addr", f"{self.public}:{self.port}", "--private-addr", "127.0.0.1:0",
                "--state-dir", str(self.state), "--files-dir", str(self.files),
                *self.options, *extra]

    def launch(self, *extra):
        """Start the process and return at once."""
        assert not self.process, "it runs already"
        self.runs += 1
        self.log_path = self.base / self.name / f"log.{self.runs}"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([str(a) for a in self.command(*extra)], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log,
                                            env=clean_environment(self.env))

    def start(self, *extra):
        """Start it and wait until it is ready."""
        for _ in range(5):
            self.port = self.port or free_port()
            self.launch(*extra)
            code = wait_for(self._ready_or_code, f"{self.name} to be ready\n{self.log()}")
            if code is True:
                self.http = wire.Client(self.address)
                return self
            self.process = None
            # Between choosing the port and binding it somebody else took it.
            if code != 69 or "in use" not in self.log():
                break
            self.port = None
        raise AssertionError(f"{self.name} ended with {code} at its start:\n{self.log()}")

    def _ready_or_code(self):
        code = self.process.poll()
        if code is not None:
            return code if code else "exit 0"
        if self.namespace and self.namespace.kind == "net":
            answer = self.namespace.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
                                         f"{self.url}/readyz"])
            return answer.stdout == "200"
        try:
            with wire.Connection(self.address) as connection:
                return connection.request("GET", "/readyz").status == 200
        except (OSError, wire.Broken):
            return False

    def end_of(self, timeout_s=PATIENCE_S):
        """Launched to fail: its exit code and log."""
        process, self.process = self.process, None
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} did not end:\n{self.log()}") from None
        self.check_log()
        return code, self.log()

    def fails(self, *extra):
        """Start it, expecting that it refuses: exit code and log."""
        self.port = self.port or free_port()
        self.launch(*extra)
        return self.end_of()

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, expect=0):
        """SIGTERM, and a clean end."""
        self._drop_client()
        self.signal(signal.SIGTERM)
        code, log = self.end_of()
        assert code == expect, f"{self.name} ended with {code}:\n{log}"

    def kill(self):
        """As if the machine had lost it in the middle of whatever it does."""
        self._drop_client()
        self.process.kill()
        self.process.wait()
        self.process = None
        self.check_log()

    def restart(self):
        self.stop()
        return self.start()

    def _drop_client(self):
        if self.http:
            self.http.close()

    def close(self):
        """At the end of a test: it must still be alive, and end well."""
        if not self.process:
            return
        code = self.process.poll()
        if code is not None:
            self.process = None
            raise AssertionError(f"{self.name} died with {code}:\n{self.log()}")
        self.stop()

    def abandon(self):
        """The test has failed already: only get rid of it."""
        self._drop_client()
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.kept_log = self.log()

    # ---- Looking at it ----

    def log(self):
        if self.kept_log is not None:
            return self.kept_log
        return self.log_path.read_text(errors="replace") if self.log_path else ""

    def check_log(self):
        found = ALARM.search(self.log())
        assert not found, f"{self.name}: {found.group()} in its log:\n{self.log()}"

    def stats(self):
        return self.http.stats()

    def temporaries(self):
        path = self.files / "tmp"
        return sorted(p.name for p in path.iterdir()) if path.exists() else []

    def segments(self):
        return sorted((self.files / "log").glob("*.seg"))

    def large_files(self):
        return sorted(p for p in (self.files / "large").rglob("*") if p.is_file())

    def facts(self):
        """What bad input must leave as it is."""
        stats = self.stats()
        return stats["journal"]["events"], stats["journal"]["digest"], stats["objects"]

    @contextlib.contextmanager
    def unchanged(self):
        """What happens inside changes neither facts nor leaves a temporary file."""
        before = self.facts()
        yield
        assert self.facts() == before
        wait_for(lambda: not self.temporaries(), f"temporary files to go: {self.temporaries()}")

    def resident_bytes(self, field="VmHWM"):
        """A size of /proc/PID/status. setpriv replaces itself, so the id is the node's."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) << 10
        raise AssertionError(field)

    def ctl(self, *arguments, **more):
        """objctl on this node: over its address, and for the offline commands on its directories."""
        env = {"OBJSTORE_ADDR": f"127.0.0.1:{self.port}", "OBJSTORE_STATE_DIR": str(self.state),
               "OBJSTORE_FILES_DIR": str(self.files), **more.pop("env", {})}
        done = run([OBJCTL, *arguments], env=env, **more)
        text = done.stderr if isinstance(done.stderr, str) else done.stderr.decode(errors="replace")
        assert not ALARM.search(text), text
        return done


class Nodes:
    """The nodes of one test or module, and the directory (in WHERE) they live in."""

    def __init__(self, where=None):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="objstore-test-", dir=where))
        self.all = []
        self.namespaces = []

    def make(self, name=None, **more):
        node = Node(self.base, name or f"node{len(self.all)}", **more)
        self.all.append(node)
        return node

    def start(self, *options, **more):
        return self.make(options=options, **more).start()

    def namespace(self, kind):
        made = Namespace(kind)
        self.namespaces.append(made)
        return made

    def logs(self):
        return "".join(f"---- {n.name}, run {n.runs}:\n{n.log()[-8000:]}" for n in self.all)

    def close(self, failed):
        try:
            for node in self.all:
                if not failed:
                    node.close()
        finally:
            for node in self.all:
                node.abandon()
            for namespace in self.namespaces:
                namespace.close()
            if not os.environ.get("OBJSTORE_TEST_KEEP"):
                shutil.rmtree(self.base, ignore_errors=True)


def sanitized():
    """The binary was built with a sanitizer: numbers of memory and speed mean nothing."""
    with open(OBJSTORE, "rb") as binary:
        data = binary.read()
    return b"__asan_" in data or b"__tsan_" in data


