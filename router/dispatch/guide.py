"""What a run asks on its way: whom to ask next, and whether it may ask at all."""

from collections.abc import Sequence

from msgspec import structs

from isochrone.router.dispatch.asked import Asked
from isochrone.router.dispatch.chooser import Chooser
from isochrone.router.dispatch.spare import Spare
from isochrone.router.law.permit import Permit
from isochrone.router.policy.pick import Scored
from isochrone.router.process.clock import Clock

DUE_S = 0.05
"""A deadline is as good as over when this is left of it,"""
DUE_SHARE = 0.1
"""or this share of the time that there was."""


class Guide:
    """Answers for one request, with the fleet as it is when it is asked. See `Attempt`.

    `next` is the endpoint that was named last, `was_trial` says that the last try was a trial.
    """

    __slots__ = ("_asked", "_chooser", "_clock", "_spare", "next", "was_trial")

    def __init__(
        self, asked: Asked, first: Scored, chooser: Chooser, spare: Spare, clock: Clock
    ) -> None:
        self.next = first
        self._asked = asked
        self._chooser = chooser
        self._spare = spare
        self._clock = clock
        self.was_trial = False

    def choose(self, tried: Sequence[Permit]) -> Permit | None:
        """Whom to ask next, of those that were not tried."""
        scored = self._best_but(tried)
        if scored is None:
            return None
        self.next = scored
        return scored.permit

    def hedge(self, tried: Sequence[Permit]) -> Permit | None:
        """Whom to ask beside, if that is worth it."""
        scored = self._best_but(tried)
        query, now_s = self._asked.query, self._clock()
        if scored is None or not self._spare.hedge(query, scored, now_s):
            return None
        self.next = scored
        self._asked.record.hedges += 1
        return scored.permit

    def may_repeat(self) -> bool:
        """There is leave for one more try of what may have run.

        After a trial beside who is well, always: it was made for us, and there is one at a time.
        """
        if self.was_trial and self.next.candidate.held is None and self._asked.query.repeatable:
            return True
        return self._spare.repeat(self._asked.record, self._clock())

    def may_move(self, tried: Sequence[Permit]) -> bool:
        """Another endpoint can take what may have run already, and there is leave for that."""
        may = self._asked.query.repeatable and self._spare.retries.left(self._clock()) >= 1
        return may and self._best_but(tried) is not None

    def is_due(self) -> bool:
        """The deadline is as good as over."""
        deadline_s = self._asked.query.deadline_s
        given_s = deadline_s - self._asked.record.asked_s
        return deadline_s - self._clock() <= max(DUE_S, DUE_SHARE * given_s)

    def _best_but(self, tried: Sequence[Permit]) -> Scored | None:
        query = structs.replace(self._asked.query, now_s=self._clock())
        names = self._asked.useless.union(p.endpoint.name for p in tried)
        order = self._chooser.best(query, names).order
        return order[0] if order else None
