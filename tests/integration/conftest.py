"""Fixtures: `node` is one that a module's tests share, `nodes` makes nodes for one test alone."""

import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import cluster  # noqa: E402
import harness  # noqa: E402


def pytest_configure(config):
    # A shell starts what runs in its background with SIGINT ignored, and every child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "large: gigabytes of data; only with OBJSTORE_TEST_LARGE=1")


def pytest_collection_modifyitems(config, items):
    if os.environ.get("OBJSTORE_TEST_LARGE"):
        return
    large = [item for item in items if item.get_closest_marker("large")]
    if large:
        config.hook.pytest_deselected(items=large)
        items[:] = [item for item in items if not item.get_closest_marker("large")]


def pytest_terminal_summary(terminalreporter):
    for line in harness.FIGURES:
        terminalreporter.write_line(line)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.failed = True
        for name in ("nodes", "shared"):
            made = item.funcargs.get(name) if hasattr(item, "funcargs") else None
            if made:
                report.sections.append((f"logs of {name}", made.logs()))


@pytest.fixture
def nodes(request):
    made = harness.Nodes(getattr(request.module, "WHERE", None))
    yield made
    made.close(getattr(request.node, "failed", False))


@pytest.fixture(scope="module")
def shared(request):
    made = harness.Nodes(getattr(request.module, "WHERE", None))
    yield made
    made.close(False)


@pytest.fixture(scope="module")
def shared_node(shared, request):
    return shared.start(*getattr(request.module, "OPTIONS", ()))


@pytest.fixture
def node(shared, shared_node):
    """The module's node, which the test must leave alive."""
    yield shared_node
    code = shared_node.process.poll()
    if code is not None:
        shared_node.process = None
        log = shared_node.log()
        shared_node.start()
        raise AssertionError(f"the node died with {code}:\n{log}")


@pytest.fixture
def http(node):
    return node.http


@pytest.fixture(scope="module")
def shared_trio(shared):
    return cluster.Cluster(shared, 3).start()


@pytest.fixture
def trio(shared_trio):
    """A module's three nodes, which know each other; a test may stop or kill them as it likes."""
    yield shared_trio.repair()
    shared_trio.check()
