"""What one proxied request costs in Python function calls, which no busy machine changes."""

import subprocess
import sys

MOST_CALLS = 130


def test_a_proxied_request_makes_few_calls():
    done = subprocess.run(
        [sys.executable, "-m", "tests.router.frontend.calls"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert 50 < float(done.stdout) <= MOST_CALLS
