"""The ancestor's README tour, with real curl, as printed."""

import re
import subprocess

from harness import clean_environment


def shell(node, line, cwd):
    """One line of the tour: its stdout and stderr. Only the port differs from what is printed."""
    line = line.replace("localhost:10999", f"127.0.0.1:{node.port}")
    done = subprocess.run(["bash", "-c", line], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=clean_environment(), timeout=60)
    assert done.returncode == 0, done
    return done


def header(done, name):
    found = re.findall(rf"^< {re.escape(name)}: (.*?)\r?$", done.stderr, re.MULTILINE | re.IGNORECASE)
    return found[0] if found else None


def test_the_tour(node, tmp_path):
    """id → put with -d and the X-Meta headers → get → its headers, shown by -v."""
    (tmp_path / "test.txt").write_text("It works!")
    object_id = shell(node, "curl localhost:10999/api/v1/id", tmp_path).stdout.strip()
    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", object_id)
    put = shell(node, 'curl -d @test.txt -H "X-Meta-ConsistencyLevel: 2" -H "X-Meta-Name: test.txt" '
                f'-H "X-Meta-ID: {object_id}" localhost:10999/api/v1/put', tmp_path)
    assert f'"id":"{object_id}"' in put.stdout
    got = shell(node, f"curl localhost:10999/api/v1/get/{object_id}", tmp_path)
    assert got.stdout == "It works!"
    shown = shell(node, f"curl -v localhost:10999/api/v1/get/{object_id}", tmp_path)
    assert "< HTTP/1.1 200 OK" in shown.stderr
    for name, value in (("Accept-Ranges", "bytes"), ("Content-Length", "9"),
                        ("Content-Type", "text/plain; charset=utf-8"), ("X-Meta-ConsistencyLevel", "2"),
                        ("X-Meta-Id", object_id), ("X-Meta-Name", "test.txt")):
        assert header(shown, name) == value
    for name in ("Last-Modified", "Date"):
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", header(shown, name))
    for name in ("X-Meta-Symlink", "X-Meta-Fetched", "X-Meta-Deleted"):
        assert header(shown, name) is None
    missing = shell(node, f'curl -v localhost:10999/api/v1/get/{object_id[:-4]}0000', tmp_path)
    assert "< HTTP/1.1 404 Not Found" in missing.stderr
    deleted = shell(node, f"curl -X POST localhost:10999/api/v1/delete/{object_id}", tmp_path)
    assert '"is_deleted":true' in deleted.stdout
    gone = shell(node, f'curl -v -H "X-Meta-Fetch: 1" localhost:10999/api/v1/get/{object_id}', tmp_path)
    assert "< HTTP/1.1 404 Not Found" in gone.stderr and header(gone, "X-Meta-Deleted") == "true"


def test_other_ways_with_curl(node, tmp_path):
    """-T from a file and from a pipe, ranges, resume, -z, --compressed, HTTP/1.0."""
    data = bytes(range(256)) * 5000
    (tmp_path / "data.bin").write_bytes(data)
    url = "localhost:10999/api/v1"
    for upload in (f"curl -sS -T data.bin {url}/put", f"cat data.bin | curl -sS -T - {url}/put",
                   f"curl -sS --data-binary @data.bin {url}/put", f"curl -sS -0 -T data.bin {url}/put",
                   f"curl -sS -X PUT --data-binary @data.bin -H 'Expect: 100-continue' {url}/put"):
        document = shell(node, upload, tmp_path).stdout
        object_id = re.search(r'"id":"(\w+)"', document)[1]
        assert '"size":1280000' in document, upload
        shell(node, f"curl -sS --fail {url}/get/{object_id} -o out.bin", tmp_path)
        assert (tmp_path / "out.bin").read_bytes() == data
    (tmp_path / "out.bin").write_bytes(data[:700000])
    shell(node, f"curl -sS --fail -C - {url}/get/{object_id} -o out.bin", tmp_path)
    assert (tmp_path / "out.bin").read_bytes() == data
    shell(node, f"curl -sS -r 100-355 {url}/get/{object_id} -o part.bin", tmp_path)
    assert (tmp_path / "part.bin").read_bytes() == data[100:356]
    code = shell(node, f"curl -sS -o /dev/null -w '%{{http_code}}' -z 'Fri, 01 Jan 2100 00:00:00 GMT' "
                 f"{url}/get/{object_id}", tmp_path)
    assert code.stdout == "304"
    code = shell(node, f"curl -sS --compressed -I -w '%{{http_code}}' -o /dev/null {url}/get/{object_id}", tmp_path)
    assert code.stdout == "200"
