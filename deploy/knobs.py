"""Every key of a configuration as a table for people.

Unit, range and default are those of the structs that read it, the meaning is the comment of the
shipped file.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from isochrone.edge_agent.config import AgentConfig

ROOT = Path(__file__).parents[1]
MANUAL = ROOT / "docs" / "edge.md"
_BEGIN, _END = "<!-- knobs: written by make schemas -->", "<!-- end of knobs -->"
_LINE = re.compile(
    r"^(?P<in>\s*(?:# )?\s*)(?P<item>- )?(?P<key>[a-z_]+):(?:[^#]*?)(?:\s#\s(?P<why>.*))?$"
)
_UNITS = {"_s": "s", "_bytes": "bytes"}
_MARKS: dict[type, str] = {inspect.VarTupleType: "[]", inspect.DictType: ".*"}
"""Where a key stands for several, in a list or by their names."""


def table(kind: type[Any] = AgentConfig, shipped: Path = ROOT / "configs" / "agent.yaml") -> str:
    """A row for each key, in Markdown.

    Raises:
        ValueError: the shipped file says nothing of a key.
    """
    meanings = dict(_comments(shipped.read_text()))
    rows = ["| key | unit or choice | default | what it is |", "|---|---|---|---|"]
    for key, field in _fields(kind):
        named = re.compile(re.escape(key).replace(r"\*", "[a-z_]+"))
        meaning = next((meanings[name] for name in meanings if named.fullmatch(name)), None)
        if meaning is None:
            raise ValueError(f"{shipped}: write {key} there, with a comment that says what it is")
        cells = [f"`{key}`", _unit(key, field.type), _default(field), meaning]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def written(manual: str) -> str:
    """A manual with its table made anew."""
    head, _, rest = manual.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}\n{table()}\n{_END}{tail}"


def main() -> None:
    """Write the table of the agent's manual."""
    MANUAL.write_text(written(MANUAL.read_text()))


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """Keys with their comments; keys that are commented out count, too."""
    around: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        depth = len(found["in"].replace("# ", "")) + len(found["item"] or "")
        around = [(outer, name) for outer, name in around if outer < depth]
        if found["item"]:
            around = [
                (outer, f"{name}[]" if outer == around[-1][0] else name) for outer, name in around
            ]
        around.append((depth, found["key"]))
        if found["why"]:
            yield ".".join(name for _, name in around), found["why"].strip()


def _fields(kind: Any, before: str = "") -> Iterator[tuple[str, inspect.Field]]:  # noqa: ANN401  # any struct
    for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]  # it is a struct
        inner = _struct_in(field.type)
        if inner is None:
            yield f"{before}{field.name}", field
        else:
            mark = _MARKS.get(type(_said(field.type)), "")
            yield from _fields(inner, f"{before}{field.name}{mark}.")


def _struct_in(kind: inspect.Type) -> type[Any] | None:
    """The struct that a key holds, by itself, in a list or by name; one of several is none."""
    if isinstance(kind, inspect.UnionType) and len(_structs(kind)) > 1:
        return None
    kind = _said(kind)
    if isinstance(kind, inspect.VarTupleType):
        kind = kind.item_type
    elif isinstance(kind, inspect.DictType):
        kind = kind.value_type
    return kind.cls if isinstance(kind, inspect.StructType) else None


def _structs(kind: inspect.UnionType) -> list[inspect.StructType]:
    return [one for one in kind.types if isinstance(one, inspect.StructType)]


def _said(kind: inspect.Type) -> inspect.Type:
    """What a key holds where it is not left out."""
    if not isinstance(kind, inspect.UnionType):
        return kind
    return next(one for one in kind.types if not isinstance(one, inspect.NoneType))


def _unit(key: str, kind: inspect.Type) -> str:
    kind = _said(kind)
    unit = next((unit for end, unit in _UNITS.items() if key.endswith(end)), "")
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(map(str, kind.values))
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return ", ".join(filter(None, (unit, _range(kind.ge, kind.le))))
    return unit


def _range(least: float | None, most: float | None) -> str:
    if least is None or most is None:
        return ""
    return f"{least:,} to {most:,}"


def _default(field: inspect.Field) -> str:
    if field.required:
        return "*must be said*"
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    if value is None or value in ((), ""):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
