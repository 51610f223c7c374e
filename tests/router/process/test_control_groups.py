"""What the kernel says of the memory that this process may take."""

import sys

import pytest

from isochrone.router.http.limits import Limits
from isochrone.router.process.control_groups import memory_limit_bytes

GIB = 1 << 30
OF_VERSION_1 = "sys/fs/cgroup/memory/a/memory.limit_in_bytes"


@pytest.mark.parametrize(
    ("own", "files", "most"),
    [
        pytest.param("", {}, sys.maxsize, id="nothing is told"),
        pytest.param("", {"proc/meminfo": "MemTotal:  1048576 kB\n"}, GIB, id="the machine's"),
        pytest.param("0::/a\n", {"sys/fs/cgroup/a/memory.max": "512"}, 512, id="a group's"),
        pytest.param("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": "512"}, 512, id="one around it"),
        pytest.param("0::/a\n", {"sys/fs/cgroup/a/memory.max": "max"}, sys.maxsize, id="no limit"),
        pytest.param("9:memory:/a\n", {OF_VERSION_1: "256"}, 256, id="version 1"),
    ],
)
def test_the_lowest_limit_counts(tmp_path, own, files, most):
    for name, content in {"proc/self/cgroup": own, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert memory_limit_bytes(tmp_path) == most


@pytest.mark.parametrize(
    ("memory_bytes", "held_bytes"),
    [(8 * GIB, 512 << 20), (GIB // 2, 128 << 20), (64 << 20, 32 << 20)],
    ids=["as configured", "a quarter of memory", "two bodies"],
)
def test_requests_hold_a_quarter_of_memory_at_most(memory_bytes, held_bytes):
    assert Limits().held_bytes(memory_bytes) == held_bytes
