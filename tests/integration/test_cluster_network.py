"""Clusters on a network that loses, delays, and falls apart: each node in a network namespace."""

import time

import pytest

from cluster import FAILED_S, WHERE, Background, Cluster, Told  # noqa: F401
from harness import INLINE, noise, sha256, ulid, wait_for
from network import Network
from test_cluster_faults import writes

SECRET = "a secret of namespaces"
MIB = 1 << 20


@pytest.fixture(scope="module")
def spread(shared):
    """Five nodes, each on a machine of its own as far as it can see, and their network."""
    try:
        net = Network(shared, 5)
    except OSError as error:
        pytest.skip(f"no network namespaces with TAP devices here: {error}")
    cluster = Cluster(shared, 0, secret=[SECRET])
    for number, space in enumerate(net.spaces):
        cluster.add(namespace=space, host=net.host(number))
    yield net, cluster.start()
    net.close()


@pytest.fixture
def apart(spread):
    """The same, with nothing lost yet."""
    net, cluster = spread
    net.set()
    yield net, cluster.repair()
    cluster.check()


def later():
    """Until it is later by more than the clocks that order changes can tell apart."""
    begin = time.time()
    wait_for(lambda: time.time() - begin > 0.01, "time to pass")


def test_loss_and_delay(apart):
    """5 % of all frames are lost, the others come 10 to 20 ms late and out of order: nobody is called
    failed, what is written anywhere arrives everywhere, bodies come whole."""
    net, cluster = apart
    net.set(loss=0.05, delay_ms=10, jitter_ms=10)
    told, states = Told(), set()
    loads = [Background(m, writes(told), limit=60) for m in cluster.members[:3]]
    with loads[0], loads[1], loads[2]:
        for load in loads:
            load.wait(60)
            states |= {row["state"] for m in cluster.members for row in m.members().values()}
    large = told.put(cluster[0].http, noise(MIB, 1))
    cluster.wait_equal()
    for member in cluster.members:
        told.check(member)
        assert sha256(member.http.get(large).body) == told.bodies[large]
        states |= {row["state"] for row in member.members().values()}
    assert "failed" not in states


def test_partition(apart):
    """Five nodes fall apart into two and three; both sides write, rename, delete, and put different bytes
    under the same ids. Healed, all have the same facts: deletes hold, of two bodies one won and the other is an object of
    its own."""
    net, cluster = apart
    told = Told()
    ids = [told.put(cluster[n % 5].http, noise(1000, n), name="before") for n in range(40)]
    cluster.wait_equal()
    left, right = cluster.members[:2], cluster.members[2:]
    net.part(range(2), range(2, 5))
    begin = time.monotonic()
    for side, others in ((left, right), (right, left)):
        for member in side:
            cluster.wait_all(lambda m, others=others: all(m.sees(o) == "failed" for o in others), "`failed`",
                             [member])
    assert time.monotonic() - begin < 3 * FAILED_S
    with Background(left[0], writes(told), limit=60) as a, Background(right[0], writes(told), limit=60) as b:
        a.wait(60)
        b.wait(60)
    told.delete(left[0].http, ids[0])
    told.delete(right[0].http, ids[1])
    told.rename(left[1].http, ids[2], "by the left")
    told.rename(right[1].http, ids[3], "by the right")
    # Deleted here, renamed there: deleted.
    for number, (here, there) in enumerate(((left[0], right[0]), (right[0], left[0]))):
        told.rename(there.http, ids[4 + number], "renamed")
        told.delete(here.http, ids[4 + number])
    # Renamed on both sides: the later one.
    told.rename(left[0].http, ids[6], "early")
    later()
    told.rename(right[0].http, ids[6], "late")
    fought = [ulid() for _ in range(5)]
    bodies = {i: [noise(size, side) for side in ("left", "right")]
              for i, size in zip(fought, (0, 1000, 70000, INLINE, INLINE + 1))}
    bodies[fought[0]][1] = b"not empty"
    for number, object_id in enumerate(fought):
        left[0].http.stored(bodies[object_id][0], id=object_id, level=2 * (number % 2))
        later()
        right[0].http.stored(bodies[object_id][1], id=object_id)
    lost = ulid()
    left[0].http.stored(b"put here", id=lost)
    told.delete(right[0].http, lost)
    # Within a side all is well, and the sides differ.
    for side in (left, right):
        cluster.wait_equal(side)
    assert left[0].digest() != right[0].digest()
    net.set()
    cluster.wait_together()
    cluster.wait_equal()
    for member in cluster.members:
        told.check(member)
    assert sha256(cluster[4].http.get(ids[7]).body) == told.bodies[ids[7]]
    cluster.wait_resolved(bodies)


def test_a_bad_link(apart):
    """Two nodes cannot reach each other, but both reach the others: nobody is called failed, and what
    either writes arrives at the other by way of a third."""
    net, cluster = apart
    net.set(blocked=[(0, 1), (1, 0)])
    states, begin = set(), time.monotonic()
    first, second = (cluster[n].http.stored(noise(100, n))["id"] for n in range(2))
    wait_for(lambda: cluster[1].http.meta(first).status == cluster[0].http.meta(second).status == 200, "the writes")

    def longer():
        states.update(row["state"] for m in cluster.members for row in m.members().values())
        return time.monotonic() - begin > FAILED_S

    wait_for(longer, "a failure to be noticed, were there one")
    assert "failed" not in states
    cluster.wait_equal()
