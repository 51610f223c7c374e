"""Network coordinates: a place in a made-up space whose distances are round trips. Pure.

Vivaldi (Dabek, Cox, Kaashoek, Morris: "Vivaldi: a decentralized network coordinate system", SIGCOMM
2004) moves two nodes as if a spring of the measured length were between them. The adjustment term,
the median filter (which the caller applies) and gravity are those of Ledlie, Gardner, Seltzer:
"Network coordinates in the wild", NSDI 2007; the constants are those of serf's coordinates.

A node that starts at its place on the globe, not at the origin, is right sooner: between 241
cities, started at the origin with fewer than 64 neighbours, it picks worse endpoints than distance
does; started at its place it picks better ones from a dozen neighbours on.
"""

import math
from array import array
from collections.abc import Sequence
from random import Random

from isochrone.router.geo.network import PRIOR_SIGMA_SHARE, prior_rtt_s
from isochrone.router.geo.region import Point

DIMENSIONS = 8
MOST_ERROR = 1.5
_C_ERROR = 0.25
_C_FORCE = 0.25
_WINDOW = 20
_LEAST_HEIGHT_S = 10e-6
_GRAVITY_S = 150.0
_ZERO = 1e-6
_ORIGIN = (0.0,) * DIMENSIONS
_GLOBE_S = 0.12
"""The globe's radius in the space. Great circles of `prior_rtt_s` want 0.11 s where they are short;
chords fall behind them where they are long.
"""


class Coordinate:
    """One node's coordinate; `error` is its relative error.

    `height_s` is the part of every round trip that is the node's own: its access link. Seconds.
    """

    __slots__ = ("_last", "_residuals_s", "adjustment_s", "error", "height_s", "vector")

    def __init__(self) -> None:
        self.vector = array("d", _ORIGIN)
        self.height_s = _LEAST_HEIGHT_S
        self.error = MOST_ERROR
        self.adjustment_s = 0.0
        self._residuals_s = array("d")
        self._last = 0

    @classmethod
    def at(cls, point: Point) -> "Coordinate":
        """A node that starts at its place on the globe, as wrong as distance is."""
        made = cls()
        north, east = math.radians(point.latitude), math.radians(point.longitude)
        made.vector[0] = _GLOBE_S * math.cos(north) * math.cos(east)
        made.vector[1] = _GLOBE_S * math.cos(north) * math.sin(east)
        made.vector[2] = _GLOBE_S * math.sin(north)
        made.height_s = prior_rtt_s(0.0) / 2
        made.error = PRIOR_SIGMA_SHARE
        return made

    def distance_s(self, other: "Coordinate") -> float:
        """The round trip between two nodes, in seconds."""
        raw_s = self._raw_s(other)
        adjusted_s = raw_s + self.adjustment_s + other.adjustment_s
        return adjusted_s if adjusted_s > 0 else raw_s

    def observe(self, other: "Coordinate", rtt_s: float, rng: Random) -> None:
        """Move towards where a measured round trip to another node says; the other one stays.

        `rng` gives a direction where both are in the same place.
        """
        rtt_s = max(rtt_s, _ZERO)
        distance_s = self.distance_s(other)
        weight = self.error / max(self.error + other.error, _ZERO)
        wrong = abs(distance_s - rtt_s) / rtt_s
        gain = _C_ERROR * weight
        self.error = min(self.error + gain * (wrong - self.error), MOST_ERROR)
        self._push(_C_FORCE * weight * (rtt_s - distance_s), other.vector, other.height_s, rng)
        self._adjust(rtt_s - self._raw_s(other))
        fall_s = math.hypot(*self.vector) + self.height_s + self.adjustment_s
        self._push(-((fall_s / _GRAVITY_S) ** 2), _ORIGIN, _LEAST_HEIGHT_S, rng)

    def _raw_s(self, other: "Coordinate") -> float:
        return math.dist(self.vector, other.vector) + self.height_s + other.height_s

    def _push(self, force_s: float, source: Sequence[float], height_s: float, rng: Random) -> None:
        """A force away from a place; negative: towards it."""
        away_s = math.dist(self.vector, source)
        if away_s > _ZERO:
            share = force_s / away_s
            pairs = zip(self.vector, source, strict=True)
            self.vector = array("d", [here + share * (here - there) for here, there in pairs])
            self.height_s = max(self.height_s + (self.height_s + height_s) * share, _LEAST_HEIGHT_S)
            return
        directions = [rng.uniform(-0.5, 0.5) for _ in range(DIMENSIONS)]
        share = force_s / max(math.hypot(*directions), _ZERO)
        for axis, direction in enumerate(directions):
            self.vector[axis] += share * direction

    def _adjust(self, residual_s: float) -> None:
        """Half the mean of the last residuals: what no place in the space can express."""
        if len(self._residuals_s) < _WINDOW:
            self._residuals_s.append(residual_s)
        else:
            self._residuals_s[self._last] = residual_s
            self._last = (self._last + 1) % _WINDOW
        self.adjustment_s = math.fsum(self._residuals_s) / (2 * _WINDOW)
