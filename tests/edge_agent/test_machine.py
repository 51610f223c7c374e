"""What the kernel tells of memory, disk and cores, in files of either version of control groups."""

import os
import sys

import pytest

from isochrone.edge_agent.machine import Machine

MEMINFO = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 750 kB\n"
STALLED = "some avg10=12.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=1.00\n"


def machine(tmp_path, files):
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(tmp_path, tmp_path)


V2 = {
    "proc/self/cgroup": "0::/shop/agent\n",
    "sys/fs/cgroup/shop/agent/memory.max": "1000\n",
    "sys/fs/cgroup/shop/agent/memory.current": "900\n",
    "sys/fs/cgroup/shop/agent/memory.stat": "anon 300\ninactive_file 100\n",
}
V1 = {
    "proc/self/cgroup": "4:memory:/shop/agent\n3:cpuset:/\n1:cpu,cpuacct:/shop\n0::/\n",
    "sys/fs/cgroup/memory/shop/agent/memory.limit_in_bytes": "1000\n",
    "sys/fs/cgroup/memory/shop/agent/memory.usage_in_bytes": "900\n",
    "sys/fs/cgroup/memory/shop/agent/memory.stat": "inactive_file 0\ntotal_inactive_file 100\n",
}
NO_LIMIT = {"sys/fs/cgroup/memory/shop/agent/memory.limit_in_bytes": f"{2**63 - 4096}\n"}
MEMORY = {
    "no group": ({}, 0.25),
    "version 2": (V2, 0.8),
    "version 2 without a limit": ({**V2, "sys/fs/cgroup/shop/agent/memory.max": "max\n"}, 0.25),
    "version 2, the group around it is tighter": (
        {
            **V2,
            "sys/fs/cgroup/shop/memory.max": "2000\n",
            "sys/fs/cgroup/shop/memory.current": "1980\n",
        },
        0.99,
    ),
    "version 1": (V1, 0.8),
    "version 1 without a limit": ({**V1, **NO_LIMIT}, 0.25),
    "a kernel that does not say": ({"proc/meminfo": "MemTotal: 1000 kB\n"}, 0.0),
}


@pytest.mark.parametrize(("files", "used"), MEMORY.values(), ids=MEMORY)
def test_memory_is_that_of_the_tightest_limit(tmp_path, files, used):
    assert machine(tmp_path, files).read().memory_used_share == pytest.approx(used)


STALLS = {
    "nothing": ({}, 0.0),
    "the machine": ({"proc/pressure/memory": STALLED}, 0.125),
    "the own group": (
        {
            **V2,
            "proc/pressure/memory": STALLED,
            "sys/fs/cgroup/shop/agent/memory.pressure": "some avg10=50.00 avg60=0\n",
        },
        0.5,
    ),
}


@pytest.mark.parametrize(("files", "stalled"), STALLS.values(), ids=STALLS)
def test_how_long_something_waited_for_memory(tmp_path, files, stalled):
    assert machine(tmp_path, files).read().memory_stalled_share == pytest.approx(stalled)


MINE = len(os.sched_getaffinity(0))
CORES = {
    "no quota": ({}, MINE),
    "version 2": ({**V2, "sys/fs/cgroup/shop/cpu.max": "50000 100000\n"}, 1),
    "version 2 without a quota": ({**V2, "sys/fs/cgroup/shop/cpu.max": "max 100000\n"}, MINE),
    "version 1": (
        {
            **V1,
            "sys/fs/cgroup/cpu/shop/cpu.cfs_quota_us": "90000\n",
            "sys/fs/cgroup/cpu/shop/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "version 1 without a quota": (
        {
            **V1,
            "sys/fs/cgroup/cpu/shop/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/shop/cpu.cfs_period_us": "100000\n",
        },
        MINE,
    ),
}


@pytest.mark.parametrize(("files", "cores"), CORES.values(), ids=CORES)
def test_cores_are_those_of_the_quota(tmp_path, files, cores):
    assert machine(tmp_path, files).read().cores == cores


def test_this_machine_can_be_read(tmp_path):
    readings = Machine(tmp_path).read()
    assert 0 <= readings.memory_used_share <= 1
    assert readings.disk_free_bytes is not None
    assert readings.cores >= 1


SPOILED = {
    "groups": {"proc/self/cgroup": "nonsense\n0\n::\0"},
    "memory": {"proc/meminfo": "MemTotal: much kB\nMemAvailable: little\n"},
    "bytes that are no text": {"proc/meminfo": "\udcff\udcfe", "proc/self/cgroup": "0::/\udcff"},
    "a group's files": {**V2, "sys/fs/cgroup/shop/agent/memory.stat": "inactive_file many\n"},
    "pressure": {"proc/pressure/memory": "some avg10=often"},
}


@pytest.mark.parametrize("files", SPOILED.values(), ids=SPOILED)
def test_what_nobody_understands_keeps_no_agent_from_starting(tmp_path, files):
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(errors="surrogateescape"))
    assert Machine(tmp_path, tmp_path).memory_limit_bytes() in (1000 << 10, sys.maxsize)


def test_that_a_limit_cannot_be_told_is_said(tmp_path, caplog):
    assert machine(tmp_path, SPOILED["memory"]).memory_limit_bytes() == sys.maxsize
    assert "machine_unreadable" in caplog.text


def test_a_folder_that_is_gone_costs_only_its_number(tmp_path):
    assert Machine(tmp_path / "gone").read().disk_free_bytes is None
