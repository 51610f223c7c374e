"""Round trips between clients and endpoints, for clients that go to an endpoint by themselves.

What was measured counts; else network coordinates, once both sides have been measured often
enough; else the distance. Nothing is faster than light. Clients are known by prefix (/24 or /48),
and memory is bounded: whoever was measured longest ago is forgotten first.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from random import Random

from isochrone.router.geo.address import Address
from isochrone.router.geo.network import PRIOR_SIGMA_SHARE, Estimate, light_rtt_s, prior_rtt_s
from isochrone.router.geo.region import EARTH_RADIUS_KM, Point, Regions, distance_km
from isochrone.router.geo.vivaldi import Coordinate
from isochrone.router.wire.report import PREFIX_BITS

LASTS_S = 86_400.0
"""A measurement fades: after so long it says no more than distance does."""
ENOUGH_COUNT = 32
"""Coordinates count where both sides have more samples; with fewer, distance picks better."""
COORDINATES_SIGMA_SHARE = 0.26
"""Of an estimate by coordinates: nine errors in ten are below 43 %, 1.64 deviations."""
_OF_A_PAIR = 3
"""So many samples of one client and one endpoint count towards these: the rest is no news."""
_LEAST_WEIGHT = 1 / 8
_PAIRS = 32
"""Endpoints that are remembered of one client."""
_SOMEWHERE_KM = EARTH_RADIUS_KM * math.pi / 2
"""Between two places of which nothing is known: the mean over the globe."""


@dataclass(frozen=True, slots=True)
class Client:
    """A network that clients come from, and where it is if that is known."""

    prefix: tuple[int, int]
    point: Point | None

    @classmethod
    def of(cls, address: Address, point: Point | None) -> "Client":
        """The network of an address."""
        shift = address.max_prefixlen - PREFIX_BITS[address.version]
        return cls((address.version, int(address) >> shift), point)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured round trip to an endpoint; `trusted` where one of our own measured it."""

    endpoint: str
    region: str
    rtt_s: float
    trusted: bool = False


class _Pair:
    """The round trip between one client network and one endpoint."""

    __slots__ = ("at_s", "before", "count", "mean_s", "trusted", "variance")

    def __init__(self, *, trusted: bool) -> None:
        self.trusted = trusted
        self.count = 0
        self.mean_s = 0.0
        self.variance = 0.0
        self.at_s = 0.0
        self.before: tuple[float, ...] = ()

    def observe(self, rtt_s: float, now_s: float) -> float:
        """Fold in the median of the last three; returns it."""
        last = (*self.before, rtt_s)
        self.before = last[-2:]
        middle_s = sorted(last)[len(last) // 2]
        self.count += 1
        self.at_s = now_s
        if self.count == 1:  # as RFC 6298, section 2.2, begins
            self.mean_s, self.variance = middle_s, middle_s * middle_s / 4
        else:
            weight = max(1 / self.count, _LEAST_WEIGHT)
            step_s = middle_s - self.mean_s
            self.mean_s += weight * step_s
            self.variance = (1 - weight) * (self.variance + weight * step_s * step_s)
        return middle_s

    def sigma_s(self, now_s: float) -> float:
        """One standard deviation; it grows with age."""
        aged_s = PRIOR_SIGMA_SHARE * self.mean_s * (now_s - self.at_s) / LASTS_S
        return math.sqrt(self.variance + aged_s * aged_s)


class _Node:
    """A client network or an endpoint in the space of coordinates."""

    __slots__ = ("coordinate", "count", "pairs")

    def __init__(self, point: Point | None) -> None:
        self.coordinate = Coordinate() if point is None else Coordinate.at(point)
        self.count = 0
        self.pairs: dict[str, _Pair] = {}

    def learn(self, other: "_Node", rtt_s: float, *, fresh: bool, rng: Random) -> None:
        self.coordinate.observe(other.coordinate, rtt_s, rng)
        self.count += fresh


class ClientPaths:
    """What is known of the way from client networks to endpoints.

    `misplaced` counts the samples that were faster than light between the stated places: one of
    these is wrong, and the sample counts as what light takes.
    """

    def __init__(
        self,
        regions: Regions,
        rng: Random,
        *,
        most_clients: int = 16_384,
        most_pairs: int = 65_536,
        most_endpoints: int = 16_384,
    ) -> None:
        self.misplaced = 0
        self._regions = regions
        self._rng = rng
        self._most_clients = most_clients
        self._most_pairs = most_pairs
        self._most_endpoints = most_endpoints
        self._pairs = 0
        self._clients: OrderedDict[tuple[int, int], _Node] = OrderedDict()
        self._endpoints: OrderedDict[str, _Node] = OrderedDict()

    def __len__(self) -> int:
        """How many pairs of a client network and an endpoint are remembered."""
        return self._pairs

    @property
    def client_count(self) -> int:
        """How many client networks are remembered."""
        return len(self._clients)

    @property
    def endpoint_count(self) -> int:
        """How many endpoints have a coordinate."""
        return len(self._endpoints)

    def observe(self, client: Client, sample: Sample, now_s: float) -> None:
        """Fold in one measured round trip.

        Whoever is not trusted moves its own network's coordinate only, so that nobody can move an
        endpoint away from everybody else; and where one of our own has measured, it is not heard.
        """
        if not sample.trusted and self._is_known(client, sample.endpoint, now_s):
            return
        there = self._regions[sample.region].point
        bound_s = _bound_s(client.point, there)
        if sample.rtt_s < bound_s:
            self.misplaced += 1
        node, end = self._client(client), self._endpoint(sample.endpoint, there)
        pair = self._pair(node, sample, now_s)
        rtt_s = pair.observe(max(sample.rtt_s, bound_s), now_s)
        fresh = pair.count <= _OF_A_PAIR
        node.learn(end, rtt_s, fresh=fresh, rng=self._rng)
        if sample.trusted:
            end.learn(node, rtt_s, fresh=fresh, rng=self._rng)
        self._forget()

    def vantage(self, client: Client, now_s: float) -> "ClientVantage | None":
        """The client's view of every endpoint; None where nothing at all is known of it."""
        node = self._clients.get(client.prefix)
        if node is None and client.point is None:
            return None
        return ClientVantage(client.point, now_s, self._regions, node, self._endpoints)

    def _client(self, client: Client) -> _Node:
        node = self._clients.get(client.prefix)
        if node is None:
            node = self._clients[client.prefix] = _Node(client.point)
        else:
            self._clients.move_to_end(client.prefix)
        return node

    def _endpoint(self, name: str, point: Point) -> _Node:
        node = self._endpoints.get(name)
        if node is None:
            node = self._endpoints[name] = _Node(point)
        else:
            self._endpoints.move_to_end(name)
        return node

    def _is_known(self, client: Client, endpoint: str, now_s: float) -> bool:
        """One of our own has measured this, or so much of this client that there is no room."""
        node = self._clients.get(client.prefix)
        if node is None:
            return False
        known = [p for p in node.pairs.values() if p.trusted and now_s - p.at_s <= LASTS_S]
        return len(known) == _PAIRS or node.pairs.get(endpoint) in known

    def _pair(self, node: _Node, sample: Sample, now_s: float) -> _Pair:
        """The pair, as the newest of its client's.

        What others told of it ends with our own; what has expired is not taken up again.
        """
        pair = node.pairs.pop(sample.endpoint, None)
        if pair is None:
            self._pairs += 1
            if len(node.pairs) >= _PAIRS:
                hearsay = (name for name, other in node.pairs.items() if not other.trusted)
                del node.pairs[next(hearsay, next(iter(node.pairs)))]
                self._pairs -= 1
        if pair is None or pair.trusted is not sample.trusted or now_s - pair.at_s > LASTS_S:
            pair = _Pair(trusted=sample.trusted)
        node.pairs[sample.endpoint] = pair
        return pair

    def _forget(self) -> None:
        while len(self._clients) > self._most_clients or self._pairs > self._most_pairs:
            _, gone = self._clients.popitem(last=False)
            self._pairs -= len(gone.pairs)
        while len(self._endpoints) > self._most_endpoints:
            self._endpoints.popitem(last=False)


@dataclass(frozen=True, slots=True)
class ClientVantage:
    """One client's round trips, as they are known at one instant. A `Vantage`."""

    _point: Point | None
    _now_s: float
    _regions: Regions
    _node: _Node | None
    _endpoints: OrderedDict[str, _Node]
    _told: dict[str, Estimate] = field(default_factory=dict)

    def net(self, endpoint: str, region: str) -> Estimate:
        """The round trip to an endpoint; its source is measured, coordinates, distance or unknown.

        `unknown` is a mean over the globe: the client's place is unknown, nothing was measured.
        """
        told = self._told.get(endpoint)
        if told is None:
            there = self._regions[region].point
            told = self._told[endpoint] = self._measured(endpoint) or self._guessed(endpoint, there)
        return told

    def _measured(self, endpoint: str) -> Estimate | None:
        pair = None if self._node is None else self._node.pairs.get(endpoint)
        if pair is None or self._now_s - pair.at_s > LASTS_S:
            return None
        return Estimate(pair.mean_s, pair.sigma_s(self._now_s), "measured")

    def _guessed(self, endpoint: str, there: Point) -> Estimate:
        node, end = self._node, self._endpoints.get(endpoint)
        if node and end and min(node.count, end.count) > ENOUGH_COUNT:
            far_s = node.coordinate.distance_s(end.coordinate)
            mean_s = max(far_s, _bound_s(self._point, there))
            return Estimate(mean_s, COORDINATES_SIGMA_SHARE * mean_s, "coordinates")
        if self._point is None:
            mean_s, source = prior_rtt_s(_SOMEWHERE_KM), "unknown"
        else:
            mean_s, source = prior_rtt_s(distance_km(self._point, there)), "distance"
        return Estimate(mean_s, PRIOR_SIGMA_SHARE * mean_s, source)


def _bound_s(here: Point | None, there: Point) -> float:
    """What light takes; 0 where a place is unknown."""
    return 0.0 if here is None else light_rtt_s(distance_km(here, there))
