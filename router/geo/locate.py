"""From a connection to the place of its client: listed proxies, listed networks, then GeoIP."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from isochrone.router.geo.address import Address, Network, PrefixTable, read_address
from isochrone.router.geo.database import GeoDatabase
from isochrone.router.geo.place import UNKNOWN_PLACE, Place, Source
from isochrone.router.wire.headers import FORWARDED_FOR
from isochrone.router.wire.http import Headers

__all__ = [
    "UNKNOWN_PLACE",
    "GeoDatabase",
    "Locator",
    "Place",
    "Source",
    "client_address",
    "trusted_proxies",
]

_KEPT_PLACES = 8192


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
        self.database = database
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

    def forget(self) -> None:
        """Look everything up anew: the database holds other places now."""
        self._kept.cache_clear()

    @property
    def failures(self) -> int:
        """How many look-ups the GeoIP database broke on."""
        return 0 if self.database is None else self.database.failures

    def _look_up(self, address: Address) -> Place:
        listed = self._networks.find(address)
        if listed is not None:
            return listed
        return UNKNOWN_PLACE if self.database is None else self.database.find(address)

    def close(self) -> None:
        """Give the GeoIP database back."""
        if self.database is not None:
            self.database.close()
