"""Every test that the manual of faults names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_what_shows_a_fault_is_there():
    named = _NAMED.findall((ROOT / "docs" / "faults.md").read_text())
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []
