"""From a connection to the place of its client: listed proxies, listed networks, then GeoIP."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb

from router.errors import ConfigError
from router.geo.address import Address, Network, PrefixTable, read_address
from router.geo.region import Point
from router.wire.http import Headers

FORWARDED_FOR = b"x-forwarded-for"
_KEPT_PLACES = 8192
_PLACE_DATABASES = ("city", "country", "enterprise", "location")
"""One of these words stands in the type of every GeoIP database that holds places."""


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


def trusted_proxies(networks: Iterable[Network]) -> PrefixTable[bool]:
    """The proxies whose X-Forwarded-For is believed."""
    return PrefixTable((network, True) for network in networks)


def client_address(peer: str, forwarded_for: Sequence[bytes], proxies: PrefixTable[bool]) -> str:
    """The address of the client behind the listed proxies.

    `forwarded_for` holds every line of the field in the order of the message. Each listed proxy
    vouches for the hop to its left, so the right-most hop that is not listed is the client; what
    stands left of it, or of something unreadable, is only what somebody claims.
    """
    hops = b",".join(forwarded_for).split(b",") if forwarded_for else []
    client = peer
    while hops and _is_listed(client, proxies):
        hop = read_address(_without_port(hops.pop()))
        if hop is None:
            break
        client = str(hop)
    return client


def _is_listed(address: str, proxies: PrefixTable[bool]) -> bool:
    read = read_address(address)
    return read is not None and proxies.find(read) is not None


def _without_port(hop: bytes) -> str:
    text = hop.strip(b' \t"').decode("latin-1")
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


class GeoDatabase:
    """A GeoIP database named by the operator; `failures` counts look-ups that it broke on."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ConfigError: it is absent, broken, or holds no places.
        """
        self._reader = _opened(path)
        self.failures = 0

    def find(self, address: Address) -> Place:
        """The place of an address; never an exception, whatever the file holds."""
        try:
            return _place(self._reader.get(address))
        except Exception:  # a file that opens can still be corrupt inside, in any way
            self.failures += 1
            return UNKNOWN_PLACE

    def close(self) -> None:
        """Give the file back."""
        self._reader.close()


def _opened(path: Path) -> maxminddb.Reader:
    remedy = "name a GeoIP2 or GeoLite2 City database, or leave geoip_database out"
    try:
        reader = maxminddb.open_database(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; {remedy}") from error
    except (maxminddb.InvalidDatabaseError, ValueError) as error:
        raise ConfigError(f"{path}: is not a usable MaxMind database; {remedy}") from error
    kind = reader.metadata().database_type
    if not any(word in kind.lower() for word in _PLACE_DATABASES):
        reader.close()
        raise ConfigError(f"{path}: a {kind} database holds no places; {remedy}")
    return reader


def _place(record: Any) -> Place:  # noqa: ANN401  # whatever the file holds
    if record is None:
        return UNKNOWN_PLACE
    location, country = record.get("location", {}), record.get("country", {}).get("iso_code")
    latitude, longitude = location.get("latitude"), location.get("longitude")
    known = isinstance(latitude, float) and isinstance(longitude, float)
    point = Point(latitude, longitude) if known else None
    if point is None and country is None:
        return UNKNOWN_PLACE
    return Place(point, country, None, Source.GEOIP)


class Locator:
    """The place of a client, looked up once and kept; the operator's networks win over GeoIP."""

    def __init__(
        self,
        networks: PrefixTable[Place],
        proxies: PrefixTable[bool],
        database: GeoDatabase | None = None,
    ) -> None:
        self._networks = networks
        self._proxies = proxies
        self._database = database
        self._kept = lru_cache(maxsize=_KEPT_PLACES)(self._look_up)

    def client_address(self, peer: str, headers: Headers) -> str:
        """The address of the client: the TCP peer's, or what listed proxies vouch for."""
        if not _is_listed(peer, self._proxies):
            return peer
        lines = [value for name, value in headers if name == FORWARDED_FOR]
        return client_address(peer, lines, self._proxies)

    def place(self, address: str) -> Place:
        """The place of an address; what is no address, or in no table, is an unknown place."""
        read = read_address(address)
        return UNKNOWN_PLACE if read is None else self._kept(read)

    @property
    def failures(self) -> int:
        """How many look-ups the GeoIP database broke on."""
        return 0 if self._database is None else self._database.failures

    def _look_up(self, address: Address) -> Place:
        listed = self._networks.find(address)
        if listed is not None:
            return listed
        return UNKNOWN_PLACE if self._database is None else self._database.find(address)

    def close(self) -> None:
        """Give the GeoIP database back."""
        if self._database is not None:
            self._database.close()
