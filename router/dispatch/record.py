"""What became of one request: its plan, its tries, and how it ended."""

from dataclasses import dataclass, field
from http import HTTPStatus

from isochrone.router.policy.pick import Scored
from isochrone.router.policy.policy import Plan
from isochrone.router.policy.query import Query
from isochrone.router.wire.problem import STATUS
from isochrone.router.wire.report import CallReport


@dataclass(frozen=True, slots=True)
class Tried:
    """One try on one endpoint. `why` says what sent it there, `outcome` how it ended.

    `scored` is what was predicted of it, `seconds` how long it took, `first_byte_s` how long until
    its answer began, `report` what the endpoint said of it (both None where there was none).
    """

    scored: Scored
    why: str
    outcome: str
    seconds: float
    first_byte_s: float | None = None
    report: CallReport | None = None
    answered: bool = False

    @property
    def endpoint(self) -> str:
        """The name of the endpoint."""
        return self.scored.permit.endpoint.name


CLIENT_GONE = "client_gone"
"""The code of a request whose client did not wait for the end of its answer."""
TRIED_KEPT = 32
"""A request that finds everybody full again and again leaves no longer a trace than this."""


@dataclass(slots=True, eq=False)
class Record:
    """One request from its arrival to its one end.

    `plan` is the last that was made for it, `explained` the same with everybody's seconds or reason
    where that was asked for, `tried` its last tries of `tries_count`, `beyond` how
    many came before these, by endpoint and reason; `repeats` and `full_repeats` how often it was
    sent again after it may have run, and after every endpoint was full; `waited_s` the time that it
    spent in line here;
    `status` and `code` are those of the end, `sent` is the status that the client was told, 0 where
    it was told none: an answer that was cut off has `sent` 200 and the `status` of the error that
    cut it. A client that left has `status` 0. Instants are monotonic.
    """

    query: Query
    plan: Plan
    fleet_generation: int
    asked_s: float
    explained: Plan | None = None
    tried: list[Tried] = field(default_factory=list)
    tries_count: int = 0
    beyond: dict[tuple[str, str], int] = field(default_factory=dict)
    repeats: int = 0
    full_repeats: int = 0
    hedges: int = 0
    waited_s: float = 0.0
    status: int = 0
    sent: int = 0
    code: str = ""
    seconds: float = 0.0

    def answered(self, status: int) -> None:
        """The head of an answer has left for the client."""
        self.status = self.sent = status

    def cut(self, code: str) -> None:
        """An answer that had begun has come to no end, because of this error."""
        self.code = code
        self.status = STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)

    def client_left(self) -> None:
        """The client went before its answer was whole."""
        self.status, self.code = 0, CLIENT_GONE

    @property
    def told(self) -> Plan:
        """The plan with as much as is known of it."""
        return self.explained or self.plan

    def add(self, tried: Tried) -> None:
        """One more try has ended."""
        self.tries_count += 1
        self.tried.append(tried)
        if len(self.tried) > TRIED_KEPT:
            first = self.tried.pop(0)
            key = first.endpoint, first.why
            self.beyond[key] = self.beyond.get(key, 0) + 1
