"""A YAML file as plain data that knows the line and column of each of its keys.

Numbers, booleans and null are those of YAML 1.2; what YAML 1.1 would read differently (`no`, `on`)
is refused rather than guessed. Duplicate keys, tags and files that unfold without end are refused.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import msgspec
import yaml

from isochrone.router.errors import ConfigError
from isochrone.router.process.regular_file import open_regular

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000
_SHOWN_PROBLEMS = 20

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the root of a document to one of its values."""

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
Position = tuple[int, int]
"""Line and column, both counted from 1."""

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_AMBIGUOUS = frozenset({"yes", "no", "on", "off"})
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


class ConfigProblem(msgspec.Struct, frozen=True):
    """One thing that is wrong in a configuration file, and where; `line` and `column` from 1."""

    file: str
    line: int
    column: int
    key: str
    code: str
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        hint = f"; {self.suggestion}" if self.suggestion else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{hint}"


class SettingsError(ConfigError):
    """A configuration file with `problems`; the message tells of each in a line."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - _SHOWN_PROBLEMS
        lines = [str(problem) for problem in self.problems[:_SHOWN_PROBLEMS]]
        super().__init__("\n".join([*lines, f"... and {more} more"] if more > 0 else lines))


def written(path: KeyPath) -> str:
    """A key path as people write it: `rules[2].require[0]`, `networks["10.0.0.0/8"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text or "the file"


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A suggestion for a name that is not one of `known`, where one is close."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else None


def listed(values: Sequence[object]) -> str:
    """Allowed values for a sentence: `a`, `a or b`, `one of a, b, c`."""
    texts = [str(value) for value in values]
    if len(texts) <= 2:
        return " or ".join(texts)
    return f"one of {', '.join(texts)}"


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration file as it was read: its data, and where each key stands."""

    path: Path
    data: Plain
    _values: dict[KeyPath, Position]
    _keys: dict[KeyPath, Position]

    def position(self, key: KeyPath, *, of_key: bool = False) -> Position:
        """Where a value stands, or its key; for what is not there, what would hold it."""
        places = self._keys if of_key else self._values
        while key not in places and key:
            key, places = key[:-1], self._values
        return places.get(key, (1, 1))

    def problem(
        self,
        key: KeyPath,
        message: str,
        *,
        code: str = "invalid_value",
        suggestion: str | None = None,
        of_key: bool = False,
    ) -> ConfigProblem:
        """A problem with the value at `key` (or the key itself): "KEY MESSAGE"."""
        line, column = self.position(key, of_key=of_key)
        name = written(key)
        return ConfigProblem(
            str(self.path), line, column, name, code, f"{name} {message}", suggestion
        )


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        SettingsError: it cannot be read, is no YAML, or uses what is refused here.
    """
    return document_in(path, _raw(path))


def document_in(path: Path, raw: bytes) -> Document:
    """The YAML document that `raw` is; `path` says in the refusal where it stands.

    Raises:
        SettingsError: it is no YAML, or uses what is refused here.
    """
    text = _text(path, raw)
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _at(path, mark, "syntax", error.problem or str(error)) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise _at(path, None, "syntax", str(error).splitlines()[0]) from error
    return _Unfolding(path).document(root)


def _raw(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _at(path, None, "unreadable", f"cannot be read: {error.strerror}") from error


def _text(path: Path, raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise _at(path, None, "too_large", f"is over {MAX_BYTES} bytes; split it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _at(path, None, "encoding", "must be UTF-8 text") from error


def _at(path: Path, mark: yaml.Mark | None, code: str, message: str) -> SettingsError:
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return SettingsError([ConfigProblem(str(path), line, column, "", code, message)])


class _Loader(yaml.SafeLoader):
    """Composes nodes with a bound on nesting, and without tags."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it bare
        self._depth += 1
        if getattr(event, "tag", None) is not None:
            raise self._refused(event, "tags are not supported")
        if self._depth > MAX_DEPTH:
            raise self._refused(event, f"nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refused(self, event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(
            problem=problem,
            problem_mark=event.start_mark,  # type: ignore[arg-type]  # stubs: libyaml's or ours
        )


class _Unfolding:
    """One walk over the nodes of a file: plain data out, positions noted on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[KeyPath, Position] = {}
        self._keys: dict[KeyPath, Position] = {}

    def document(self, root: yaml.Node | None) -> Document:
        data: Plain = {} if root is None else self._plain(root, ())
        return Document(self._path, data, self._values, self._keys)

    def _plain(self, node: yaml.Node, at: KeyPath) -> Plain:
        if len(self._values) >= MAX_VALUES or len(at) > MAX_DEPTH:
            text = "aliases unfold into too many values: use fewer of them"
            raise self._refused(node, "too_large", text)
        block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        self._values[at] = self._keys[at] if block and at in self._keys else _position(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*at, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # the third and last kind
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, at: KeyPath) -> dict[str, Plain]:
        mapping: dict[str, Plain] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key in mapping:
                first = self._keys[(*at, key)][0]
                text = f"{written((*at, key))} stands here twice; it is already in line {first}"
                raise self._refused(key_node, "duplicate_key", text)
            self._keys[(*at, key)] = _position(key_node)
            mapping[key] = self._plain(value_node, (*at, key))
        return mapping

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._refused(node, "invalid_key", "a key must be text")
        self._scalar(node)  # refuses what is ambiguous
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode) -> Plain:
        text = str(node.value)
        if node.style is not None:  # in quotes, or a block of text
            return text
        if text.lower() in _AMBIGUOUS:
            remedy = f'write "{text}" in quotes for text, or true or false'
            problem = f"{text} is a boolean to some readers of YAML and text to others: {remedy}"
            raise self._refused(node, "ambiguous", problem)
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        return text

    def _refused(self, node: yaml.Node, code: str, message: str) -> SettingsError:
        return _at(self._path, node.start_mark, code, message)


def _position(node: yaml.Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1
