"""Who can serve at this instant: each filter gives the reason why not, or None."""

from collections.abc import Callable

from router.fleet.endpoint import Candidate
from router.policy.query import Query
from router.wire.report import ModelState

Filter = Callable[[Query, Candidate], str | None]


def healthy(query: Query, candidate: Candidate) -> str | None:
    """Not taken out, and not draining."""
    del query
    return candidate.out


def model_present(query: Query, candidate: Candidate) -> str | None:
    """The model is warm, or can be made warm."""
    del query
    if candidate.state in (ModelState.ABSENT, ModelState.DRAINING):
        return f"its model is {candidate.state}"
    return None


def has_capacity(query: Query, candidate: Candidate) -> str | None:
    """It has not just said that it is full."""
    wait_s = candidate.full_until_s - query.now_s
    return f"full for another {wait_s * 1000:.0f} ms" if wait_s > 0 else None


FILTERS: tuple[Filter, ...] = (healthy, model_present, has_capacity)
