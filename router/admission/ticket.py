"""A place among those who wait, and the one way in which it ends."""

from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

HIGHEST, DEFAULT, LOWEST = 1, 5, 9
"""Priority bands; the smaller number is the more urgent."""

_LEAST_COST_S, _MOST_COST_S = 1e-4, 3600.0
"""What costs nothing would never have to share, and what costs everything would never run again."""


class Outcome(Enum):
    """How waiting ends; every ticket ends in exactly one of these.

    SHED: pushed out by somebody more urgent, for the room was full.
    """

    STARTED = "started"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    SHED = "shed"


class Ticket(Generic[T]):
    """One who waits, for the sake of `item`.

    `priority` is what was asked for, `band` where waiting has lifted it to; `cost_s` is the device
    time it is believed to take; `order` counts arrivals; those of one `lane` could start in the
    same places. Instants are monotonic seconds.
    """

    __slots__ = (
        "_settled",
        "band",
        "cost_s",
        "deadline_s",
        "epoch",
        "holder",
        "item",
        "joined_s",
        "lane",
        "order",
        "outcome",
        "priority",
        "tenant",
        "turn",
    )

    def __init__(
        self,
        *,
        holder: "Holder",
        tenant: str,
        priority: int,
        now_s: float,
        deadline_s: float,
        cost_s: float,
        item: T,
        settled: Callable[[Outcome], None],
        order: int,
        lane: Hashable = None,
        by_deadline: bool = False,
    ) -> None:
        """`settled` is told the outcome, once. `by_deadline`: its tenant's most pressing first."""
        self.holder = holder
        self.tenant = tenant
        self.priority = self.band = min(max(HIGHEST, priority), LOWEST)
        self.joined_s = now_s
        self.deadline_s = deadline_s
        self.cost_s = believable(cost_s)
        self.item = item
        self.order = order
        self.turn = (deadline_s if by_deadline else 0.0, order)
        self.lane = lane
        self.epoch = 0
        self.outcome: Outcome | None = None
        self._settled = settled

    def __lt__(self, other: "Ticket[T]") -> bool:
        """Only who came back has the order of another, which has ended: either may be first."""
        return False

    def stand_as(self, earlier: "Ticket[T]") -> None:
        """It is that one, come back before it could be served: its place is as it was."""
        self.joined_s, self.order, self.band = earlier.joined_s, earlier.order, earlier.band
        self.turn = (self.turn[0], self.order)

    def tell(self) -> None:
        """Say how it ended, to whom it concerns."""
        assert self.outcome is not None
        self._settled(self.outcome)


class Holder(Protocol):
    """Where tickets stand in line; the room says when they come, move up and go."""

    def put(self, ticket: Ticket[Any]) -> None:
        """It waits here from now on."""
        ...

    def move(self, ticket: Ticket[Any], band: int) -> None:
        """It has left `band` for the one that it says."""
        ...

    def remove(self, ticket: Ticket[Any]) -> None:
        """It has ended."""
        ...


def believable(cost_s: float) -> float:
    """A cost that a share can be made of; NaN is taken for next to nothing."""
    return min(max(_LEAST_COST_S, cost_s), _MOST_COST_S)
