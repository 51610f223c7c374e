"""One attempt on one endpoint: what was predicted, what was heard, how it ended."""

from isochrone.router.fleet.outcome import Outcome
from isochrone.router.fleet.site import Lease
from isochrone.router.policy.pick import Scored
from isochrone.router.upstream.event import Head
from isochrone.router.upstream.upstream import Call
from isochrone.router.wire.problem import Problem
from isochrone.router.wire.report import CallReport


class Attempt:
    """One attempt on one endpoint.

    `endpoint` is its name, `scored` what was predicted, `why` what sent the request there,
    `outcome` in words how the attempt ended. `seconds` is how long it took, `first_byte_s` how long
    until its answer began, `report` the load report that came with the head (both None where there
    was none). `call` is there while the request is at the endpoint. `succeeded` says that the head
    reports a run of the model, `retry_after_s` when the endpoint wants to be asked again.
    """

    __slots__ = (
        "body",
        "body_bytes",
        "call",
        "endpoint",
        "explains",
        "first_byte_s",
        "has_body",
        "head",
        "hedge",
        "lease",
        "live",
        "outcome",
        "problem",
        "report",
        "result",
        "retry_after_s",
        "scored",
        "seconds",
        "status",
        "succeeded",
        "why",
    )

    def __init__(self, scored: Scored, *, hedge: bool = False) -> None:
        self.scored = scored
        self.endpoint = scored.permit.endpoint.name
        self.hedge = hedge
        self.why = ""
        self.live = True
        self.result: Outcome | None = None
        self.outcome = ""
        self.retry_after_s: float | None = None
        self.seconds = 0.0
        self.first_byte_s: float | None = None
        self.report: CallReport | None = None
        self.lease: Lease | None = None
        self.call: Call | None = None
        self.status = 0
        self.succeeded = False
        self.has_body = False
        self.head: Head | None = None
        """That of an answer which may be the client's."""
        self.body: list[bytes] = []
        self.body_bytes = 0
        self.explains = False
        """The endpoint has refused, and the body that says why is still to come."""
        self.problem: Problem | None = None

    @property
    def answered(self) -> bool:
        """Its answer was the client's."""
        return self.result is Outcome.ANSWERED

    def cancel(self) -> None:
        """Its answer, or the rest of it, is not needed."""
        if self.call is not None:
            self.call.cancel()
