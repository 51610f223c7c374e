"""Where things stand, in law and on the globe: regions, groups, jurisdictions, distance."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from isochrone.router.errors import BadRequest
from isochrone.router.process.document import did_you_mean

EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth (IUGG)."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place on the globe, in degrees: north and east are positive."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Region:
    """A legal and geographic unit; `jurisdiction` names the law that holds there."""

    name: str
    point: Point
    jurisdiction: str
    zones: tuple[str, ...] = ()


class Regions:
    """All regions, and the names that stand for several of them."""

    def __init__(self, regions: Iterable[Region], groups: Mapping[str, Iterable[str]]) -> None:
        self._regions = {region.name: region for region in regions}
        self.names = frozenset(self._regions)
        self._members = {name: frozenset((name,)) for name in self._regions}
        self._members |= _by_jurisdiction(self._regions.values())
        self._members |= {name: frozenset(members) for name, members in groups.items()}

    def __getitem__(self, name: str) -> Region:
        """A region by its name.

        Raises:
            KeyError: there is no such region.
        """
        return self._regions[name]

    def __contains__(self, name: object) -> bool:
        return name in self._regions

    def __iter__(self) -> Iterator[Region]:
        return iter(self._regions.values())

    def __len__(self) -> int:
        return len(self._regions)

    @property
    def known(self) -> tuple[str, ...]:
        """Every name that `resolve` takes: regions, then jurisdictions, then groups."""
        return tuple(self._members)

    def members(self, name: str) -> frozenset[str] | None:
        """The regions that a region, group or jurisdiction stands for; None where it is unknown."""
        return self._members.get(name)

    def resolve(self, names: Iterable[str]) -> frozenset[str]:
        """The regions that these regions, groups and jurisdictions stand for together.

        Raises:
            BadRequest: a name is unknown.
        """
        return frozenset().union(*(self._resolved(name) for name in names))

    def _resolved(self, name: str) -> frozenset[str]:
        members = self._members.get(name)
        if members is None:
            hint = did_you_mean(name, self._members) or f"known are {', '.join(self._members)}"
            raise BadRequest(f"unknown region, group or jurisdiction {name[:64]!r}; {hint}")
        return members

    def nearest(self, point: Point) -> Region | None:
        """The region with the least great-circle distance; None where there are no regions."""
        return min(
            self._regions.values(),
            key=lambda region: distance_km(region.point, point),
            default=None,
        )


def _by_jurisdiction(regions: Iterable[Region]) -> dict[str, frozenset[str]]:
    members: dict[str, frozenset[str]] = {}
    for region in regions:
        members[region.jurisdiction] = members.get(region.jurisdiction, frozenset()) | {region.name}
    return members


def distance_km(a: Point, b: Point) -> float:
    """The great-circle distance (haversine formula)."""
    north_a, north_b = math.radians(a.latitude), math.radians(b.latitude)
    across = math.sin((north_b - north_a) / 2) ** 2
    along = math.sin(math.radians(b.longitude - a.longitude) / 2) ** 2
    chord = across + math.cos(north_a) * math.cos(north_b) * along
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, chord)))
