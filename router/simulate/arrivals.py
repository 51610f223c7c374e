"""The requests of a run: when each comes, from whom, and how heavy it is.

A run's requests depend on the scenario, the load and the seed only, never on the rule under test
(common random numbers). Nor do their contents depend on the load: request n of a seed is the same
at every load, only its instant differs.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from random import Random
from statistics import NormalDist

from isochrone.router.errors import ConfigError
from isochrone.router.simulate.cities import rows
from isochrone.router.simulate.scenario import Diurnal, Kind, Scenario, Service
from isochrone.router.simulate.world import Client, World


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `client`, `router` and `tenant` are indices in the world and its scenario.

    `at_s` is when it reaches its router. `chance` (0..1) is what it draws from a service time's
    distribution, `trip_factor` (1 or more) what its round trips take over the least.
    """

    number: int
    at_s: float
    client: int
    router: int
    tenant: int
    work: float
    chance: float
    trip_factor: float
    body_bytes: int


def service_s(service: Service, request: Request) -> float:
    """How long a warm, undisturbed endpoint holds a slot for a request."""
    drawn = factor(service.distribution, service.cv, request.chance)
    return service.mean_s * request.work * drawn


def factor(kind: Kind, cv: float, chance: float) -> float:
    """The quantile at `chance` (0..1, exclusive) of a distribution with mean 1."""
    if kind == "deterministic":
        return 1.0
    if kind == "exponential":
        return -math.log1p(-chance)
    variance = math.log1p(cv * cv)
    return math.exp(_NORMAL.inv_cdf(chance) * math.sqrt(variance) - variance / 2)


_NORMAL = NormalDist()
_STEPS_OF_A_DAY = 48


def requests(
    world: World, load: float, seed: int, trace: Sequence[float] | None = None
) -> Iterator[Request]:
    """The requests of a run, in order, until its scenario's `seconds`.

    `trace` are the instants of a trace from 0 (`read_trace`), needed where the scenario wants one.

    Raises:
        ConfigError: the scenario wants a trace and none is given, or a tenant has no clients.
    """
    scenario = world.scenario
    rate_per_s = load * scenario.capacity_per_s
    rng = Random(f"instants/{seed}")  # its own stream: contents do not depend on the load
    instants = _instants(scenario, rate_per_s, rng, trace)
    contents = _Contents(world, Random(f"contents/{seed}"))
    for number, at_s in enumerate(instants):
        if at_s >= scenario.seconds:
            return
        yield contents.next(number, at_s)


def _instants(
    scenario: Scenario, rate_per_s: float, rng: Random, trace: Sequence[float] | None
) -> Iterator[float]:
    if scenario.arrivals.process == "poisson":
        return _poisson(rate_per_s, rng)
    if trace is None:
        raise ConfigError("this scenario's arrivals follow a trace: name a CSV file with --trace")
    return _looped(trace, rate_per_s, rng)


def _poisson(rate_per_s: float, rng: Random) -> Iterator[float]:
    now_s = 0.0
    while True:
        now_s += rng.expovariate(rate_per_s)
        yield now_s


def _looped(trace: Sequence[float], rate_per_s: float, rng: Random) -> Iterator[float]:
    """A trace at another rate, from an instant that chance chooses, over and over."""
    scale = len(trace) / trace[-1] / rate_per_s
    offset_s = rng.random() * trace[-1]
    index = bisect_right(trace, offset_s)
    lap_s = 0.0
    while True:
        if index == len(trace):
            index, lap_s = 0, lap_s + trace[-1]
        yield (lap_s + trace[index] - offset_s) * scale
        index += 1


def read_trace(path: Path) -> tuple[float, ...]:
    """The instants of a CSV file with a TIMESTAMP column, in seconds from the first one.

    Raises:
        ConfigError: it cannot be read, a time is none, or they do not span any time.
    """
    instants = sorted(rows(path, ("TIMESTAMP",), lambda row: _instant(row["TIMESTAMP"])))
    if not instants or instants[-1] <= instants[0]:
        raise ConfigError(f"{path}: a trace needs two instants at least")
    return tuple(at - instants[0] for at in instants)


def _instant(text: str) -> float:
    """An ISO 8601 time (UTC unless it says; cut at microseconds) or a number of seconds."""
    try:
        at_s = float(text)
    except ValueError:
        at = datetime.fromisoformat(_FINER.sub(r"\1", text))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(at_s):
        raise ValueError(f"{text} is no instant")
    return at_s


_FINER = re.compile(r"(\.\d{6})\d+")


class _Contents:
    """What requests hold besides their instant, drawn in order."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        scenario = world.scenario
        self._tenants = list(accumulate(one.share for one in scenario.tenants))
        self._clients = [_clients_of(world, index) for index in range(len(scenario.tenants))]

    def next(self, number: int, at_s: float) -> Request:
        """The next request, which comes at `at_s`."""
        scenario, rng = self._world.scenario, self._rng
        tenant = _drawn(self._tenants, rng)
        client = self._clients[tenant].at(at_s, rng)
        work, body = scenario.work, scenario.body
        return Request(
            number=number,
            at_s=at_s,
            client=client,
            router=self._world.clients[client].router,
            tenant=tenant,
            work=factor(work.distribution, work.cv, _chance(rng)),
            chance=_chance(rng),
            trip_factor=1 + scenario.network.jitter_share * rng.expovariate(1.0),
            body_bytes=round(body.mean_bytes * factor(body.distribution, body.cv, _chance(rng))),
        )


def _chance(rng: Random) -> float:
    """Above 0 and below 1, so that every quantile is a number."""
    return (rng.getrandbits(52) + 0.5) / (1 << 52)


def _drawn(cumulative: Sequence[float], rng: Random) -> int:
    return bisect_right(cumulative, rng.random() * cumulative[-1], hi=len(cumulative) - 1)


class _Clients:
    """The clients of one tenant, by how much each asks at an instant of the day."""

    def __init__(
        self, numbers: Sequence[int], clients: Sequence[Client], sun: Diurnal | None
    ) -> None:
        self._numbers = numbers
        self._day_s = sun.day_s if sun else math.inf
        steps = _STEPS_OF_A_DAY if sun else 1
        self._cumulative = [
            list(accumulate(one.weight * _daylight(sun, one, step / steps) for one in clients))
            for step in range(steps)
        ]

    def at(self, now_s: float, rng: Random) -> int:
        """One of them, by its number."""
        day = now_s / self._day_s % 1.0
        step = int(day * len(self._cumulative))
        return self._numbers[_drawn(self._cumulative[step], rng)]


def _daylight(sun: Diurnal | None, client: Client, day: float) -> float:
    """What a city asks over its mean at a share of the day, counted from midnight at 0 degrees."""
    if sun is None:
        return 1.0
    solar = day + client.city.point.longitude / 360
    return 1 + sun.swing * math.cos(2 * math.pi * (solar - sun.peak_hour / 24))


def _clients_of(world: World, tenant: int) -> _Clients:
    scenario = world.scenario
    entry = scenario.tenants[tenant]
    regions = scenario.lawful(entry.clients)
    numbers = [
        number
        for number, one in enumerate(world.clients)
        if regions is None or one.region in regions
    ]
    if not numbers:
        raise ConfigError(f"tenants: {entry.name}: no client asks from there in this world")
    return _Clients(numbers, [world.clients[one] for one in numbers], scenario.arrivals.diurnal)
