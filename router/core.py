"""The objects of one worker, joined once; the server and the simulator both wrap them.

The core does no I/O: the ways to endpoints, time and chance are given to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from isochrone.router.admission.gate import Gate
from isochrone.router.admission.quota import Quotas
from isochrone.router.config import HedgeConfig, ModelConfig, ProbeConfig, QueueConfig, RetryConfig
from isochrone.router.dispatch.chooser import Chooser
from isochrone.router.dispatch.dispatcher import Dispatcher, Effects, Refuse
from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.dispatch.runner import Runner
from isochrone.router.dispatch.spare import Spare
from isochrone.router.fleet.breaker import Tolerance
from isochrone.router.fleet.ledger import Ledger
from isochrone.router.fleet.quarantine import START_S
from isochrone.router.http.exchange import Exchange
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.members.membership import Membership
from isochrone.router.policy.policy import Policy
from isochrone.router.policy.query import Query
from isochrone.router.probe.prober import Prober, Probing
from isochrone.router.process.clock import Clock
from isochrone.router.process.housekeeping import Housekeeping
from isochrone.router.upstream.upstream import Upstream
from isochrone.router.wire.http import Headers

TICK_S = 0.02
"""How often deadlines, probes and the queue are looked at: the grain of every time limit."""
HOUSEKEEPING_S = 0.1
"""How often the ledger, leases and exploration are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What a core is configured with; the defaults are the product's.

    `weights` are the tenants' shares of the queue, `prior_rtt_s` and `light_rtt_s` the round trips
    to each region, as for the ledger. At most `in_flight` requests run and wait, each makes at most
    `most_attempts` in one run.
    """

    prior_rtt_s: Mapping[str, float]
    light_rtt_s: Mapping[str, float]
    most_attempts: int
    policy: Policy = field(default_factory=Policy)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    retries: RetryConfig = field(default_factory=RetryConfig)
    hedge: HedgeConfig = field(default_factory=HedgeConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    tolerance: Tolerance = field(default_factory=Tolerance)
    weights: Mapping[str, float] = field(default_factory=dict)
    in_flight: int = 4096
    start_s: float = START_S


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a core acts on.

    `upstream` gives the way to an endpoint, `refuse` answers a client with an error. `ended` gets
    every request once, `left` every endpoint that has left or moved. `client_address` gives a
    client's address by its peer and its header fields.
    """

    upstream: Callable[[Endpoint], Upstream]
    refuse: Refuse
    ended: Callable[[RoutedRequest], None]
    left: Callable[[Endpoint], None]
    client_address: Callable[[str, Headers], str] = lambda peer, _: peer


class Core:
    """Routes requests among the members: decision, queue, attempts, probes, the state of the fleet.

    `sender` names this router to endpoints; a restarted one has a new name. `rng` draws among equal
    candidates, `back_off_rng` spreads pauses.
    """

    def __init__(
        self,
        sender: str,
        membership: Membership,
        knobs: Knobs,
        surroundings: Surroundings,
        quotas: Quotas,
        *,
        clock: Clock,
        wall: Clock,
        rng: Random,
        back_off_rng: Random,
    ) -> None:
        self.membership = membership
        self._clock = clock
        self._left = surroundings.left
        self.ledger = Ledger(
            knobs.prior_rtt_s,
            sender,
            light_rtt_s=knobs.light_rtt_s,
            tolerance=knobs.tolerance,
            rng=back_off_rng,
            start_s=knobs.start_s,
        )
        self.chooser = Chooser(knobs.policy, self.ledger, rng)
        self.runner = Runner(
            sender=sender,
            ledger=self.ledger,
            upstream=surroundings.upstream,
            chooser=self.chooser,
            spare=Spare.of(knobs.retries, knobs.hedge, knobs.models),
            clock=clock,
            wall=wall,
            most_attempts=knobs.most_attempts,
            client_address=surroundings.client_address,
        )
        self.prober = Prober(
            ledger=self.ledger,
            upstream=surroundings.upstream,
            condemned=self.runner.condemn,
            heard=lambda site: self.dispatcher.news(site),  # noqa: PLW0108  # it is made later
            clock=clock,
            probing=Probing.of(knobs.probe),
        )
        self.dispatcher = Dispatcher(
            ledger=self.ledger,
            chooser=self.chooser,
            runner=self.runner,
            gate=Gate(knobs.queue.capacity, weights=knobs.weights),
            quotas=quotas,
            effects=Effects(surroundings.refuse, surroundings.ended, self.prober.wake),
            clock=clock,
            in_flight=knobs.in_flight,
        )
        self.housekeeping = Housekeeping()
        for name, sweep in self.dispatcher.sweeps.items():
            self.housekeeping.add(name, sweep)
        self.housekeeping.add("probes", self.prober.sweep)
        self.housekeeping.add("the ledger", self.ledger.sweep, every_s=HOUSEKEEPING_S)
        self.housekeeping.add("exploration", self.prober.explore, every_s=HOUSEKEEPING_S)
        self.housekeeping.add("leases", self._expire, every_s=HOUSEKEEPING_S)

    def ask(self, exchange: Exchange, query: Query) -> None:
        """See one request to its end; returns at once."""
        self.dispatcher.dispatch(exchange, query)

    def tick(self, now_s: float) -> None:
        """Do what is due; to be called every `TICK_S`. Nothing is raised: see `housekeeping`."""
        self.housekeeping.run(now_s)

    def follow(self) -> None:
        """Take over changes of the membership; requests at an endpoint that left may end."""
        for endpoint in self.ledger.follow(self.membership, self._clock()):
            self._left(endpoint)

    def _expire(self, now_s: float) -> None:
        expired = self.membership.expire(now_s)
        try:
            for name in expired:
                self.runner.condemn(name, "its lease ran out")
        finally:  # they are out of the membership already
            if expired:
                self.follow()
