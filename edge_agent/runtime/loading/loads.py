"""The loads of one pool, which run one after another, and when each will be done."""

from collections.abc import Hashable
from dataclasses import dataclass

_BASE_S = 0.3
_BYTES_PER_S = 250e6
_NEWEST_SHARE = 0.5
_LEFT_SHARE = 0.1
"""Of a load that takes longer than expected, at least so much is still to come."""


@dataclass(slots=True)
class _Load:
    expected_s: float
    began_s: float | None = None


class Loads:
    """What waits and what runs, in order, by whose load it is."""

    def __init__(self) -> None:
        self._loads: dict[Hashable, _Load] = {}
        self._slowness = 1.0
        """How many times longer than the guess loads take on this machine."""

    def guess_s(self, size_bytes: int) -> float:
        """What a load may take that was never measured here, by the size of its file."""
        return self._slowness * _guess_s(size_bytes)

    def join(self, whose: Hashable, expected_s: float) -> None:
        """A load is to come after all others."""
        self._loads[whose] = _Load(expected_s)

    def began(self, whose: Hashable, now_s: float) -> None:
        """Its turn has come."""
        if whose in self._loads:
            self._loads[whose].began_s = now_s

    def ended(self, whose: Hashable, size_bytes: int, took_s: float | None) -> None:
        """It is over; `took_s` None: it failed, or was called off."""
        self._loads.pop(whose, None)
        if took_s is not None:
            newest = took_s / _guess_s(size_bytes)
            self._slowness += _NEWEST_SHARE * (newest - self._slowness)

    def left_s(self, whose: Hashable, now_s: float) -> float | None:
        """Seconds until this load is done, those before it included; None where it is none."""
        if whose not in self._loads:
            return None
        left_s = 0.0
        for other, load in self._loads.items():
            left_s += _left_s(load, now_s)
            if other == whose:
                break
        return left_s

    def all_left_s(self, now_s: float) -> float:
        """Seconds until every load is done that has been asked for."""
        return sum(_left_s(load, now_s) for load in self._loads.values())


def _guess_s(size_bytes: int) -> float:
    return _BASE_S + size_bytes / _BYTES_PER_S


def _left_s(load: _Load, now_s: float) -> float:
    ran_s = 0.0 if load.began_s is None else now_s - load.began_s
    return max(load.expected_s - ran_s, load.expected_s * _LEFT_SHARE)
