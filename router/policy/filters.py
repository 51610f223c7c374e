"""Who can serve at this instant: each filter gives the reason why not, or None.

`FILTERS` say who cannot. `RESERVES` say who should rather not: they are asked after all where
nobody else is left, so that the last lawful endpoint is never given up.
"""

from collections.abc import Callable

from isochrone.router.fleet.candidate import Candidate
from isochrone.router.fleet.slowstart import RAMP_S, cap
from isochrone.router.policy.query import Query
from isochrone.router.wire.report import ModelState

Filter = Callable[[Query, Candidate], str | None]


def healthy(query: Query, candidate: Candidate) -> str | None:
    """Not taken out, and not draining."""
    del query
    return candidate.out


def model_present(query: Query, candidate: Candidate) -> str | None:
    """The model is warm, or can be made warm."""
    del query
    return "its model is absent" if candidate.state is ModelState.ABSENT else None


def has_capacity(query: Query, candidate: Candidate) -> str | None:
    """It has not just said that it is full, and has not as many as it then had."""
    wait_s = candidate.full_until_s - query.now_s
    if wait_s > 0:
        return f"full for another {wait_s * 1000:.0f} ms"
    if candidate.in_flight >= candidate.limit:
        return f"full: {candidate.in_flight} are there"
    return None


def not_on_trial(query: Query, candidate: Candidate) -> str | None:
    """One trial at a time goes to what is being tested already."""
    del query
    if candidate.held is not None and candidate.trial:
        return f"{candidate.held}; a trial is under way"
    return None


def in_use(query: Query, candidate: Candidate) -> str | None:
    """Not held back for its failures; where they are long enough ago, a trial may go there.

    What may not be repeated is no trial: were it to fail, it could not be answered elsewhere.
    """
    too_early = query.now_s < candidate.held_until_s
    if candidate.held is not None and (too_early or not query.repeatable):
        return candidate.held
    return None


def within_ramp(query: Query, candidate: Candidate) -> str | None:
    """A new or recovered endpoint is loaded step by step."""
    age_s = query.now_s - candidate.ramp_from_s
    if age_s < RAMP_S and candidate.in_flight >= cap(candidate.slots, age_s):
        return f"slow start: {cap(candidate.slots, age_s)} of {candidate.slots} slots"
    return None


FILTERS: tuple[Filter, ...] = (healthy, model_present, has_capacity, not_on_trial)
RESERVES: tuple[Filter, ...] = (in_use, within_ramp)
