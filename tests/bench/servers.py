"""The servers under measurement: processes, their CPU time and memory."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
OBJSTORE = os.environ.get("OBJSTORE_BIN", str(TOP / "build/objstore"))
PATIENCE_S = 60


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def answers(port, path="/"):
    """The status of a GET, None where nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                         .encode())
            found = re.match(rb"HTTP/1\.1 (\d+)", sock.recv(4096))
            return int(found.group(1)) if found else None
    except OSError:
        return None


class Server:
    """A process, and what the kernel counts of it."""

    process = None
    port = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def pids(self):
        return [self.process.pid]

    def cpu_ns(self):
        """CPU time of all its threads so far, in the kernel and outside."""
        total = 0
        for pid in self.pids():
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):  # a thread that ends is not one of the hot ones
                    total += int((task / "schedstat").read_text().split()[0])
        return total

    def settle(self, limit_s=30):
        """Wait until it rests: what earlier requests left to do is done, checkpoints for example;
        connections that came or went are seen to, and the buffers of slow readers are full."""
        end = time.monotonic() + limit_s
        used = self.cpu_ns()
        while True:
            time.sleep(0.2)
            before, used = used, self.cpu_ns()
            if used - before < 10e6:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not come to rest")

    def memory(self):
        """Sizes of /proc/PID/status in bytes: VmRSS, RssAnon, VmHWM …"""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return {k: int(v) << 10 for k, v in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}

    def wait_ready(self, path, pause_s=0.001):
        end = time.monotonic() + PATIENCE_S
        while answers(self.port, path) != 200:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not answer:\n{self.log()}")
            time.sleep(pause_s)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self, number=signal.SIGTERM):
        """End it and its workers; how long that took."""
        if not self.process:
            return 0
        process, self.process = self.process, None
        start = time.monotonic()
        process.send_signal(number)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return time.monotonic() - start

    def kill(self):
        self.stop(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.stop()


class Node(Server):
    """objstore with its directories below BASE."""

    private_addr = "127.0.0.1:0"

    def __init__(self, base, name, *options):
        self.name = f"objstore ({name})"
        self.base = base / name
        self.options = options
        self.base.mkdir(parents=True, exist_ok=True)
        self.log_path = self.base / "log"
        self.ids = self.base / "ids"

    def start(self):
        """Start it; milliseconds from exec to the first answer of /readyz."""
        self.port = self.port or free_port()
        environment = {k: v for k, v in os.environ.items()
                       if not k.startswith(("OBJSTORE_", "APP_", "NET_", "S3_"))}
        with open(self.log_path, "ab") as log:
            begun = time.monotonic()
            self.process = subprocess.Popen(
                [OBJSTORE, "--public-addr", f"127.0.0.1:{self.port}", "--private-addr", self.private_addr,
                 "--state-dir", str(self.base / "state"), "--files-dir", str(self.base / "files"), *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.wait_ready("/readyz")
        return (time.monotonic() - begun) * 1000

    def stats(self):
        import json
        import urllib.request
        with urllib.request.urlopen(self.url + "/api/v1/stats", timeout=10) as answer:
            return json.load(answer)

    def remove(self):
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)


_NGINX = """
daemon off;
worker_processes auto;
pid {dir}/pid;
error_log {dir}/error.log;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    open_file_cache max=20000 inactive=3600s;
    open_file_cache_valid 3600s;
    open_file_cache_min_uses 1;
    client_body_temp_path {dir}/tmp;
    proxy_temp_path {dir}/tmp;
    fastcgi_temp_path {dir}/tmp;
    uwsgi_temp_path {dir}/tmp;
    scgi_temp_path {dir}/tmp;
    server {{
        listen 127.0.0.1:{port};
        root {dir}/www;
    }}
}}
"""


class Nginx(Server):
    """The yardstick: plain files, as fast as its manual says how."""

    def __init__(self, base):
        self.name = "nginx"
        self.base = base / "nginx"
        (self.base / "www").mkdir(parents=True, exist_ok=True)
        (self.base / "tmp").mkdir(exist_ok=True)
        self.log_path = self.base / "error.log"

    def add(self, name, body):
        (self.base / "www" / name).write_bytes(body)

    def start(self):
        self.port = free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        config = self.base / "nginx.conf"
        config.write_text(_NGINX.format(dir=self.base, port=self.port, user=user))
        (self.base / "www" / "ready").write_text("ready\n")
        self.log_path.touch()
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        self.process = subprocess.Popen([program, "-p", str(self.base), "-c", str(config)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        self.wait_ready("/ready")

    def pids(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]


class Versitygw(Server):
    """A real S3 server: each bucket is a directory below BASE."""

    KEY, SECRET = "bench", "bench-secret"

    def __init__(self, base):
        self.name = "versitygw"
        self.base = base / "versitygw"
        (self.base / "buckets").mkdir(parents=True, exist_ok=True)
        self.log_path = self.base / "log"
        self.access_path = self.base / "access"

    def start(self):
        self.port = self.port or free_port()
        self.access_path.touch()
        # Nodes and boto3 find the key there, too.
        os.environ.update(AWS_ACCESS_KEY_ID=self.KEY, AWS_SECRET_ACCESS_KEY=self.SECRET)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.program(), "--access", self.KEY, "--secret", self.SECRET, "--port", f"127.0.0.1:{self.port}",
                 "--access-log", str(self.access_path), "--keep-alive", "--quiet", "posix",
                 "--default-etag", "0123456789abcdef0123456789abcdef", str(self.base / "buckets")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE_S
        while answers(self.port) is None:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not answer:\n{self.log()}")
            time.sleep(0.01)

    @staticmethod
    def program():
        found = os.environ.get("VERSITYGW_BIN") or subprocess.run(
            [TOP / "scripts/versitygw.sh"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout.strip()
        if not found:
            raise RuntimeError("no versitygw")
        return found

    def client(self):
        import boto3
        from botocore.config import Config
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1",
                            config=Config(s3={"addressing_style": "path"}, signature_version="s3v4",
                                          request_checksum_calculation="when_required"))

    def sparse(self, bucket, key, size, meta):
        """An object of SIZE zeros that takes no room."""
        with open(self.base / "buckets" / bucket / key, "wb") as out:
            out.truncate(size)
        # What a node would have said of it; else an import reads all of it.
        for name, value in meta.items():
            os.setxattr(out.name, f"user.X-Amz-Meta.{name}", value.encode())

    def count(self, operation, key):
        """Requests for KEY that it has answered."""
        return sum(f" s3_{operation} {key} " in line
                   for line in self.access_path.read_text(errors="replace").splitlines())

    def remove(self):
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)
