"""How many cores may be used: the fewer of affinity and quota."""

import os
from pathlib import Path

import pytest

from isochrone.edge_agent.runtime.package.cores import usable_cores

NOWHERE = Path("/nowhere")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_one_core_is_one_core():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert 0 < usable_cores() <= 1
        assert usable_cores(NOWHERE) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("own", "files", "most"),
    [
        pytest.param("0::/shop", {"shop/cpu.max": "50000 100000\n"}, 0.5, id="half a core"),
        pytest.param(
            "0::/shop/agent",
            {"shop/agent/cpu.max": "max 100000", "shop/cpu.max": "25000 100000"},
            0.25,
            id="the group above counts",
        ),
        pytest.param("0::/shop", {"shop/cpu.max": "max 100000\n"}, None, id="no quota"),
        pytest.param("0::/shop", {"shop/cpu.max": "nonsense"}, None, id="what nobody understands"),
        pytest.param(
            "4:memory:/x\n3:cpu,cpuacct:/shop",
            {"cpu/shop/cpu.cfs_quota_us": "30000\n", "cpu/shop/cpu.cfs_period_us": "100000\n"},
            0.3,
            id="the first version",
        ),
        pytest.param("0::/shop", {"shop/cpu.max": "1 2 3"}, None, id="three numbers"),
        pytest.param("0::/shop", {"shop/cpu.max": "1 0"}, None, id="a period of nothing"),
        pytest.param("nonsense\n\n::", {}, None, id="groups that nobody understands"),
        pytest.param("3:cpu:/shop", {"cpu/shop/cpu.cfs_quota_us": "-1\n"}, None, id="none there"),
    ],
)
def test_a_control_groups_quota_counts(tmp_path, own, files, most):
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(own)
    expected = usable_cores(NOWHERE) if most is None else most
    assert usable_cores(tmp_path) == expected
