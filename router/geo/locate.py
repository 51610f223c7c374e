"""The address and the place of a client: listed proxies, listed networks, then GeoIP."""

from collections.abc import Iterable
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
    "trusted_proxies",
]

_KEPT = 8192
"""Clients whose place, and peers whose part as a proxy, are kept."""
_LONGEST_HOP = 72
"""Longer than any address with brackets and a port."""


def trusted_proxies(networks: Iterable[Network]) -> PrefixTable[bool]:
    """The proxies whose X-Forwarded-For is believed."""
    return PrefixTable((network, True) for network in networks)


@lru_cache(maxsize=_KEPT)
def _read_hop(hop: bytes) -> str | None:
    """The address of one hop of X-Forwarded-For, without its port; None where it is none."""
    text = hop.decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = read_address(text)
    return None if address is None else str(address)


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
        self._kept = lru_cache(maxsize=_KEPT)(self._look_up)
        self._is_proxy = lru_cache(maxsize=_KEPT)(self._look_up_proxy)

    def client_address(self, peer: str, headers: Headers) -> str:
        """The address of the client: the TCP peer's, or the one that listed proxies vouch for.

        Each listed proxy vouches for the hop to its left in X-Forwarded-For, so the right-most hop
        that is not listed is the client; anything left of it, or of a hop that is no address, is
        an unverified claim.
        """
        if not self._is_proxy(peer):
            return peer
        hops: list[bytes] = []
        for name, value in headers:
            if name == FORWARDED_FOR:
                hops += value.split(b",")
        client = peer
        while hops and self._is_proxy(client):
            hop = hops.pop().strip(b' \t"')
            address = _read_hop(hop) if len(hop) <= _LONGEST_HOP else None
            if address is None:
                break
            client = address
        return client

    def place(self, address: str) -> Place:
        """The place of an address; unknown where it is no address, or in no table."""
        read = read_address(address)
        return UNKNOWN_PLACE if read is None else self._kept(read)

    def forget(self) -> None:
        """Drop the kept places: the database holds other places now."""
        self._kept.cache_clear()

    @property
    def failures(self) -> int:
        """How many look-ups the GeoIP database broke on."""
        return 0 if self.database is None else self.database.failures

    def _look_up_proxy(self, address: str) -> bool:
        read = read_address(address)
        return read is not None and self._proxies.find(read) is not None

    def _look_up(self, address: Address) -> Place:
        listed = self._networks.find(address)
        if listed is not None:
            return listed
        return UNKNOWN_PLACE if self.database is None else self.database.find(address)

    def close(self) -> None:
        """Close the GeoIP database."""
        if self.database is not None:
            self.database.close()
