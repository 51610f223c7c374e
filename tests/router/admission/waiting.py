"""Short ways to stand in a line, for tests."""

from collections.abc import Callable
from itertools import count
from math import inf

from isochrone.router.admission.queue import Line, Outcome, Room, Ticket

_names = count()


def line_of(capacity: int = 1000, age_s: float = inf, **weights: float) -> Line[object]:
    return Line(Room(capacity, age_s), weights)


def join(
    line: Line[object],
    tenant: str = "a",
    priority: int = 5,
    *,
    now_s: float = 0.0,
    deadline_s: float = inf,
    cost_s: float = 1.0,
    settled: Callable[[Outcome], None] = lambda _: None,
) -> Ticket[object] | None:
    return line.join(
        tenant=tenant,
        priority=priority,
        now_s=now_s,
        deadline_s=deadline_s,
        cost_s=cost_s,
        item=next(_names),
        settled=settled,
    )
