"""Work that is due again and again: each part by its own interval, and none stopped by another."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

AGAIN_S = 1.0
"""A part that has failed is likely to fail again: so long until it is run again."""
SAID_S = 60.0
"""How often the log repeats that a part still fails."""

_log = logging.getLogger("isochrone.housekeeping")


@dataclass(slots=True, eq=False)
class _Part:
    name: str
    act: Callable[[float], object]
    every_s: float
    due_s: float = 0.0
    said_s: float = 0.0


class Housekeeping:
    """Parts with their intervals; `failures` counts how often each has failed.

    `failing` names the parts whose last run failed, with the error's type.
    """

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self.failing: dict[str, str] = {}
        self.failures: dict[str, int] = {}

    def add(self, name: str, act: Callable[[float], object], *, every_s: float = 0.0) -> None:
        """Run `act(now_s)` at least `every_s` seconds apart, after the parts that were added."""
        self._parts.append(_Part(name, act, every_s))

    def run(self, now_s: float) -> None:
        """Run every part that is due; nothing is raised."""
        for part in self._parts:
            if now_s >= part.due_s:
                part.due_s = now_s + part.every_s
                self._run(part, now_s)

    def _run(self, part: _Part, now_s: float) -> None:
        try:
            part.act(now_s)
        except Exception as error:  # a fault in one part must not end the process or other parts
            self.failures[part.name] = self.failures.get(part.name, 0) + 1
            if part.name not in self.failing or now_s >= part.said_s + SAID_S:
                part.said_s = now_s
                _log.exception("%s failed; it is run again every %g s", part.name, AGAIN_S)
            self.failing[part.name] = type(error).__name__
            part.due_s = now_s + max(part.every_s, AGAIN_S)
        else:
            if self.failing.pop(part.name, None) is not None:
                _log.warning("%s works again", part.name)
