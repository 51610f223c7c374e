"""Internet addresses: read without exceptions, found in tables by their longest prefix."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Generic, TypeVar

T = TypeVar("T")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LONGEST_TEXT = 64
"""Longer than any address with its scope; what is longer is not kept in the cache."""


def read_address(text: str) -> Address | None:
    """An address, without its scope, an IPv4-mapped one as IPv4; None where it is none."""
    return _read_address(text) if len(text) <= _LONGEST_TEXT else None


@lru_cache(maxsize=4096)
def _read_address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


class PrefixTable(Generic[T]):
    """Values by network; the longest network that holds an address gives its value."""

    def __init__(self, entries: Iterable[tuple[Network, T]]) -> None:
        tables: dict[int, dict[int, dict[int, T]]] = {4: {}, 6: {}}
        for network, value in entries:
            shift = network.max_prefixlen - network.prefixlen
            values = tables[network.version].setdefault(shift, {})
            values[int(network.network_address) >> shift] = value
        self._tables = {version: sorted(by.items()) for version, by in tables.items()}

    def find(self, address: Address) -> T | None:
        """The value of the longest prefix; None where no network holds the address."""
        number = int(address)
        for shift, values in self._tables[address.version]:
            value = values.get(number >> shift)
            if value is not None:
                return value
        return None
