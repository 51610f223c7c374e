"""What a process takes, may take, and gives back."""

import os
import subprocess
import sys

import numpy as np

from edge_agent.runtime import memory
from edge_agent.runtime.cgroup import Group, memory_groups


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


def test_memory_is_neither_empty_nor_overfull():
    assert 0 < memory.used_share() <= 1


def test_a_control_group_of_either_version_limits_and_so_do_its_parents(tmp_path):
    told = tmp_path / "cgroup"
    told.write_text("4:memory:/outer/inner\n3:cpu:/\n0::/unit\n")
    for folder, files in {
        "memory/outer": ("limit_in_bytes 500", "usage_in_bytes 400", "stat total_inactive_file 90"),
        "memory/outer/inner": ("limit_in_bytes 9000", "usage_in_bytes 10", "stat rss 10"),
        "unit": ("max max", "current 3", "stat inactive_file 1"),
        ".": ("max 700", "current 650", "stat inactive_file 50\nanon 7"),
    }.items():
        for file in files:
            name, text = file.split(" ", 1)
            path = tmp_path / folder / f"memory.{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
    groups = set(memory_groups(told, tmp_path))
    assert groups == {Group(9000, 10), Group(500, 310), Group(700, 600)}


def test_without_control_groups_there_is_no_limit_by_them(tmp_path):
    assert list(memory_groups(tmp_path / "none", tmp_path)) == []
