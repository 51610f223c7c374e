"""Round trips to clients that come without a router: noted as they call, told to every router.

A router needs them to say to which endpoint such a client had best go. They are the kernel's, so
where a proxy ends a client's TCP they are the proxy's.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout

from isochrone.router.http.exchange import Exchange, Service
from isochrone.router.wire.headers import SEQUENCE
from isochrone.router.wire.http import Request
from isochrone.router.wire.report import MEASUREMENTS, PREFIX_BITS, Measurement, Measurements

TELL_S = 5.0
"""How often routers are told: as often as a lease is renewed."""
_MOST_NETWORKS = 256
_MOST_S = 60.0
_TIMEOUT = ClientTimeout(total=5.0, connect=2.0)
_JSON = {"content-type": "application/json"}
_log = logging.getLogger("isochrone.agent.client_trips")


class ClientTrips:
    """The least round trip to each client network since they were last taken.

    The least, as a client that acknowledges late adds up to 40 ms to some. Of more networks than
    `most` the later ones are left out.
    """

    def __init__(self, most: int = _MOST_NETWORKS) -> None:
        self._most = most
        self._least_s: dict[str, float] = {}

    def note(self, peer: str, rtt_s: float) -> None:
        """One round trip to the client at an address."""
        network = _network(peer)
        if network is None or not 0 < rtt_s <= _MOST_S:
            return
        if network in self._least_s:
            self._least_s[network] = min(self._least_s[network], rtt_s)
        elif len(self._least_s) < self._most:
            self._least_s[network] = rtt_s

    def take(self) -> dict[str, float]:
        """By the first address of each network, what was noted; then begin anew."""
        taken, self._least_s = self._least_s, {}
        return taken


@lru_cache(maxsize=4096)
def _network(peer: str) -> str | None:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:  # no IP connection
        return None
    address = getattr(address, "ipv4_mapped", None) or address
    network = ip_network((int(address), PREFIX_BITS[address.version]), strict=False)
    return str(network.network_address)


def noting(service: Service, trips: ClientTrips) -> Service:
    """The same service; before it answers a client that no router sent, the way there is noted."""

    def noted(exchange: Exchange) -> None:
        rtt_s = exchange.round_trip_s()
        if rtt_s is not None and _is_direct(exchange.request):
            trips.note(exchange.request.peer, rtt_s)
        service(exchange)

    return noted


def _is_direct(request: Request) -> bool:
    calls = request.method == "POST" and request.path.startswith("/v2/models/")
    return calls and request.header(SEQUENCE) is None


class Teller:
    """Tells every router what was noted; what cannot be told is dropped."""

    def __init__(
        self,
        routers: Iterable[str],
        endpoint: str,
        trips: ClientTrips,
        session: ClientSession,
        every_s: float = TELL_S,
    ) -> None:
        """`routers` are their URLs, `endpoint` is our own name."""
        self._urls = [f"{router}/isochrone/measurements" for router in routers]
        self._endpoint = endpoint
        self._trips = trips
        self._session = session
        self._every_s = every_s

    async def keep(self) -> None:
        """Tell, for as long as this is not cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            taken = self._trips.take()
            await asyncio.gather(*(self._tell(url, taken) for url in self._urls))

    async def _tell(self, url: str, taken: dict[str, float]) -> None:
        samples = [Measurement(self._endpoint, rtt_s, client) for client, rtt_s in taken.items()]
        try:
            for first in range(0, len(samples), MEASUREMENTS):
                await self._post(url, samples[first : first + MEASUREMENTS])
        except (ClientError, OSError, ValueError) as error:
            _log.debug("%s was not told: %s", url, error)

    async def _post(self, url: str, samples: Sequence[Measurement]) -> None:
        body = msgspec.json.encode(Measurements(tuple(samples)))
        async with self._session.post(
            url, data=body, headers=_JSON, timeout=_TIMEOUT, allow_redirects=False
        ) as answer:
            if answer.status != 204:
                _log.debug("%s answered %d", url, answer.status)
