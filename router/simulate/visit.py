"""One request's stay at one endpoint, from leaving its router until its answer is back there."""

from collections.abc import Callable
from enum import Enum

from isochrone.router.admission.limit import Lease
from isochrone.router.admission.ticket import Ticket
from isochrone.router.simulate.arrivals import Request
from isochrone.router.wire.report import CallReport


class Loss(Enum):
    """Why a visit ends without an answer."""

    REFUSED = "refused"
    RESET = "reset"


class Visit:
    """What goes there and what comes back; every visit that is heard of ends exactly once.

    Going: the scenario's request, its `sender` and number in that sender's count, the instant of
    its deadline. Coming: a `status`, or the `loss` instead of one, and the endpoint's own report.
    `wait_s` is all the time there before its service, of which `cold_s` was for the model to load.
    """

    __slots__ = (
        "arrived_s",
        "cold_s",
        "deadline_s",
        "due_s",
        "heard",
        "infer_s",
        "is_sample",
        "lease",
        "loss",
        "planned_s",
        "priority",
        "report",
        "request",
        "retry_after_s",
        "sender",
        "sent_s",
        "sequence",
        "status",
        "ticket",
        "told",
        "wait_s",
    )

    def __init__(
        self,
        request: Request,
        *,
        sender: str,
        sequence: int,
        deadline_s: float,
        priority: int,
        heard: Callable[["Visit"], None],
    ) -> None:
        """`heard` is called at the router when the answer has come back."""
        self.is_sample = False
        self.request = request
        self.sender = sender
        self.sequence = sequence
        self.deadline_s = deadline_s
        self.priority = priority
        self.heard: Callable[[Visit], None] | None = heard
        self.told: Callable[[Visit], None] | None = None
        self.lease: Lease | None = None
        self.ticket: Ticket[Visit] | None = None
        self.sent_s = 0.0
        self.arrived_s = 0.0
        self.due_s = 0.0
        self.planned_s = 0.0
        self.wait_s = 0.0
        self.cold_s = 0.0
        self.infer_s = 0.0
        self.status = 0
        self.loss: Loss | None = None
        self.retry_after_s: float | None = None
        self.report: CallReport | None = None

    @property
    def wanted(self) -> bool:
        """Somebody still waits for the answer."""
        return self.heard is not None

    def end(self, status: int, report: CallReport | None = None) -> None:
        """The endpoint has answered."""
        self.status = status
        self.report = report
        self._tell()

    def lose(self, loss: Loss) -> None:
        """There will be no answer."""
        self.loss = loss
        self._tell()

    def _tell(self) -> None:
        told, self.told = self.told, None
        if told is not None:
            told(self)
