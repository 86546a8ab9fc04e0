"""What a signal leaves behind, and a node as the first process of a container."""

import pathlib
import signal
import socket
import subprocess

import pytest

from harness import OBJCTL, OBJSTORE, run, wait_for


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_get_leaves_nothing(tmp_path, number):
    """objctl get writes beside its target; a signal in the middle removes that and ends objctl as
    the signal would."""
    (tmp_path / "target").write_bytes(b"precious")
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = subprocess.Popen([OBJCTL, "get", "-o", str(tmp_path / "target"), "01BRNMMS1DK3CBD4ZZM2TQ8C5B",
                                    "--addr", "127.0.0.1:%d" % server.getsockname()[1]],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        connection = server.accept()[0]
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nETag: \"00\"\r\nContent-Length: 1000\r\n\r\nsome bytes")
            wait_for(lambda: any(p.stat().st_size == 10 for p in tmp_path.iterdir()), "the first bytes")
            process.send_signal(number)
            process.communicate(timeout=30)
    assert process.returncode == -number
    assert [p.name for p in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_as_process_1(nodes):
    """The kernel gives process 1 no default actions; SIGTERM ends the node in order all the same."""
    inside = ["unshare", "--pid", "--fork", "--kill-child=KILL"]
    if run([*inside, "true"]).returncode != 0:
        pytest.skip("no pid namespace here")
    node = nodes.make()
    node.command = lambda *extra: ["setpriv", "--pdeathsig", "KILL", *inside, OBJSTORE,
                                   "--public-addr", f"127.0.0.1:{node.port}", "--private-addr", "127.0.0.1:0",
                                   "--state-dir", str(node.state), "--files-dir", str(node.files), *extra]
    node.start()
    stored = node.http.stored(b"kept by process 1")
    parent = node.process.pid
    child = int(pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
    status = pathlib.Path(f"/proc/{child}/status").read_text()
    assert next(line for line in status.splitlines() if line.startswith("NSpid")).split()[-1] == "1"
    node.signal = lambda number: run(["kill", f"-{int(number)}", str(child)])
    node.stop()
    assert "stopped" in node.log()
    node = nodes.make(state=node.state, files=node.files)
    assert node.start().http.get(stored["id"]).body == b"kept by process 1"
