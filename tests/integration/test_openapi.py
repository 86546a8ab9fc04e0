"""schemathesis runs docs/openapi.yaml against a node: what it promises is what the node does."""

import os
import pathlib
import re
import subprocess
import sys

import yaml

from harness import TOP, clean_environment

OPTIONS = ("--access-log=yes",)
DOCUMENT = TOP / "docs" / "openapi.yaml"


def test_every_path_is_described(node, http):
    """Each path of the document is served, each of the issue's is in the document."""
    paths = yaml.safe_load(DOCUMENT.read_text())["paths"]
    expected = {"/api/v1/put", "/api/v1/get/{id}", "/api/v1/meta/{id}", "/api/v1/delete/{id}", "/api/v1/id",
                "/api/v1/ping", "/api/v1/version", "/api/v1/stats", "/metrics", "/healthz", "/readyz"}
    assert set(paths) == expected
    for path in paths:
        reply = http.request("OPTIONS", path.replace("{id}", "01BRNMMS1DK3CBD4ZZM2TQ8C5B"))
        assert reply.status == 405, path
        allowed = set(reply.header("Allow").lower().split(", "))
        described = {m for m in paths[path] if m in ("get", "head", "put", "post", "delete")}
        assert described <= allowed and allowed - described <= {"head"}, path


def test_schemathesis(node, tmp_path):
    """Statuses, media types, headers and documents are those described, for good and bad input; no
    answer is a 5xx; the node lives."""
    # Of the methods that a path does not have: those that we know. Others are 501 (RFC 9110 §9.1).
    (tmp_path / "schemathesis.toml").write_text(
        '[phases.coverage]\nunexpected-methods = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE"]\n')
    schemathesis = pathlib.Path(sys.executable).with_name("schemathesis")
    command = [schemathesis, "run", DOCUMENT, "--url", node.url, "--phases", "examples,coverage,fuzzing",
               "--max-examples", "20", "--generation-deterministic",
               "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
               "response_headers_conformance,response_schema_conformance,allow_header_conformance,"
               "unsupported_method", "--request-timeout", "30", "--warnings", "off",
               "--suppress-health-check", "all", "--no-color"]
    done = subprocess.run([str(c) for c in command], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=400,
                          env={**clean_environment(), "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis"),
                               "HOME": os.environ.get("HOME", str(tmp_path))})
    assert done.returncode == 0, done.stdout[-12000:]
    # readyz says 503 while the node starts.
    failed = [line for line in node.log().splitlines() if re.search(r" access \S+ (?!/readyz)\S+ 5\d\d ", line)]
    assert not failed, failed
    assert node.stats()["http"]["requests"]["2xx"] > 100 < node.stats()["http"]["requests"]["4xx"]
