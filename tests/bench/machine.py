"""What the machine can do, and how much of it others took: figures mean nothing without."""

import os
import pathlib
import platform
import threading
import time


def sync_latency_us(directory, count=400, whole=False):
    """Median and p99 (all of them where WHOLE) of appending 2 KiB to a prewritten file and waiting for the disk: what one
    batch of one small put cannot beat."""
    path = directory / "sync-latency"
    times = []
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, bytes(count * 2048), 0)
        os.fsync(fd)
        block = os.urandom(2048)
        for i in range(count):
            begun = time.perf_counter()
            os.pwrite(fd, block, i * 2048)
            os.fdatasync(fd)
            times.append((time.perf_counter() - begun) * 1e6)
    finally:
        os.close(fd)
        path.unlink()
    if whole:
        return times
    times.sort()
    return times[count // 2], times[count * 99 // 100]


def sync_latency_beside_us(directory, mb_s, seconds=4):
    """Median and p99 of such a sync while another thread writes files of 16 MiB, each synced, at
    MB_S at most; and the MB/s it came to."""
    block = os.urandom(1 << 20)
    end = time.monotonic() + seconds
    written = 0

    def write_files():
        nonlocal written
        path = directory / "write-beside"
        while time.monotonic() < end:
            with open(path, "wb", buffering=0) as file:
                for _ in range(16):
                    file.write(block)
                os.fdatasync(file.fileno())
            path.unlink()
            written += 16 << 20
            time.sleep(max(0, written / (mb_s * 1e6) - (seconds - (end - time.monotonic()))))

    writer = threading.Thread(target=write_files)
    times = []
    writer.start()
    while time.monotonic() < end:
        times.extend(sync_latency_us(directory, 50, whole=True))
    writer.join()
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100], written / 1e6 / seconds


def write_mb_s(directory, size=256 << 20):
    """Writing one large file in a row and waiting for the disk: the bound of all large uploads."""
    path = directory / "write-speed"
    block = os.urandom(1 << 20)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        begun = time.perf_counter()
        for _ in range(size >> 20):
            os.write(fd, block)
        os.fdatasync(fd)
        return size / (time.perf_counter() - begun) / 1e6
    finally:
        os.close(fd)
        path.unlink()


def cpu_ticks():
    """Busy, stolen and all ticks of the machine so far."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = [int(field) for field in fields]
    idle, stolen = ticks[3] + ticks[4], ticks[7]
    return sum(ticks[:8]) - idle - stolen, stolen, sum(ticks[:8])


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
