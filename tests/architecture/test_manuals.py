"""The manuals name every metric that there is, and none that there is not."""

import re
from pathlib import Path

import pytest

from isochrone.edge_agent.metrics import _MACHINE

ROOT = Path(__file__).parents[2]
_METRIC = re.compile(r'"(isochrone_(?!fields)[a-z_]+)"')


@pytest.mark.parametrize(
    ("package", "manual"), [("edge_agent", "docs/edge.md"), ("router", "README.md")]
)
def test_the_table_of_metrics_is_complete_and_true(package, manual):
    sources = (path.read_text() for path in (ROOT / package).rglob("*.py"))
    made = {name for source in sources for name in _METRIC.findall(source)}
    if package == "edge_agent":
        made |= {f"isochrone_agent_{field}" for field in _MACHINE}
    rows = [row for row in (ROOT / manual).read_text().splitlines() if row.startswith("| `isoch")]
    told = set(re.findall(r"isochrone_[a-z_]+", "\n".join(row.split("|")[1] for row in rows)))
    assert len(made) > 15
    assert {name.removesuffix("_total") for name in told} == {
        name.removesuffix("_total") for name in made
    }


def test_every_file_that_the_architecture_names_is_there():
    told = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`((?:router|edge_agent|tests)/[a-z_/]+(?:\.py|/))`", told))
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []
