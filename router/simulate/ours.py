"""The product's own router in virtual time: the same objects as in a server, joined as there.

Ledger, choice, dispatcher, runner, budgets, waiting room and prober are the product's; only what is
behind `Upstream` and `Exchange` is simulated.
"""

from random import Random

from isochrone.router.admission.quota import Quotas
from isochrone.router.core import TICK_S, Core, Knobs, Surroundings
from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.errors import IsochroneError
from isochrone.router.geo.network import light_rtt_s
from isochrone.router.geo.region import distance_km
from isochrone.router.http.exchange import Exchange
from isochrone.router.members.membership import Member, Membership
from isochrone.router.policy.policy import Plan
from isochrone.router.simulate.asked import Asked, observed
from isochrone.router.simulate.harness import Build
from isochrone.router.simulate.line import Case, Line
from isochrone.router.simulate.scenario import EndpointEntry
from isochrone.router.simulate.stage import Stage, known_as
from isochrone.router.simulate.tally import Expected
from isochrone.router.simulate.variants import Tuning
from isochrone.router.wire.problem import STATUS
from isochrone.router.wire.report import WIRE_VERSION, Enrolment, Lease

LEASE = Lease(lease_s=15.0, renew_s=5.0)
Z90 = 1.645
"""Nine in ten lie within so many standard deviations, on both sides together."""


def ours(settings: Tuning, seed: int) -> Build:
    """Routers of the product; each has chance of its own."""

    def build(stage: Stage, index: int) -> OurRouter:
        return OurRouter(stage, index, settings, Random(f"ours/{seed}/{index}"))

    return build


class OurRouter:
    """One router of the product on a stage."""

    def __init__(self, stage: Stage, index: int, settings: Tuning, rng: Random) -> None:
        entry = stage.world.scenario.routers[index]
        self._stage = stage
        self._engine = stage.engine
        self._index = index
        self._cases: dict[bytes, Case] = {}
        self._enrolments = 0
        self._lines = {
            name: Line(way, self._cases.__getitem__, stage.engine.clock)
            for name, way in stage.ways(index).items()
        }
        clock = stage.engine.clock
        scenario = stage.world.scenario
        configured = [_member(one) for one in scenario.endpoints if _is_configured(one)]
        sender = f"{entry.name}.{rng.getrandbits(32):08x}"
        prior_s, light_s = _round_trips(stage, index)
        self.core = Core(
            sender,
            Membership(configured, scenario.regions, LEASE),
            Knobs(
                prior_rtt_s=prior_s,
                light_rtt_s=light_s,
                most_attempts=scenario.tries,
                policy=settings.policy,
                probe=settings.probe,
                retries=settings.retries,
                hedge=settings.hedge,
                queue=settings.queue,
                tolerance=settings.tolerance,
                in_flight=settings.in_flight,
            ),
            Surroundings(
                lambda endpoint: self._lines[endpoint.name], _refuse, self._ended, lambda _: None
            ),
            Quotas({}),
            clock=clock,
            wall=clock,
            rng=rng,
            back_off_rng=Random(sender),  # so that back-offs leave the choices as they were
        )
        self._engine.after(TICK_S, self._tick)

    @property
    def probes(self) -> int:
        """How many control messages it has sent."""
        return sum(line.probes for line in self._lines.values())

    def join(self, index: int) -> None:
        """An endpoint enrols, and renews as long as it lives; a cloud ingress is configured."""
        if _is_configured(self._stage.world.scenario.endpoints[index]):
            self.core.follow()
        else:
            self._stage.endpoints[index].starts.append(lambda: self._enrol(index))
            self._renew(index)

    def ask(self, asked: Asked) -> None:
        """Have the dispatcher see it to its end."""
        query = asked.query()
        case = Case(asked, f"/v2/models/{query.model}/infer")
        self._cases[query.request_id.encode()] = case
        self.core.ask(case, query)

    def _tick(self) -> None:
        self.core.tick(self._engine.now_s)
        if self.core.housekeeping.failing:
            raise RuntimeError(f"housekeeping failed: {self.core.housekeeping.failing}")
        self._engine.after(TICK_S, self._tick)

    def _renew(self, index: int) -> None:
        endpoint = self._stage.endpoints[index]
        if not (endpoint.dead or endpoint.frozen):
            self._enrol(index)
        self._engine.after(LEASE.renew_s, self._renew, index)

    def _enrol(self, index: int) -> None:
        endpoint = self._stage.endpoints[index]
        self._enrolments += 1
        now_s = self._engine.now_s
        enrolment = Enrolment(
            wire_version=WIRE_VERSION,
            name=endpoint.name,
            instance=endpoint.telling.instance,
            boot_id=endpoint.telling.instance,
            sequence=self._enrolments,
            url=known_as(endpoint.entry).url,
            region=endpoint.region,
            tier=endpoint.entry.tier,
            hardware_class=endpoint.entry.hardware_class,
            slots=endpoint.slots,
            models=endpoint.telling.models(),
        )
        self.core.membership.enrol(enrolment, enrolment.url, now_s)
        self.core.follow()

    def _ended(self, record: RoutedRequest) -> None:
        case = self._cases.pop(record.query.request_id.encode())
        if record.code == "internal":
            self._engine.after(0.0, _break_off, record.query.request_id)
        now_s = self._engine.now_s
        served = next((tried for tried in record.attempts if tried.answered), None)
        if served is None or record.status != 200:
            case.asked.end(now_s)
            return
        visit, latency_s = case.tries[served.endpoint]
        seconds = served.scored.seconds
        expected = Expected(
            predicted_s={
                "net": seconds.net,
                "wait": seconds.wait,
                "service": seconds.service,
                "cold": seconds.cold,
            },
            observed_s=observed(visit, latency_s),
            low_s=max(0.0, seconds.total - Z90 * seconds.sigma),
            high_s=seconds.total + Z90 * seconds.sigma,
            busy=served.scored.load,
        )
        case.asked.end(now_s, served.endpoint, expected)


def _break_off(request_id: str) -> None:
    """End the simulation: the dispatcher would go on.

    Raises:
        RuntimeError: something broke inside; the log has said what.
    """
    raise RuntimeError(f"request {request_id} broke off")


def _refuse(exchange: Exchange, request_id: str, error: IsochroneError, plan: Plan) -> int:
    del exchange, request_id, plan
    return int(STATUS.get(error.code, 500))


def _is_configured(entry: EndpointEntry) -> bool:
    """A cloud ingress stands in the router's configuration, if it is there from the first."""
    return entry.tier == "cloud" and entry.joins_s == 0


def _member(entry: EndpointEntry) -> Member:
    return Member(endpoint=known_as(entry), slots=entry.slots, models=())


def _round_trips(stage: Stage, router: int) -> tuple[dict[str, float], dict[str, float]]:
    """From a router to each region: what to expect, and the least that is possible, as in a server.

    A region's place is that of its first endpoint.
    """
    world = stage.world
    here = world.router_cities[router].point
    prior_s: dict[str, float] = {}
    light_s: dict[str, float] = {}
    for index, entry in enumerate(world.scenario.endpoints):
        away_km = distance_km(here, world.endpoint_cities[index].point)
        prior_s.setdefault(entry.region, world.prior_rtt_s[router][index])
        light_s.setdefault(entry.region, light_rtt_s(away_km / 2))
    return prior_s, light_s
