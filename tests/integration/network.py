"""A network for nodes in namespaces of their own: each has a TAP device, and a switch in a process of
ours carries the frames between them, or loses and delays them, or does not let some pass at all. So
it needs nothing of the kernel but TAP devices (where `tc` has no netem, too) and leaves no traces.
Started as a program it is the switch."""

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

FRAME = 65536
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
QUEUED_MAX = 10000


@contextlib.contextmanager
def inside(pid):
    """This thread is in the network namespace of the process PID; sockets opened here stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(f"/proc/{pid}/ns/net") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET):
                os.abort()  # nothing after this would be where it thinks it is


class Network:
    """COUNT namespaces; node i has the address host(i). Where there is no root or no TAP device,
    making one raises OSError."""

    def __init__(self, nodes, count):
        if os.geteuid():
            raise PermissionError("network namespaces for nodes need root")
        self.spaces, self.taps, self.switch = [], [], None
        try:
            for number in range(count):
                self.spaces.append(nodes.namespace("net"))
                self.taps.append(self._tap(number))
            self.switch = subprocess.Popen([sys.executable, "-B", __file__, *map(str, self.taps)], text=True,
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=self.taps)
        finally:
            for tap in self.taps:
                os.close(tap)
        self.set()

    def _tap(self, number):
        space = self.spaces[number]
        with inside(space.pid):
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"eth0", IFF_TAP | IFF_NO_PI))
        for command in (f"addr add {self.host(number)}/24 dev eth0", "link set eth0 up"):
            done = space.run(["ip", *command.split()])
            if done.returncode:
                os.close(tap)
                raise OSError(done.stderr)
        return tap

    @staticmethod
    def host(number):
        return f"10.98.0.{number + 1}"

    def set(self, loss=0.0, delay_ms=0, jitter_ms=0, blocked=()):
        """From now on frames are lost with probability LOSS, come later, and do not pass from i to j
        for each (i, j) of BLOCKED."""
        self.switch.stdin.write(json.dumps([loss, delay_ms, jitter_ms, list(blocked)]) + "\n")
        self.switch.stdin.flush()
        assert self.switch.stdout.readline() == "set\n"

    def part(self, *groups):
        """Only within a group frames pass."""
        self.set(blocked=[(i, j) for one in groups for two in groups if one is not two for i in one for j in two])

    def close(self):
        if self.switch:
            self.switch.stdin.close()
            self.switch.wait(10)
            self.switch.stdout.close()


# ---- The switch ----


def run_switch(taps):
    rnd = random.Random(1)
    loss, delay_ms, jitter_ms, blocked = 0.0, 0, 0, set()
    where, queue, serial = {}, [], 0  # address → port; (due, serial, port, frame)
    while True:
        timeout = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        ready = select.select([*taps, 0], [], [], timeout)[0]
        now = time.monotonic()
        for tap in ready:
            if tap == 0:
                line = sys.stdin.readline()
                if not line:
                    return
                loss, delay_ms, jitter_ms, pairs = json.loads(line)
                blocked = {tuple(pair) for pair in pairs}
                print("set", flush=True)
                continue
            source = taps.index(tap)
            frame = os.read(tap, FRAME)
            where[frame[6:12]] = source
            target = where.get(frame[:6])
            for port in range(len(taps)) if target is None else (target,):
                if port != source and (source, port) not in blocked and rnd.random() >= loss \
                        and len(queue) < QUEUED_MAX:
                    serial += 1
                    due = now + (delay_ms + rnd.random() * jitter_ms) / 1000
                    heapq.heappush(queue, (due, serial, port, frame))
        while queue and queue[0][0] <= now:
            _, _, port, frame = heapq.heappop(queue)
            # A device that takes no more loses the frame, as a wire would; so does one that is gone.
            with contextlib.suppress(OSError):
                os.write(taps[port], frame)


if __name__ == "__main__":
    run_switch([int(tap) for tap in sys.argv[1:]])
