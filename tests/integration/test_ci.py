"""What .ci/run makes of steps that fail, hang or find no time left."""

import time

import pytest

from harness import TOP, run

MAKE = """#!/bin/sh
[ "$1" != "$HANGS" ] || exec sleep 60
echo "$1: done"
[ "$1" != "$FAILS" ]
"""


@pytest.mark.parametrize("env,code,says", [
    ({}, 0, ["lint passed", "test passed"]),
    ({"FAILS": "lint"}, 1, ["lint FAILED", "test passed", "why lint failed"]),
    ({"HANGS": "test"}, 1, ["lint passed", "test TIMED OUT", "why test failed"]),
    ({"HANGS": "lint"}, 1, ["lint TIMED OUT", "test NOT RUN", "why lint failed"])])
def test_ci_run(tmp_path, env, code, says):
    """Both steps have their outcome and cause told, within the time for the whole."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((TOP / ".ci" / "run").read_bytes())
    (tmp_path / "bin" / "make").write_text(MAKE)
    (tmp_path / "bin" / "make").chmod(0o755)
    begun = time.monotonic()
    done = run(["bash", tmp_path / ".ci" / "run"],
               env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "CI_SECONDS": "17", **env})
    assert time.monotonic() - begun < 17
    assert done.returncode == code, done
    for text in says:
        assert text in done.stdout, done.stdout
