"""What another process takes."""

import subprocess
import sys

from isochrone.edge_agent.runtime.memory import process_memory as memory


def test_another_process_is_measured_and_none_counts_nothing():
    hold = "import sys; block = bytearray(b'x') * (50 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        assert 50 << 20 <= memory.process_bytes(process.pid) < 80 << 20
    assert memory.process_bytes(process.pid) == 0
