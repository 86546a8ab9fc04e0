"""What makes the load: wrk, and our own generator for what wrk cannot do."""

import json
import pathlib
import re
import subprocess

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = TOP / "build/bench"
LOAD = BUILD / "load"
HOLD = BUILD / "hold"
VISIBLE = BUILD / "visible"
DIFFER = BUILD / "differ"  # made by make
LIMIT_S = 600  # no single run of a tool takes longer

_WRK_SCRIPT = """
{setup}
done = function(summary, latency)
    local errors = summary.errors
    print(string.format(
        '{{"requests": %d, "errors": %d, "seconds": %.6f, "bytes": %d, ' ..
        '"p50_us": %.1f, "p99_us": %.1f, "p999_us": %.1f, "max_us": %.1f}}',
        summary.requests, errors.connect + errors.read + errors.write + errors.status +
        errors.timeout, summary.duration / 1e6, summary.bytes, latency:percentile(50),
        latency:percentile(99), latency:percentile(99.9), latency.max))
end
"""
_WRK_PUT = """
wrk.method = "PUT"
wrk.body = string.rep("0123456789abcdef", {size} / 16)
"""


class Failed(Exception):
    """A tool that did not do its work; a case that was under way has no result."""


def build_load():
    """Compile the generators where their sources are newer."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for program, *headers in (LOAD, "histogram.h"), (HOLD,), (VISIBLE, "histogram.h"):
        source = TOP / f"tests/bench/{program.name}.c"
        sources = [source, *(source.with_name(name) for name in headers)]
        if program.exists() and all(program.stat().st_mtime > s.stat().st_mtime for s in sources):
            continue
        subprocess.run(["cc", "-std=gnu11", "-O2", "-g", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
                        "-o", str(program), str(source)], check=True)


def measured(command, server, answer_bytes=None, put_bytes=None):
    """Run a tool that prints its figures as JSON, and add the CPU that SERVER used meanwhile. With
    ANSWER_BYTES a request is so many bytes received, since of large bodies many are still under
    way when the time is up; PUT_BYTES were sent with each (wrk counts only what it receives)."""
    before = server.cpu_ns()
    done = subprocess.run([str(a) for a in command], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
    used = server.cpu_ns() - before
    found = re.search(r"^\{.*\}$", done.stdout, re.M)
    if done.returncode or not found:
        raise Failed(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    result = json.loads(found.group())
    if result["errors"] or not result["requests"]:
        raise Failed(f"{command[0]}: {result['errors']} of {result['requests']} requests failed")
    if answer_bytes:
        result["requests"] = result["bytes"] / answer_bytes
    result["cpu_us"] = used / result["requests"] / 1000
    result["per_s"] = result["requests"] / result["seconds"]
    if put_bytes:
        result["bytes"] = result["requests"] * put_bytes
    result["mb_s"] = result["bytes"] / result["seconds"] / 1e6
    return result


def wrk(server, path, connections, seconds, put_size=None, get_size=None, threads=None):
    """Closed loop: GET PATH, of GET_SIZE bytes, or PUT bodies of PUT_SIZE to it."""
    script = BUILD / f"wrk-{put_size or 'get'}.lua"
    setup = _WRK_PUT.format(size=put_size) if put_size else ""
    script.write_text(_WRK_SCRIPT.format(setup=setup))
    threads = threads or min(2, connections)
    return measured(["wrk", "-t", threads, "-c", connections, "-d", f"{seconds}s", "--timeout",
                     "10s", "-s", script, server.url + path], server, get_size, put_size)


def load_command(server, verb, **options):
    """The generator's command line; options are named as its long options are."""
    command = [str(LOAD), verb, "--port", str(server.port)]
    for name, value in options.items():
        if value is None or value is False:
            continue
        command.append("--" + name.replace("_", "-"))
        if value is not True:
            command.append(str(value))
    return command


def load(server, verb, **options):
    return measured(load_command(server, verb, **options), server)
