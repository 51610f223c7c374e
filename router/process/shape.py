"""How plain data differs from the type that it should have: every difference, with its key.

msgspec would name the first one only, and not where in a mapping it stands.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from isochrone.router.process.document import KeyPath, Plain, did_you_mean, listed

_SHOWN_CHARACTERS = 60
_REFUSED = "refused"
"""The code of what a struct's own check says; its fields have the right types."""
_MSGSPEC_PLACE = re.compile(r" - at `(?:key in )?\$[^`]*`$")

_Record = inspect.StructType | inspect.DataclassType
_Items = inspect.ListType | inspect.VarTupleType | inspect.SetType | inspect.FrozenSetType
_Sized = _Items | inspect.DictType
_Number = inspect.IntType | inspect.FloatType


@dataclass(frozen=True, slots=True)
class Difference:
    """A value (or, with `of_key`, a key) that is not as it should be."""

    at: KeyPath
    message: str
    code: str = "invalid_value"
    suggestion: str | None = None
    of_key: bool = False


def differences(kind: inspect.Type, value: Plain, at: KeyPath = ()) -> Iterator[Difference]:
    """What keeps `value` from being a `kind`; nothing where it is one."""
    if isinstance(kind, inspect.Metadata):
        found = differences(kind.type, value, at)
        if isinstance(kind.type, inspect.StrType):
            text = f"must be {expected(kind)}, not {_shown(value)}"
            return (replace(difference, message=text) for difference in found)
        return found
    return _CHECKS.get(type(kind), _accepted)(kind, value, at)


def _accepted(_kind: inspect.Type, _value: Plain, _at: KeyPath) -> Iterator[Difference]:
    """A type that is left to msgspec itself."""
    return iter(())


def _unlike(kind: inspect.Type, value: Plain, at: KeyPath, hint: str | None = None) -> Difference:
    return Difference(at, f"must be {expected(kind)}, not {_shown(value)}", suggestion=hint)


def _struct(kind: _Record, value: Plain, at: KeyPath) -> Iterator[Difference]:
    if not isinstance(value, dict):
        yield _unlike(kind, value, at)
        return
    faults = list(_fields(kind, value, at))
    yield from faults
    if not faults:
        yield from _own_check(kind, value, at)


def _own_check(kind: _Record, value: dict[str, Plain], at: KeyPath) -> Iterator[Difference]:
    """What the `__post_init__` of a struct refuses, whose fields are sound by themselves."""
    try:
        msgspec.convert(value, kind.cls, dec_hook=lambda _kind, text: Path(text), str_keys=True)
    except msgspec.ValidationError as error:
        yield Difference(at, f"is refused: {_MSGSPEC_PLACE.sub('', str(error))}", _REFUSED)


def _fields(kind: _Record, value: dict[str, Plain], at: KeyPath) -> Iterator[Difference]:
    fields = {field.encode_name: field for field in kind.fields}
    for name in value:
        if name not in fields and name != getattr(kind, "tag_field", None):
            yield _unknown_key((*at, name), name, list(fields))
    for name, field in fields.items():
        if name in value:
            yield from differences(field.type, value[name], (*at, name))
        elif field.required:
            text = f"is missing; it must be {expected(field.type)}"
            yield Difference((*at, name), text, code="missing_key")


def _unknown_key(at: KeyPath, name: str, known: list[str]) -> Difference:
    text = f"is not a key here; the keys are {', '.join(known)}"
    return Difference(at, text, "unknown_key", did_you_mean(name, known), of_key=True)


def _mapping(kind: inspect.DictType, value: Plain, at: KeyPath) -> Iterator[Difference]:
    if not isinstance(value, dict) or not _within(len(value), kind.min_length, kind.max_length):
        yield _unlike(kind, value, at)
        return
    for name, item in value.items():
        for fault in differences(kind.key_type, name, (*at, name)):
            yield Difference(fault.at, fault.message, "invalid_key", fault.suggestion, of_key=True)
        yield from differences(kind.value_type, item, (*at, name))


def _items(kind: _Items, value: Plain, at: KeyPath) -> Iterator[Difference]:
    if not isinstance(value, list) or not _within(len(value), kind.min_length, kind.max_length):
        yield _unlike(kind, value, at)
        return
    for index, item in enumerate(value):
        yield from differences(kind.item_type, item, (*at, index))


def _tuple(kind: inspect.TupleType, value: Plain, at: KeyPath) -> Iterator[Difference]:
    if not isinstance(value, list) or len(value) != len(kind.item_types):
        yield _unlike(kind, value, at)
        return
    for index, (item_type, item) in enumerate(zip(kind.item_types, value, strict=True)):
        yield from differences(item_type, item, (*at, index))


def _union(kind: inspect.UnionType, value: Plain, at: KeyPath) -> Iterator[Difference]:
    tagged = [one for one in kind.types if isinstance(one, inspect.StructType) and one.tag_field]
    if tagged and isinstance(value, dict):
        yield from _tagged(tagged, value, at)
        return
    found = [list(differences(one, value, at)) for one in kind.types]
    if not all(found):
        return
    deeper = [
        faults
        for faults in found
        if all(fault.at != at or fault.code == _REFUSED for fault in faults)
    ]
    if len(deeper) == 1:  # one alternative has the right outline: tell of its inside
        yield from deeper[0]
        return
    yield _unlike(
        kind, value, at, _closest(value, [c for one in kind.types for c in _choices(one)])
    )


def _tagged(
    kinds: list[inspect.StructType], value: dict[str, Plain], at: KeyPath
) -> Iterator[Difference]:
    """A mapping of which one key says what it is."""
    by_tag: dict[object, inspect.StructType] = {kind.tag: kind for kind in kinds}
    key, tags = str(kinds[0].tag_field), [str(tag) for tag in by_tag]
    if key not in value:
        yield Difference((*at, key), f"is missing; it must be {listed(tags)}", "missing_key")
    elif isinstance(value[key], str) and value[key] in by_tag:
        yield from _struct(by_tag[value[key]], value, at)
    else:
        text = f"must be {listed(tags)}, not {_shown(value[key])}"
        yield Difference((*at, key), text, suggestion=_closest(value[key], [*tags]))


def _choice(kind: inspect.Type, value: Plain, at: KeyPath) -> Iterator[Difference]:
    if value not in _choices(kind) or isinstance(value, bool):
        yield _unlike(kind, value, at, _closest(value, _choices(kind)))


def _closest(value: Plain, choices: list[object]) -> str | None:
    return did_you_mean(value, [str(one) for one in choices]) if isinstance(value, str) else None


def _choices(kind: inspect.Type) -> list[object]:
    if isinstance(kind, inspect.EnumType):
        return [member.value for member in kind.cls]
    return list(kind.values) if isinstance(kind, inspect.LiteralType) else []


def _text(kind: inspect.StrType, value: Plain, at: KeyPath) -> Iterator[Difference]:
    if not isinstance(value, str):
        number = isinstance(value, bool | int | float)
        yield _unlike(kind, value, at, "put it in quotes" if number else None)
        return
    fits = _within(len(value), kind.min_length, kind.max_length)
    if not fits or (kind.pattern and not re.search(kind.pattern, value)):
        yield _unlike(kind, value, at)


def _number(kind: _Number, value: Plain, at: KeyPath) -> Iterator[Difference]:
    numbers = int if isinstance(kind, inspect.IntType) else (int, float)
    if isinstance(value, bool) or not isinstance(value, numbers) or not _in_range(kind, value):
        yield _unlike(kind, value, at)


def _in_range(kind: _Number, value: float) -> bool:
    return not (
        (kind.gt is not None and value <= kind.gt)
        or (kind.ge is not None and value < kind.ge)
        or (kind.lt is not None and value >= kind.lt)
        or (kind.le is not None and value > kind.le)
    )


def _truth(kind: inspect.BoolType, value: Plain, at: KeyPath) -> Iterator[Difference]:
    if not isinstance(value, bool):
        yield _unlike(kind, value, at)


def _nothing(kind: inspect.NoneType, value: Plain, at: KeyPath) -> Iterator[Difference]:
    if value is not None:
        yield _unlike(kind, value, at)


def _path(kind: inspect.CustomType, value: Plain, at: KeyPath) -> Iterator[Difference]:
    if not isinstance(value, str):
        yield _unlike(kind, value, at)


def _within(length: int, least: int | None, most: int | None) -> bool:
    return (least is None or length >= least) and (most is None or length <= most)


_CHECKS: dict[type, Callable[[Any, Plain, KeyPath], Iterator[Difference]]] = {
    inspect.StructType: _struct,
    inspect.DataclassType: _struct,
    inspect.DictType: _mapping,
    inspect.ListType: _items,
    inspect.VarTupleType: _items,
    inspect.SetType: _items,
    inspect.FrozenSetType: _items,
    inspect.TupleType: _tuple,
    inspect.UnionType: _union,
    inspect.EnumType: _choice,
    inspect.LiteralType: _choice,
    inspect.StrType: _text,
    inspect.IntType: _number,
    inspect.FloatType: _number,
    inspect.BoolType: _truth,
    inspect.NoneType: _nothing,
    inspect.CustomType: _path,
}


def expected(kind: inspect.Type) -> str:
    """A type in words: `a number in [0.005, 30]`, `one of edge, cloud`."""
    match kind:
        case inspect.Metadata():
            words = (kind.extra_json_schema or {}).get("description")
            is_pattern = isinstance(kind.type, inspect.StrType) and kind.type.pattern
            return str(words) if words and is_pattern else expected(kind.type)
        case inspect.StructType() | inspect.DataclassType():
            return f"a mapping with {_listed_keys(kind)}"
        case inspect.UnionType():
            return " or ".join(dict.fromkeys(expected(one) for one in kind.types))
        case inspect.EnumType() | inspect.LiteralType():
            return listed(_choices(kind))
        case inspect.StrType():
            return _expected_text(kind)
        case inspect.IntType() | inspect.FloatType():
            whole = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
            return whole + _expected_range(kind)
        case inspect.DictType():
            return "a mapping" + _expected_length(kind)
    if isinstance(kind, _Items):
        return "a list" + _expected_length(kind)
    return _NAMES.get(type(kind), "a value")


_NAMES: dict[type, str] = {
    inspect.TupleType: "a list of fixed length",
    inspect.BoolType: "true or false",
    inspect.NoneType: "null",
    inspect.CustomType: "a path",
}


def _listed_keys(kind: _Record) -> str:
    """The keys of a struct, those that must be there first."""
    fields = sorted(kind.fields, key=lambda field: not field.required)
    return "the keys " + ", ".join(field.encode_name for field in fields)


def _expected_text(kind: inspect.StrType) -> str:
    if kind.pattern:
        return f"text that matches {kind.pattern}"
    if kind.min_length or kind.max_length is not None:
        most = "" if kind.max_length is None else f" to {kind.max_length}"
        return f"text of {kind.min_length or 0}{most or ' or more'} characters"
    return "text"


def _expected_length(kind: _Sized) -> str:
    least, most = kind.min_length or 0, kind.max_length
    if most is None:
        return f" of at least {least}" if least else ""
    return f" of {least} to {most}"


def _expected_range(kind: _Number) -> str:
    low = kind.ge if kind.ge is not None else kind.gt
    high = kind.le if kind.le is not None else kind.lt
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low:.12g}" if kind.ge is not None else f" above {low:.12g}"
    if low is None:
        return f" of at most {high:.12g}" if kind.le is not None else f" below {high:.12g}"
    opens, closes = "[" if kind.ge is not None else "(", "]" if kind.le is not None else ")"
    return f" in {opens}{low:.12g}, {high:.12g}{closes}"


def _shown(value: Plain) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return f"a mapping of {len(value)}"
        case list():
            return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
