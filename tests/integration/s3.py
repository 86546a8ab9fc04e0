"""A real S3 server for tests (versitygw on a directory), and the program that drives our backend."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import threading
import urllib.error
import urllib.request

import harness
import pytest

PROGRAM = os.environ.get("VERSITYGW_BIN", "")
DRIVE = pathlib.Path(harness.OBJSTORE).parent / "cloud_drive"
KEY, SECRET, REGION, BUCKET = "tester", "a-secret-of-tests", "us-east-1", "bucket-one"


def environment(**extra):
    """Ours, without anybody's credentials or proxies."""
    env = {k: v for k, v in harness.clean_environment().items()
           if not k.startswith("AWS_") and not k.lower().endswith("_proxy")}
    env.update(HOME="/nonexistent", AWS_EC2_METADATA_DISABLED="true")
    env.update(extra)
    return {k: v for k, v in env.items() if v is not None}


def credentials(key=KEY, secret=SECRET, **extra):
    return environment(AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret, **extra)


class Server:
    """versitygw on loopback, with one bucket. Its requests are counted by its access log."""

    def __init__(self, directory, cert=None, key=None, port=None):
        if not PROGRAM:
            pytest.skip("no versitygw (see scripts/versitygw.sh)")
        self.directory = pathlib.Path(directory)
        self.data = self.directory / "s3"
        self.data.mkdir(exist_ok=True)
        (self.data / BUCKET).mkdir(exist_ok=True)
        self.log = self.directory / "s3-access.log"
        self.tls = [f"--cert={cert}", f"--key={key}"] if cert else []
        self.port = port or harness.free_port()
        self.endpoint = f"{'https' if cert else 'http'}://127.0.0.1:{self.port}"
        self.process = None
        self.seen = 0
        self.start()

    def start(self):
        self.output = open(self.directory / "s3.log", "ab")
        self.process = subprocess.Popen(
            [PROGRAM, f"--port=127.0.0.1:{self.port}", f"--region={REGION}", "--keep-alive", "--quiet",
             f"--access-log={self.log}", *self.tls, "posix", str(self.data)],
            env=environment(ROOT_ACCESS_KEY=KEY, ROOT_SECRET_KEY=SECRET),
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT)
        harness.wait_for(self.answers, "versitygw answers")
        self.requests()

    def answers(self):
        assert self.process.poll() is None, (self.directory / "s3.log").read_text()
        with contextlib.closing(harness.socket.socket()) as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(harness.PATIENCE_S)
            self.process = None
            self.output.close()

    def requests(self):
        """What was asked since the last call: (operation, path, status), in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        fresh, self.seen = lines[self.seen:], len(lines)
        found = (re.search(r" s3_(\w+) \S+ (\S+) (\d{3}) ", line) for line in fresh)
        return [(m[1], m[2], int(m[3])) for m in found if m]

    def client(self):
        """boto3's, as anybody else would use it."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
            region_name=REGION, config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}))


def tls_server(place):
    """One whose certificate only its own authority vouches for: that is at `certificate`."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", place / "key.pem", "-out", place / "cert.pem"], check=True, capture_output=True)
    made = Server(place, cert=place / "cert.pem", key=place / "key.pem")
    made.certificate = place / "cert.pem"
    return made


class Drive:
    """The backend under test, behind tests/tools/cloud_drive.c."""

    def __init__(self, endpoint, env=None, **config):
        config = {"endpoint": endpoint, "bucket": BUCKET, "path_style": True, "region": REGION, **config}
        self.process = subprocess.Popen([DRIVE], env=env or credentials(), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.errors = []
        self.logger = threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True)
        self.logger.start()
        self.replies, self.changed, self.last = {}, threading.Condition(), 0
        self.tell(config)
        alarm = threading.Timer(harness.PATIENCE_S, self.process.kill)
        alarm.start()
        self.opened = json.loads(self.process.stdout.readline() or "{}")
        alarm.cancel()
        self.reader = threading.Thread(target=self.hear, daemon=True)
        self.reader.start()

    def tell(self, message):
        self.process.stdin.write(json.dumps({k: str(v) if isinstance(v, pathlib.Path) else v
                                             for k, v in message.items() if v is not None}) + "\n")
        self.process.stdin.flush()

    def hear(self):
        for line in self.process.stdout:
            reply = json.loads(line)
            with self.changed:
                self.replies[reply["id"]] = reply
                self.changed.notify_all()
        with self.changed:
            self.replies[None] = True
            self.changed.notify_all()

    def start(self, op, key=None, **more):
        """Begin a request: its number."""
        self.last += 1
        self.tell({"id": self.last, "op": op, "key": key, **more})
        return self.last

    def done(self, number):
        return number in self.replies

    def wait(self, number, timeout_s=60):
        with self.changed:
            assert self.changed.wait_for(lambda: number in self.replies or None in self.replies,
                                         timeout_s), f"request {number} does not end: {self.log()}"
            assert number in self.replies, f"cloud_drive ended: {self.log()}"
            return self.replies[number]

    def do(self, op, key=None, **more):
        return self.wait(self.start(op, key, **more))

    def figures(self):
        return self.do("figures")

    def log(self):
        return "".join(self.errors)

    def close(self):
        if self.process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        code = self.process.wait(harness.PATIENCE_S)
        self.logger.join(harness.PATIENCE_S)
        assert not harness.ALARM.search(self.log()), self.log()
        assert SECRET not in self.log()
        assert code == 0, f"cloud_drive ended with {code}: {self.log()}"

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.process.kill()
            self.process.wait()
        else:
            self.close()


def put_file(path, data):
    pathlib.Path(path).write_bytes(data)
    return path
