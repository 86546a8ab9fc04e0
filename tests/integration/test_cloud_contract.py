"""Goal: what storage/cloud.h promises of every backend, S3's keeps with a real server behind it: the same tests
that the directory and the tests' own cloud pass (tests/unit/cloud_contract.c)."""

import pathlib
import re
import subprocess

import harness
import pytest
import s3

CONTRACT = pathlib.Path(harness.OBJSTORE).parent / "cloud_contract"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = s3.Server(tmp_path_factory.mktemp("s3"))
    yield made
    made.stop()


def promised():
    """How many tests the contract has."""
    source = pathlib.Path(__file__).parents[1] / "unit" / "cloud_contract.c"
    return len(re.findall(r"^        cmocka_unit_test\(", source.read_text(), re.M))


@pytest.mark.parametrize("part_bytes, download_parts", [(0, 0), (5 << 20, 4)], ids=["whole", "parts"])
def test_the_contract(server, part_bytes, download_parts):
    done = subprocess.run(
        [CONTRACT, server.endpoint, s3.BUCKET, f"contract/{download_parts}/", str(part_bytes), str(download_parts)],
        env=s3.credentials(CMOCKA_MESSAGE_OUTPUT="TAP"), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=300)
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    assert len(re.findall(r"^ok ", done.stdout, re.M)) == promised() > 0, report
    assert not re.search(r"^not ok|# SKIP", done.stdout, re.M), report
    uploads = [name for name, _, _ in server.requests() if name == "CreateMultipartUpload"]
    assert bool(uploads) == bool(part_bytes)  # bodies over PART_BYTES went in parts
