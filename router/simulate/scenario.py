"""The shape of a scenario file: who serves where, who asks, how it arrives and what goes wrong."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from isochrone.router.process.settings import Settings
from isochrone.router.wire.report import Name

ANY: Literal["any"] = "any"

Kind = Literal["deterministic", "exponential", "lognormal"]
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=1_000_000)]
Positive = Annotated[float, Meta(gt=0, le=1_000_000)]
Spread = Annotated[float, Meta(ge=0, le=10, description="standard deviation over the mean")]
Count = Annotated[int, Meta(ge=1, le=100_000)]
Latitude = Annotated[float, Meta(ge=-90, le=90, description="degrees, north is positive")]
Longitude = Annotated[float, Meta(ge=-180, le=180, description="degrees, east is positive")]
CityName = Annotated[str, Meta(min_length=1, max_length=80)]
Names = Annotated[tuple[Name, ...], Meta(min_length=1)]


class PlaceEntry(Settings, frozen=True, kw_only=True):
    """A city of the scenario: where it is, and how many of the clients live there."""

    latitude: Latitude
    longitude: Longitude
    population: Annotated[float, Meta(ge=0)] = 1.0


class Standing(Settings, frozen=True, kw_only=True):
    """Something with a name that stands in a city."""

    name: Name
    city: CityName
    region: Name


class RouterEntry(Standing, frozen=True, kw_only=True):
    """A router; clients come to the one with the least round trip."""


class Service(Settings, frozen=True, kw_only=True):
    """How long a warm model holds a slot for a request of work 1. `cv` is for lognormal only.

    What a request draws it draws once: it is as heavy at every endpoint and under every rule.
    """

    mean_s: Positive
    distribution: Kind = "lognormal"
    cv: Spread = 0.5


class EndpointEntry(Standing, frozen=True, kw_only=True):
    """Somewhere that serves: `slots` at once and `queue` waiting, else it answers that it is full.

    `load_s` is how long a cold model takes to become warm; after `keep_alive_s` of idling it is
    cold again (null: never). `price` is per slot and second that is busy or kept warm. It is not
    known to any router before `joins_s`.
    """

    tier: Literal["edge", "cloud"] = "edge"
    slots: Count = 2
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 64
    service: Service
    hardware_class: str = "unknown"
    load_s: Seconds = 0.0
    keep_alive_s: Positive | None = None
    starts: Literal["warm", "cold"] = "warm"
    joins_s: Seconds = 0.0
    price: Annotated[float, Meta(ge=0)] = 1.0


class TenantEntry(Settings, frozen=True, kw_only=True):
    """Who asks: its part of all requests, its law, and the regions that its clients are in."""

    name: Name
    share: Positive = 1.0
    require: Literal["any"] | Names = ANY
    clients: Literal["any"] | Names = ANY
    priority: Annotated[int, Meta(ge=1, le=9)] = 5

    @property
    def requirement(self) -> str:
        """The law in one word, for a report."""
        return self.require if isinstance(self.require, str) else "+".join(self.require)


class Diurnal(Settings, frozen=True, kw_only=True):
    """Demand follows the sun: a city asks `1 + swing * cos(...)` times its mean, most at
    `peak_hour` of its solar time. A day is compressed to `day_s`. All cities together ask as often
    as without it.
    """

    day_s: Positive
    swing: Share = 0.8
    peak_hour: Annotated[float, Meta(ge=0, lt=24)] = 14.0


class Arrivals(Settings, frozen=True, kw_only=True):
    """When requests come: at random, or as in a CSV file with a TIMESTAMP column.

    A trace is scaled in time to the wanted rate, begins at an instant that the seed chooses and
    starts over at its end. `trace` is a path from this file's folder; the command's `--trace`
    stands in for it.
    """

    process: Literal["poisson", "trace"] = "poisson"
    trace: Path | None = None
    diurnal: Diurnal | None = None


class Work(Settings, frozen=True, kw_only=True):
    """What a router can see of a request's size (its batch): a factor of its service time, with
    mean 1. `cv` is for lognormal only.
    """

    distribution: Kind = "deterministic"
    cv: Spread = 0.5


class Body(Settings, frozen=True, kw_only=True):
    """How many bytes a request has. `cv` is for lognormal only."""

    mean_bytes: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 2_000
    distribution: Kind = "deterministic"
    cv: Spread = 0.5


class Network(Settings, frozen=True, kw_only=True):
    """What lies between a router and an endpoint besides the least round trip.

    Each trip takes the least round trip, an exponential share of it on top with mean
    `jitter_share`, and `bytes / bandwidth`.
    """

    jitter_share: Annotated[float, Meta(ge=0, le=2)] = 0.03
    bandwidth_bytes_s: Annotated[float, Meta(gt=0)] = 12_500_000.0


class Antagonists(Settings, frozen=True, kw_only=True):
    """Neighbours on the same machines: a share of the endpoints, chosen by the seed, is slower by
    `factor` in alternating periods (exponential, with these means).
    """

    share: Share
    factor: Annotated[float, Meta(ge=1, le=1000)]
    slow_s: Positive
    quiet_s: Positive
    tier: Literal["edge", "cloud", "any"] = ANY


class Fault(Settings, frozen=True, kw_only=True):
    """What goes wrong at `where` (endpoints; for region_loss, regions) from `at_s` for `for_s`.

    kill: connections are refused and what was there is lost. freeze: nothing is answered, and all
    goes on afterwards. slow: `factor` times the service time. fast_fail: an error at once.
    region_loss: kill, of every endpoint there. scale_to_zero: the model is unloaded at `at_s`.
    """

    kind: Literal["kill", "freeze", "slow", "fast_fail", "region_loss", "scale_to_zero"]
    where: Names
    at_s: Seconds
    for_s: Positive | None = None
    factor: Annotated[float, Meta(ge=1, le=10_000)] = 1.0

    def __post_init__(self) -> None:
        if (self.kind == "slow") != (self.factor > 1):
            raise ValueError("factor says how much slower: above 1 for slow, and for nothing else")
        if self.kind == "scale_to_zero" and self.for_s is not None:
            raise ValueError("for_s: a model is unloaded at one instant; take it out")


class Scenario(Settings, frozen=True, kw_only=True):
    """A world to try routing rules in.

    Load 1.0 is as many requests per second as keep every slot busy with warm mean service, without
    antagonists and faults. The first `warmup_s` of `seconds` are played but not counted.
    """

    about: str = ""
    model: Name = "model"
    seconds: Positive = 60.0
    warmup_s: Seconds = 10.0
    objective_s: Positive = 0.4
    deadline_s: Positive = 10.0
    tries: Annotated[int, Meta(ge=1, le=10)] = 3
    places: Annotated[dict[CityName, PlaceEntry], Meta(min_length=1)]
    groups: dict[Name, Names] = field(default_factory=dict)
    routers: Annotated[tuple[RouterEntry, ...], Meta(min_length=1)]
    endpoints: Annotated[tuple[EndpointEntry, ...], Meta(min_length=1)]
    tenants: Annotated[tuple[TenantEntry, ...], Meta(min_length=1)] = (TenantEntry(name="default"),)
    arrivals: Arrivals = Arrivals()
    work: Work = Work()
    body: Body = Body()
    network: Network = Network()
    antagonists: Antagonists | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def capacity_per_s(self) -> float:
        """Requests per second at load 1.0."""
        return sum(one.slots / one.service.mean_s for one in self.endpoints)

    @property
    def standing(self) -> tuple[Standing, ...]:
        """The routers and the endpoints."""
        return (*self.routers, *self.endpoints)

    @property
    def regions(self) -> frozenset[str]:
        """Every region that somebody stands in."""
        return frozenset(one.region for one in self.standing)

    def lawful(self, require: Literal["any"] | tuple[str, ...]) -> frozenset[str] | None:
        """The regions that a tenant's law allows; None: all."""
        if isinstance(require, str):
            return None
        return frozenset(name for one in require for name in self.groups.get(one, (one,)))

    def __post_init__(self) -> None:
        problem = next(_problems(self), None)
        if problem is not None:
            raise ValueError(problem)


def _problems(scenario: Scenario) -> Iterator[str]:
    if scenario.warmup_s >= scenario.seconds:
        yield f"warmup_s must be less than the {scenario.seconds:g} seconds"
    for key, entries in (
        ("routers", scenario.routers),
        ("endpoints", scenario.endpoints),
        ("tenants", scenario.tenants),
    ):
        yield from _twice(key, (one.name for one in entries))
    for one in scenario.standing:
        if one.city not in scenario.places:
            yield f"{one.name}: city {one.city} does not stand under places"
    yield from _strangers(scenario)


def _twice(key: str, names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{key}: {name} stands here twice; names must differ"
        seen.add(name)


def _strangers(scenario: Scenario) -> Iterator[str]:
    endpoints = frozenset(one.name for one in scenario.endpoints)
    serving = frozenset(one.region for one in scenario.endpoints)
    for group, members in scenario.groups.items():
        yield from _unknown(f"groups.{group}", members, scenario.regions, "a region")
    for tenant in scenario.tenants:
        at = f"tenants: {tenant.name}"
        for names in (tenant.require, tenant.clients):
            known = scenario.regions | scenario.groups.keys()
            yield from _unknown(at, _listed(names), known, "a region or group")
        lawful = scenario.lawful(tenant.require)
        if lawful is not None and not lawful & serving:
            yield f"{at}: no endpoint stands where its law allows"
    for fault in scenario.faults:
        of_region = fault.kind == "region_loss"
        known = serving if of_region else endpoints
        kind = "a region with endpoints" if of_region else "an endpoint"
        yield from _unknown(f"faults: {fault.kind}", fault.where, known, kind)


def _listed(names: Literal["any"] | tuple[str, ...]) -> tuple[str, ...]:
    return () if isinstance(names, str) else names


def _unknown(at: str, names: Iterable[str], known: Iterable[str], kind: str) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{at}: {name} is not {kind} of this scenario"
