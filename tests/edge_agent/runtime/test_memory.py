"""What a process takes, may take, and gives back."""

import os
import subprocess
import sys

import numpy as np

from edge_agent.runtime import memory


def test_what_is_allocated_and_touched_counts():
    before = memory.private_bytes()
    block = np.ones(8 << 20, np.uint8)
    assert memory.private_bytes() - before >= 7 << 20
    del block


def test_another_process_is_measured_and_none_counts_nothing():
    hold = "import sys; block = bytearray(b'x') * (50 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        assert 50 << 20 <= memory.process_bytes(process.pid) < 80 << 20
    assert memory.process_bytes(process.pid) == 0


def test_the_limit_is_at_most_the_machine():
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.limit_bytes() <= machine


def test_a_control_group_of_either_version_limits_and_so_do_its_parents(tmp_path):
    told = tmp_path / "cgroup"
    told.write_text("4:memory:/outer/inner\n3:cpu:/\n0::/unit\n")
    for path, text in (
        ("memory/outer/memory.limit_in_bytes", "500"),
        ("memory/outer/inner/memory.limit_in_bytes", "9223372036854771712"),
        ("unit/memory.max", "max"),
        ("memory.max", "700"),
    ):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    limits = set(memory._cgroup_limits(told, tmp_path))
    assert limits == {500, 9223372036854771712, 700}
