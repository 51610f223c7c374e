"""One request of a run, from its arrival at its router to its one end."""

from collections.abc import Callable, Mapping

from isochrone.router.policy.query import Query
from isochrone.router.simulate.algorithm import Call
from isochrone.router.simulate.arrivals import Request
from isochrone.router.simulate.tally import Ending, Expected
from isochrone.router.simulate.visit import Visit
from isochrone.router.simulate.way import Way

Regret = Callable[["Asked", Way], float | None]
"""How much longer the way chosen for a request will take than the best (None: not looked at)."""


class Asked:
    """What its router is given; it ends exactly once, by `end`."""

    __slots__ = (
        "_ended",
        "_regret",
        "call",
        "done",
        "lawful",
        "regret_s",
        "request",
        "requirement",
        "tries",
    )

    def __init__(
        self,
        call: Call,
        request: Request,
        requirement: str,
        *,
        regret: Regret,
        ended: Callable[[Request, Ending], None],
    ) -> None:
        self.call = call
        self.request = request
        self.requirement = requirement
        self.tries = 0
        self.lawful = True
        self.regret_s: float | None = None
        self.done = False
        self._regret = regret
        self._ended = ended

    def query(self) -> Query:
        """What a router of the product asks its policy."""
        call = self.call
        return Query(
            request_id=str(call.number),
            model=call.model,
            now_s=call.asked_s,
            deadline_s=call.deadline_s,
            tenant=call.tenant,
            required_regions=call.required_regions,
            requirement=self.requirement,
            priority=call.priority,
            body_bytes=call.body_bytes,
        )

    def visit(self, sender: str, sequence: int, heard: Callable[[Visit], None]) -> Visit:
        """One try of it, with the sender's number."""
        return Visit(
            self.request,
            sender=sender,
            sequence=sequence,
            deadline_s=self.call.deadline_s,
            priority=self.call.priority,
            heard=heard,
        )

    def leaves(self, way: Way) -> None:
        """A try is about to leave: what only the judge of a run sees is written down."""
        self.tries += 1
        if self.tries == 1:
            self.regret_s = self._regret(self, way)
        required = self.call.required_regions
        if required is not None and way.endpoint.region not in required:
            self.lawful = False

    def end(
        self,
        now_s: float,
        endpoint: str | None = None,
        expected: Expected | None = None,
    ) -> None:
        """It was served by this endpoint, or (None) by nobody.

        Raises:
            RuntimeError: it has ended already.
        """
        if self.done:
            raise RuntimeError(f"request {self.request.number} ends twice")
        self.done = True
        in_time = now_s <= self.call.deadline_s
        ending = Ending(
            client_region=self.call.client_region,
            requirement=self.requirement,
            served=endpoint is not None and in_time,
            latency_s=now_s - self.call.asked_s,
            endpoint=endpoint,
            lawful=self.lawful,
            tries=self.tries,
            expected=expected,
            regret_s=self.regret_s,
        )
        self._ended(self.request, ending)


def observed(visit: Visit, latency_s: float) -> Mapping[str, float]:
    """What became of the terms that a router predicts, in one try that took so long."""
    return {
        "net": latency_s - visit.wait_s - visit.infer_s,
        "wait": visit.wait_s - visit.cold_s,
        "service": visit.infer_s,
        "cold": visit.cold_s,
    }
