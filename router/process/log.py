"""What a process says on standard error: events with fields, as text or JSON lines.

A full disk or a closed pipe must never stop a server: what cannot be written is dropped and
counted.
"""

import json
import logging
import math
import re
import sys
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from isochrone.router.process.settings import Settings

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

_FIELDS = "isochrone_fields"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KEYS_KEPT = 256
_PLAIN = re.compile(r"[^\s\"=]+")


class LogConfig(Settings, frozen=True):
    """What a process says on standard error."""

    level: Level = "info"
    format: Format = "text"


def setup(level: str, format: Format, stream: TextIO | None = None) -> "DroppingHandler":  # noqa: A002  # named as in the configuration file
    """Send the log of this process to standard error, or to `stream`, from `level` upwards."""
    handler = DroppingHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_JsonLines() if format == "json" else _TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    return handler


def event(
    logger: logging.Logger, name: str, /, *, level: int = logging.INFO, **fields: object
) -> None:
    """Log that something has happened: a name in snake case, and its fields in both formats."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={_FIELDS: fields})


class LineLimit:
    """Which lines of one kind are written: an equal one once in `repeat_s`, and few in all.

    `left_out` counts those that were not, since the last that was.
    """

    def __init__(self, most: int = 10, window_s: float = 10.0, repeat_s: float = 60.0) -> None:
        """At most `most` lines in `window_s`."""
        self.left_out = 0
        self._repeat_s = repeat_s
        self._window_s = window_s
        self._written_s: deque[float] = deque([-math.inf] * most, most)
        self._of_key: OrderedDict[Hashable, float] = OrderedDict()

    def admits(self, key: Hashable, now_s: float) -> bool:
        """Whether a line is to be written now; lines with equal keys say the same."""
        repeated = now_s < self._of_key.get(key, -math.inf) + self._repeat_s
        if repeated or now_s < self._written_s[0] + self._window_s:
            self.left_out += 1
            return False
        self.left_out = 0
        self._written_s.append(now_s)
        self._of_key[key] = now_s
        self._of_key.move_to_end(key)
        if len(self._of_key) > _KEYS_KEPT:
            self._of_key.popitem(last=False)
        return True


def escaped(text: str) -> str:
    """A text on one line: control characters as `\\n`, `\\x1b`; no line of a log can be forged."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class DroppingHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream; `dropped` counts what it would not take."""

    dropped = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name of logging
        """Called by `emit` inside its `except`."""
        del record
        self.dropped += 1


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={_shown(value)}" for key, value in _fields_of(record).items())
        stamp = _instant(record)
        text = f"{stamp} {record.levelname.lower()} {record.name}: {record.getMessage()}{fields}"
        return escaped(text) + _trace(self, record)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        for key, value in _fields_of(record).items():
            line[f"{key}_" if key in line else key] = _plain(value)
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # ASCII, every control character escaped


def _fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, _FIELDS, {})
    return fields


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _plain(value: object) -> object:
    """JSON has no NaN and no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback below its line, indented so that none of it can pass for a line of its own."""
    if not record.exc_info:
        return ""
    lines = formatter.formatException(record.exc_info).splitlines()
    return "".join(f"\n    {escaped(line)}" for line in lines)
