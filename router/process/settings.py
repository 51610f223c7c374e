"""Configuration files become frozen, typed structs, once; what is wrong is told with its place."""

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from router.process.document import ConfigProblem, Document, KeyPath, SettingsError, read_document
from router.process.shape import differences

T = TypeVar("T")

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MSGSPEC_PLACE = re.compile(r" - at `(?:key in )?\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|(\[\.\.\.\])")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A struct of a configuration file: read once, never changed, no unknown keys."""


def load_settings(path: Path, kind: type[T]) -> T:
    """A configuration file as a `kind`. A relative `Path` in it counts from the file's folder.

    Raises:
        SettingsError: (a ConfigError) the file cannot be used; one line for each problem.
    """
    return read_settings(path, kind)[0]


def read_settings(path: Path, kind: type[T]) -> tuple[T, Document]:
    """As `load_settings`, with the document, so that later checks can point to a line.

    Raises:
        SettingsError: (a ConfigError) the file cannot be used; one line for each problem.
    """
    document = read_document(path)
    return settings_in(document, kind), document


def settings_in(document: Document, kind: type[T]) -> T:
    """The content of a document as a `kind`.

    Raises:
        SettingsError: (a ConfigError) it does not fit; one line for each problem.
    """
    problems = _structural(document, kind)
    if problems:
        raise SettingsError(problems)

    def from_text(wanted: type[Any], value: str) -> Path:
        if wanted is not Path:
            raise TypeError(f"{wanted.__name__} cannot stand in a configuration file")
        return document.path.parent / Path(value).expanduser()

    try:
        return msgspec.convert(document.data, kind, dec_hook=from_text, str_keys=True)
    except msgspec.ValidationError as error:
        raise SettingsError([_leftover(document, str(error))]) from error


def problems_in(path: Path, kind: type[Any]) -> list[ConfigProblem]:
    """Everything that keeps a file from being a `kind`; empty where nothing does."""
    try:
        load_settings(path, kind)
    except SettingsError as error:
        return list(error.problems)
    return []


def _structural(document: Document, kind: type[Any]) -> list[ConfigProblem]:
    return [
        document.problem(
            found.at,
            found.message,
            code=found.code,
            suggestion=found.suggestion,
            of_key=found.of_key,
        )
        for found in differences(inspect.type_info(kind), document.data)
    ]


def _leftover(document: Document, text: str) -> ConfigProblem:
    """What a struct's own `__post_init__` refused, at the place that msgspec names."""
    place = _MSGSPEC_PLACE.search(text)
    at = _key_path(place[1]) if place else ()
    return document.problem(at, f"is refused: {_MSGSPEC_PLACE.sub('', text)}")


def _key_path(text: str) -> KeyPath:
    steps: list[str | int] = []
    for name, index, anywhere in _STEP.findall(text):
        if anywhere:  # some value of a mapping: msgspec does not say which
            break
        steps.append(name or int(index))
    return tuple(steps)


def schema(kind: type[Any], title: str | None = None) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration file, for editors."""
    made = msgspec.json.schema(kind, schema_hook=_schema_of_foreign)
    for definition in made.get("$defs", {}).values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    return {"$schema": _DIALECT, "title": title or kind.__name__, **made}


def _schema_of_foreign(kind: type[Any]) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string", "description": "a path, relative to this file's folder"}
    raise NotImplementedError(f"{kind.__name__} has no JSON Schema here")
