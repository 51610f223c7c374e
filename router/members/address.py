"""Which addresses an endpoint may have: checked and pinned before a packet leaves for it."""

from collections.abc import Sequence

from isochrone.router.errors import Forbidden
from isochrone.router.geo.address import Network
from isochrone.router.wire.url import HostPort, literal


def pin(where: HostPort, resolved: Sequence[str], allowed: Sequence[Network]) -> HostPort:
    """The one address to use from now on, out of those that the host resolved to.

    Every one of them must be allowed, so that a name cannot smuggle one in.

    Raises:
        Forbidden: an address lies outside the allowed networks, or there is none.
    """
    if not resolved:
        raise Forbidden(f"{where.host} has no address")
    for text in resolved:
        address = literal(text)
        if address is None or not any(address in network for network in allowed):
            raise Forbidden(f"{text} is outside enrolment.allowed_networks of this router")
    return HostPort(resolved[0], where.port)
