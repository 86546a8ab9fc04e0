"""A hostile request on the wire: what is sent, what must come back, and the proof that nothing else
came of it. The table's bytes name three ids that are put in when a case runs: HIDDEN, which a
smuggled request would store, VICTIM, an object that one would delete, and BIG, an object whose answer
no socket buffer holds. They have the length of real ids, so lengths counted over them hold."""

import collections
import os
import re
import socket
import struct

import wire
from harness import noise, ulid, wait_for

HIDDEN = b"01HDDNHDDNHDDNHDDNHDDNHDDN"
VICTIM = b"01VCTMVCTMVCTMVCTMVCTMVCTM"
BIG = b"01BGBGBGBGBGBGBGBGBGBGBGBG"
BODY = b"victim"
BIG_BYTES = 16 << 20
SMUGGLED = (b"POST /api/v1/put HTTP/1.1\r\nHost: x\r\nX-Meta-ID: " + HIDDEN +
            b"\r\nContent-Length: 6\r\n\r\nhidden"
            b"POST /api/v1/delete/" + VICTIM + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
LAST = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

# What the cases that came to an end were: name of the table → count.
DONE = collections.Counter()


class Case:
    """DATA, and the STATUSES of its answers. The connection is kept, or the node closes it by itself
    (KEEP False) while the client, HALF_CLOSE apart, waits with its side open. Behind what is to end
    the connection comes what must not be carried out any more, unless TAIL is false."""

    def __init__(self, data, *statuses, keep=False, half_close=False, tail=True):
        self.data, self.statuses, self.keep = data, list(statuses), keep
        self.half_close, self.tail = half_close, tail and not keep


def kept(data, *statuses):
    return Case(data, *statuses, keep=True)


def statuses(answers):
    return [int(s) for s in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z][^\r\n]*\r\nDate:", answers)]


def reset(connection):
    """Close with a reset instead of a FIN, whatever is under way."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Trap:
    """A victim on NODE, and what the node held before any case ran."""

    def __init__(self, node):
        self.node = node
        self.victim = node.http.stored(BODY)["id"].encode()
        self.big_body = noise(BIG_BYTES)
        self.big = node.http.stored(self.big_body)["id"].encode()
        for _ in range(3):  # what the node keeps of a hot body, it keeps now
            assert node.http.get(self.big.decode()).body == self.big_body
        self.before = self.settled()

    def bytes_of(self, case, hidden):
        data = case.data + (SMUGGLED if case.tail else b"")
        return data.replace(HIDDEN, hidden).replace(VICTIM, self.victim).replace(BIG, self.big)

    def spring(self, case, table):
        """Run CASE, of TABLE; its answers."""
        hidden = ulid().encode()
        with self.node.unchanged():
            with wire.Connection(self.node.address) as connection:
                answers = self._talk(connection, case, self.bytes_of(case, hidden))
        self._untouched(hidden)
        DONE[table] += 1
        return answers

    def reset(self, case, read, table):
        """Send CASE, READ so many bytes of what comes, and break the connection by a reset."""
        hidden = ulid().encode()
        with self.node.unchanged():
            connection = wire.Connection(self.node.address)
            connection.send(self.bytes_of(case, hidden))
            if case.half_close:
                connection.half_close()
            while read:
                part = connection.sock.recv(min(read, 1 << 16))
                assert part
                read -= len(part)
            reset(connection)
            self.settled()
        self._untouched(hidden)
        DONE[table] += 1

    def break_off(self, case):
        """Send CASE, and reset."""
        connection = wire.Connection(self.node.address)
        connection.send(self.bytes_of(case, ulid().encode()))
        reset(connection)

    def _untouched(self, hidden):
        """A fresh connection is served, and finds that no second request was carried out."""
        with wire.Connection(self.node.address) as fresh:
            assert fresh.request("GET", f"/api/v1/get/{hidden.decode()}").status == 404
            assert fresh.request("GET", f"/api/v1/get/{self.victim.decode()}").body == BODY

    def _talk(self, connection, case, data):
        if case.keep:
            return self._keep(connection, case, data)
        try:
            connection.send(data)
            if case.half_close:
                connection.half_close()
        except OSError:
            pass  # it was refused before its end
        answers = connection.read_raw()
        assert statuses(answers) == case.statuses, answers[:2000]
        if case.statuses and (case.statuses[-1] >= 400 or not case.half_close):
            last = answers[answers.rindex(b"\r\nDate:"):]
            assert b"\r\nConnection: close\r\n" in last, last
        if case.statuses and case.statuses[-1] >= 400:
            assert b'{"error":{"code":' in answers
        return answers

    def _keep(self, connection, case, data):
        connection.send(data)
        replies = [connection.read() for _ in case.statuses]
        assert [r.status for r in replies] == case.statuses, replies
        for reply in replies:
            assert reply.header("Connection", "keep-alive").lower() == "keep-alive", reply
            assert reply.status < 400 or reply.code()
        # Both sides agree on where the next request begins: it has the only answer that follows.
        connection.send(LAST)
        assert statuses(connection.read_raw()) == [200]
        return replies

    def settled(self):
        """Figures of the node with no client but us."""
        def figures():
            stats = self.node.stats()
            if stats["http"]["connections"] != 1 or stats["http"]["in_flight"] != 1:
                return None
            return {"fds": len(os.listdir(f"/proc/{self.node.process.pid}/fd")),
                    "in_flight_bytes": stats["memory"]["in_flight_bytes"],
                    "temporaries": self.node.temporaries()}
        return wait_for(figures, "the node to be idle")

    def assert_nothing_left(self):
        """As before: file descriptors, bytes held for connections, temporary files."""
        wait_for(lambda: self.settled() == self.before,
                 f"what clients left behind to go: {self.settled()}, before {self.before}")
