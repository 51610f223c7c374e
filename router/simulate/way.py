"""The way from one router to one endpoint and back: how long it takes, and what may be sent on it.

Connections are kept, so that making one costs nothing, but a refusal costs a round trip.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TypeVar

from isochrone.router.simulate.endpoint import SimulatedEndpoint
from isochrone.router.simulate.engine import Engine
from isochrone.router.simulate.scenario import Network
from isochrone.router.simulate.visit import Loss, Visit

A = TypeVar("A")


class Way:
    """One router's way to one endpoint. `rtt_s` is the true least round trip."""

    def __init__(
        self,
        engine: Engine,
        endpoint: SimulatedEndpoint,
        rtt_s: float,
        network: Network,
        rng: Random,
    ) -> None:
        """`rng` gives the jitter of control messages; a request brings its own."""
        self.endpoint = endpoint
        self.rtt_s = rtt_s
        self._engine = engine
        self._byte_s = 1 / network.bandwidth_bytes_s
        self._jitter_share = network.jitter_share
        self._rng = rng

    def there_s(self, body_bytes: int) -> float:
        """The least time until a request of this length is there."""
        return self.rtt_s / 2 + body_bytes * self._byte_s

    def send(self, visit: Visit) -> None:
        """A request leaves; it hears of its end once."""
        request = visit.request
        half_s = self.rtt_s * request.trip_factor / 2
        there_s = half_s + request.body_bytes * self._byte_s
        visit.told = partial(self._answer, half_s)
        self.endpoint.expect(visit, self._engine.now_s + there_s)
        self._engine.after(there_s, self._arrive, visit)

    def sample(self, visit: Visit) -> None:
        """A request for the model's own sample leaves."""
        half_s = self._half_s()
        visit.told = partial(self._answer, half_s)
        act = partial(self.endpoint.sample, visit)
        self._engine.after(half_s, self._reach, act, visit)

    def cancel(self, visit: Visit) -> None:
        """Nobody wants the answer any more; the endpoint hears of it."""
        if visit.wanted:
            visit.heard = None
            self._engine.after(self.rtt_s / 2, self._withdraw, visit)

    def ask(self, question: Callable[[], A], heard: Callable[[A | None], None]) -> None:
        """Ask the endpoint itself; None: it could not be reached."""
        half_s = self._half_s()
        self._engine.after(half_s, self._question, question, heard, half_s)

    def _half_s(self) -> float:
        return self.rtt_s * (1 + self._jitter_share * self._rng.expovariate(1.0)) / 2

    def _arrive(self, visit: Visit) -> None:
        self._reach(partial(self.endpoint.take, visit), visit)

    def _reach(self, act: Callable[[], None], visit: Visit) -> None:
        if not self.endpoint.reach(act, partial(visit.lose, Loss.RESET)):
            self.endpoint.coming.pop(visit, None)
            visit.lose(Loss.REFUSED)

    def _withdraw(self, visit: Visit) -> None:
        self.endpoint.reach(partial(self.endpoint.withdraw, visit), _nothing)

    def _answer(self, half_s: float, visit: Visit) -> None:
        if visit.wanted:
            self._engine.after(half_s, _hear, visit)

    def _question(
        self, question: Callable[[], A], heard: Callable[[A | None], None], half_s: float
    ) -> None:
        def answer() -> None:
            self._engine.after(half_s, heard, question())

        def lost() -> None:
            self._engine.after(half_s, heard, None)

        if not self.endpoint.reach(answer, lost):
            lost()


def _hear(visit: Visit) -> None:
    heard, visit.heard = visit.heard, None
    if heard is not None:
        heard(visit)


def _nothing() -> None:
    pass
