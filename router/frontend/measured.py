"""`POST /isochrone/measurements`: round trips that clients and agents have measured."""

from collections.abc import Iterator, Sequence

from isochrone.router.errors import BadRequest, Forbidden
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.geo.address import Address, Network, read_address
from isochrone.router.geo.clients import Client, ClientPaths, Sample
from isochrone.router.geo.locate import Locator
from isochrone.router.http.exchange import Exchange
from isochrone.router.process.clock import Clock
from isochrone.router.wire.headers import CallHeaders
from isochrone.router.wire.http import Response
from isochrone.router.wire.peer_json import read_json
from isochrone.router.wire.report import Measurement, Measurements


class Measured:
    """Takes measurements into `paths`; `unknown` counts those of endpoints not known here.

    A client speaks for its own address. Whoever asks from one of the `allowed` networks, as agents
    do, is believed about others too.
    """

    def __init__(
        self,
        *,
        paths: ClientPaths,
        ledger: Ledger,
        locator: Locator,
        allowed: Sequence[Network],
        clock: Clock,
    ) -> None:
        self.unknown = 0
        self.paths = paths
        self._ledger = ledger
        self._locator = locator
        self._allowed = allowed
        self._clock = clock

    def handle(self, exchange: Exchange, headers: CallHeaders, request_id: str) -> Response:
        """Fold them in, all or none; of several for one client and endpoint, the last.

        Raises:
            BadRequest: the body is not a `Measurements`, or a client no address.
            Forbidden: the caller may not speak for others.
        """
        del headers, request_id
        request = exchange.request
        told = read_json(request.body, Measurements, "measurements")
        caller = _address(self._locator.client_address(request.peer, request.headers))
        trusted = any(caller in network for network in self._allowed)
        now_s = self._clock()
        read = self._read(told.samples, caller, trusted=trusted)
        newest = {(client.prefix, sample.endpoint): (client, sample) for client, sample in read}
        for client, sample in newest.values():
            self.paths.observe(client, sample, now_s)
        return Response(204)

    def _read(
        self, samples: Sequence[Measurement], caller: Address, *, trusted: bool
    ) -> Iterator[tuple[Client, Sample]]:
        for one in samples:
            if one.client is not None and not trusted:
                raise Forbidden("client may be named from enrolment.allowed_networks only")
            address = caller if one.client is None else _address(one.client)
            site = self._ledger.site(one.endpoint)
            if site is None:
                self.unknown += 1
                continue
            point = self._locator.place(str(address)).point
            sample = Sample(one.endpoint, site.endpoint.region, one.rtt_s, trusted)
            yield Client.of(address, point), sample


def _address(text: str) -> Address:
    address = read_address(text)
    if address is None:
        raise BadRequest("client must be an IP address")
    return address
