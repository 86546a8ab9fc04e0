"""Word to the service manager: READY=1, WATCHDOG=1, STOPPING=1 on $NOTIFY_SOCKET, as sd_notify(3) says."""

import socket
import threading
import time

import pytest

import wire
from harness import PATIENCE_S, free_port


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.heard = []

    def next(self, timeout_s=PATIENCE_S):
        """The next message as a dictionary, or None."""
        self.socket.settimeout(timeout_s)
        try:
            text = self.socket.recv(4096).decode()
        except TimeoutError:
            return None
        self.heard.append(dict(line.split("=", 1) for line in text.split("\n") if line))
        return self.heard[-1]

    def wait_for(self, name, value="1"):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if (self.next() or {}).get(name) == value:
                return
        raise AssertionError(f"no {name}={value} in {self.heard}")

    def close(self):
        self.socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request, nodes):
    path = str(nodes.base / "notify")
    made = Manager("\0" + path if request.param == "abstract" else path)
    made.variable = "@" + path if request.param == "abstract" else path
    yield made
    made.close()


def test_ready_and_stopping(nodes, manager):
    """READY=1 once, and not before the node serves; STOPPING=1 at SIGTERM, while a request under way
    still gets its answer; no WATCHDOG=1 where nobody asked for it."""
    node = nodes.make(env={"NOTIFY_SOCKET": manager.variable})
    node.start()  # waits for readyz; READY=1 is in the socket by then or comes
    manager.wait_for("READY")
    assert manager.heard[0]["READY"] == "1" and "STATUS" in manager.heard[0]
    with wire.Connection(node.address) as connection:
        connection.send(b"PUT /api/v1/put HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
        node.http.request("GET", "/api/v1/ping")  # the loops have taken the other request up, too
        node.signal(15)
        manager.wait_for("STOPPING")
        connection.send(b"dy")
        assert connection.read().status == 200
    node._drop_client()
    assert node.end_of()[0] == 0
    assert [set(message) - {"STATUS"} for message in manager.heard] == [{"READY"}, {"STOPPING"}]


def test_ready_means_ready(nodes, manager):
    """Whoever acts on READY=1 at once finds the node serving and taking writes."""
    node = nodes.make(env={"NOTIFY_SOCKET": manager.variable})
    codes = []

    def act():
        manager.wait_for("READY")
        with wire.Connection(node.address) as connection:
            codes.append(connection.request("GET", "/readyz").status)

    node.port = free_port()
    thread = threading.Thread(target=act)
    thread.start()
    node.start()
    thread.join()
    assert codes == [200]


def test_watchdog(nodes, manager):
    """WATCHDOG=1 twice in each $WATCHDOG_USEC while the loops answer; a process that hangs is silent."""
    node = nodes.start(env={"NOTIFY_SOCKET": manager.variable, "WATCHDOG_USEC": "400000"})
    manager.wait_for("READY")
    begun = time.monotonic()
    while manager.next(0.001):  # what was said while the start was waited for
        pass
    for _ in range(5):
        manager.wait_for("WATCHDOG")
    taken = time.monotonic() - begun
    assert taken > 4 * 0.2 * 0.9, "fed at half the interval, not faster"
    assert all(message == {"WATCHDOG": "1"} for message in manager.heard[1:])
    node.stop()
    manager.wait_for("STOPPING")


def test_watchdog_of_another_process(nodes, manager):
    """$WATCHDOG_PID names another process: not ours to feed."""
    node = nodes.start(env={"NOTIFY_SOCKET": manager.variable, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    manager.wait_for("READY")
    assert manager.next(0.5) is None
    node.stop()
    manager.wait_for("STOPPING")
    assert len(manager.heard) == 2


@pytest.mark.parametrize("address", ["", "relative", "/no/such/socket", "/" + "x" * 200])
def test_a_manager_that_does_not_listen(nodes, address):
    """No reason to stop."""
    node = nodes.start(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"})
    assert node.http.put(b"x").status == 200
    node.stop()
