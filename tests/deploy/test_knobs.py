"""The table of keys in the agent's manual is what the agent reads, and its example works."""

import re
from typing import Annotated

import pytest
from msgspec import Meta, field

from isochrone.deploy.knobs import MANUAL, main, table, written
from isochrone.edge_agent.config import check
from isochrone.router.process.settings import Settings


class Inner(Settings, frozen=True):
    patience_s: Annotated[float, Meta(ge=0.5, le=2000)] = 3.0
    name: str = ""


class Outer(Settings, frozen=True, kw_only=True):
    count: int
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()
    others: dict[str, Inner] = field(default_factory=dict)
    most_bytes: Annotated[int, Meta(ge=1, le=4096)] | None = None


SHIPPED = """# A file: with a comment.
count: 1      # how many
inner:
  patience_s: 1   # how long
  # name: x       # what it is called
items:
  - patience_s: 2     # of this one
    name: y           # and its name
others: {}
  # any:
  #   patience_s: 3   # of that one
  #   name: z         # and its name, too
# most_bytes: 5   # at most
"""


@pytest.fixture
def shipped(tmp_path):
    path = tmp_path / "shipped.yaml"
    path.write_text(SHIPPED)
    return path


def test_every_key_has_its_row(shipped):
    assert table(Outer, shipped).splitlines()[2:] == [
        "| `count` |  | *must be said* | how many |",
        "| `inner.patience_s` | s, 0.5 to 2,000 | `3.0` | how long |",
        "| `inner.name` |  | none | what it is called |",
        "| `items[].patience_s` | s, 0.5 to 2,000 | `3.0` | of this one |",
        "| `items[].name` |  | none | and its name |",
        "| `others.*.patience_s` | s, 0.5 to 2,000 | `3.0` | of that one |",
        "| `others.*.name` |  | none | and its name, too |",
        "| `most_bytes` | bytes, 1 to 4,096 | none | at most |",
    ]


def test_a_key_that_the_shipped_file_does_not_explain_is_refused(shipped):
    shipped.write_text(SHIPPED.replace("# how many", ""))
    with pytest.raises(ValueError, match="write count there"):
        table(Outer, shipped)


def test_the_manual_is_what_the_structs_give():
    manual = MANUAL.read_text()
    assert manual == written(manual), "run: make schemas"
    assert "| `slots` | 1 to 65,536 | `2` |" in manual


def test_it_is_written_into_its_place(tmp_path, monkeypatch):
    path = tmp_path / "edge.md"
    before, mark, knobs = MANUAL.read_text().partition("<!-- knobs")
    path.write_text(before + mark + re.sub(r"(?m)^\| `.*\n", "", knobs))
    monkeypatch.setattr("isochrone.deploy.knobs.MANUAL", path)
    main()
    assert path.read_text() == MANUAL.read_text()


def test_the_manuals_example_is_a_right_configuration(tmp_path):
    (example,) = re.findall(r"agent\.yaml <<'EOF'\n(.*?)EOF\n", MANUAL.read_text(), re.DOTALL)
    path = tmp_path / "agent.yaml"
    path.write_text(example)
    assert check(path).name == "shop-17"
