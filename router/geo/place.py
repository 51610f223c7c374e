"""Where a client is, as far as known, and who says so."""

from dataclasses import dataclass
from enum import StrEnum

from isochrone.router.geo.region import Point


class Source(StrEnum):
    """Who says that a client is there."""

    NETWORKS = "networks"
    GEOIP = "geoip"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client is, as far as known.

    `country` is an ISO 3166-1 alpha-2 code; `region` is one that the operator wrote beside the
    client's network, never a guess from the distance.
    """

    point: Point | None
    country: str | None
    region: str | None
    source: Source


UNKNOWN_PLACE = Place(None, None, None, Source.UNKNOWN)
