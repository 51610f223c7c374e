"""When failures stop the traffic, and what lets it flow again: failure as a state of its own.

A breaker counts exactly, over the last ten seconds, and never touches an estimate of latency: a
penalty there would keep out for good what has long recovered. Once open it is a quarantine: it is
tested at a fixed pace where it can be, and only trials go there, one at a time. Only a failed trial
doubles the time until the next; neither a failed test does, nor what had been sent before. Two good
tests in a row close it, at the end of that time: no request need be a trial.
"""

from dataclasses import dataclass

_WINDOW_S = 10
FIRST_S = 1.0
TESTS_COUNT = 2
"""So many good tests in a row are as good as a good trial."""
LONGEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much evidence it takes: failures in a row, or a share of at least so many calls.

    `share` is of the calls of the last ten seconds.
    """

    in_a_row: int = 3
    least_count: int = 5
    share: float = 0.5


class Breaker:
    """The failures of one thing: a model version on an endpoint, or its connections."""

    __slots__ = (
        "_closed_s",
        "_failed",
        "_good",
        "_in_a_row",
        "_numbers",
        "_passed",
        "_pause_s",
        "_tolerance",
        "opened_s",
        "tested",
        "trial",
        "until_s",
        "why",
    )

    def __init__(self, tolerance: Tolerance) -> None:
        self._tolerance = tolerance
        self._numbers = [-_WINDOW_S] * _WINDOW_S
        self._good = [0] * _WINDOW_S
        self._failed = [0] * _WINDOW_S
        self._in_a_row = 0
        self._pause_s = FIRST_S
        self._closed_s = -LONGEST_S
        self._passed = 0
        self.opened_s = -LONGEST_S
        self.tested = False
        self.why: str | None = None
        self.until_s = 0.0
        self.trial = False

    @property
    def open(self) -> bool:
        """Only trials may pass."""
        return self.why is not None

    def succeed(self, now_s: float) -> None:
        """A call was answered that was no trial; what was sent before it opened closes nothing."""
        if self.why is None:
            number = int(now_s)
            slot = number % _WINDOW_S
            if self._numbers[slot] != number:
                self._turn_to(slot, number)
            self._good[slot] += 1
            self._in_a_row = 0

    def fail(self, now_s: float, why: str, *, trial: bool) -> None:
        """A call failed."""
        if self.open:
            if trial:
                self.trial = self.tested = False
                self._passed = 0
                self._pause_s = min(2 * self._pause_s, LONGEST_S)
                self.until_s = now_s + self._pause_s
            return
        number = int(now_s)
        slot = number % _WINDOW_S
        if self._numbers[slot] != number:
            self._turn_to(slot, number)
        self._failed[slot] += 1
        self._in_a_row += 1
        if self._in_a_row >= self._tolerance.in_a_row:
            self.trip(now_s, f"{self._in_a_row} calls failed in a row ({why})")
        else:
            self._judge_share(now_s, why)

    def trip(self, now_s: float, why: str) -> None:
        """Open it, if it is not; soon after it was closed, for longer than the last time."""
        if self.open:
            return
        again = now_s - self._closed_s < LONGEST_S
        self._pause_s = min(2 * self._pause_s, LONGEST_S) if again else FIRST_S
        self.why = why
        self.opened_s = now_s
        self._passed = 0
        self.until_s = now_s + self._pause_s

    def pass_test(self, now_s: float) -> None:
        """What is not a request has succeeded: one request may be a trial, when its time comes."""
        if self.open:
            self.tested = True
            self._passed += 1
            if self._passed >= TESTS_COUNT and now_s >= self.until_s:
                self.close(now_s)

    def fail_test(self, now_s: float, why: str) -> None:
        """What is not a request has failed."""
        if self.open:
            self.tested = False
            self._passed = 0
        else:
            self.fail(now_s, why, trial=False)

    def close(self, now_s: float) -> None:
        """One good trial is enough."""
        self.forget()
        self._closed_s = now_s

    def forget(self) -> None:
        """Begin anew, as with a process that was not there before."""
        self.why = None
        self.trial = self.tested = False
        self._passed = 0
        self._in_a_row = 0
        self._closed_s = -LONGEST_S
        self._numbers = [-_WINDOW_S] * _WINDOW_S

    def _judge_share(self, now_s: float, why: str) -> None:
        oldest = int(now_s) - _WINDOW_S
        recent = [slot for slot, number in enumerate(self._numbers) if number > oldest]
        failed = sum(self._failed[slot] for slot in recent)
        calls = failed + sum(self._good[slot] for slot in recent)
        if calls >= self._tolerance.least_count and failed >= self._tolerance.share * calls:
            self.trip(now_s, f"{failed} of {calls} calls failed ({why})")

    def _turn_to(self, slot: int, number: int) -> None:
        self._numbers[slot] = number
        self._good[slot] = self._failed[slot] = 0
