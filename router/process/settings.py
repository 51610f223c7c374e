"""Configuration files become frozen, typed structs, once; what is wrong is told with its place."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from isochrone.router.process.document import (
    ConfigProblem,
    Document,
    KeyPath,
    Plain,
    SettingsError,
    read_document,
)
from isochrone.router.process.shape import differences

T = TypeVar("T")

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


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
    problems = structural_problems(document, kind)
    if problems:
        raise SettingsError(problems)
    return _converted(document, document.data, kind)


def readable_part(document: Document, kind: type[T]) -> T | None:
    """What is left of a document without the values that do not fit.

    Later checks can then tell their problems as well. None where nothing can be read. A list ends
    before an item that has to go, so that every key path still means what it means in the file.
    """
    shape, data = inspect.type_info(kind), deepcopy(document.data)
    while faults := list(differences(shape, data)):
        if not all(_removed(data, fault.at) for fault in faults):
            return None
    return _converted(document, data, kind)


def _removed(data: Plain, at: KeyPath) -> bool:
    """Whether the value at a key path could be removed, or what lacks it; the root cannot."""
    if not at:
        return False
    try:
        holder: Any = data
        for step in at[:-1]:
            holder = holder[step]
        if isinstance(holder, list):
            del holder[int(at[-1]) :]
        else:
            del holder[at[-1]]
    except KeyError:
        return _removed(data, at[:-1])
    except IndexError:  # its list ends earlier already
        pass
    return True


def _converted(document: Document, data: Plain, kind: type[T]) -> T:
    def from_text(wanted: type[Any], value: str) -> Path:
        if wanted is not Path:
            raise TypeError(f"{wanted.__name__} cannot stand in a configuration file")
        return document.path.parent / Path(value).expanduser()

    return msgspec.convert(data, kind, dec_hook=from_text, str_keys=True)


def attempted(read: Callable[[], T]) -> tuple[T | None, list[ConfigProblem]]:
    """What a reader gives, or the problems that it raises, so that several can tell theirs."""
    try:
        return read(), []
    except SettingsError as error:
        return None, list(error.problems)


def problems_in(path: Path, kind: type[Any]) -> list[ConfigProblem]:
    """Everything that keeps a file from being a `kind`; empty where nothing does."""
    return attempted(lambda: load_settings(path, kind))[1]


def structural_problems(document: Document, kind: type[Any]) -> list[ConfigProblem]:
    """Everything that keeps a document from being a `kind`, by itself."""
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
