"""How many runs at once are worth it, by how much they slow each other down.

A run's stretch is what it took over what it takes alone. Of `limit` runs at once, each stretched s
times, limit / s get done in the time of one: where the last place adds next to nothing to that, it
is taken away, for it only makes all of them late. That is the signal of TCP Vegas (Brakmo and
Peterson, JSAC 1995) and of the gradient limits made of it (Netflix's concurrency-limits); as in
Envoy's adaptive concurrency, the yardstick is measured anew now and then with one place. Those were
made for limits of hundreds; here one step is one place, and a place is tried again ever more
rarely while it proves to be useless.
"""

from statistics import median

_WINDOW = 16
"""Runs at the limit from which a step is decided."""
_LEAST_GAIN = 0.1
"""What the last place must add, in runs done in the time of one."""
_FIRST_TRIAL_S, _LAST_TRIAL_S = 10.0, 320.0
_YARDSTICK_RUNS = 4
_YARDSTICK_S = 1.0
_YARDSTICK_EVERY_S = 60.0


class Adaptive:
    """A limit from 1 to `most`. Instants are monotonic seconds."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = most
        self._stretches: list[float] = []
        self._unknown_count = 0
        self._trial_s = _FIRST_TRIAL_S
        self._changed_s = 0.0
        self._alone_until_s = 0.0
        self._alone_left = 0
        self._next_alone_s = 0.0

    @property
    def limit(self) -> int:
        """How many may run now."""
        return 1 if self._alone_left else self._limit

    def resize(self, most: int) -> None:
        """From now on so many at most."""
        at_most = self._limit == self._most
        self._limit = most if at_most else min(self._limit, most)
        self._most = most

    def ended(self, stretch: float | None, *, alone: bool, full: bool, now_s: float) -> None:
        """A run ended; `stretch` None where it is not known what it takes alone.

        `alone`: nothing ran beside it. `full`: as many ran as may; others say nothing here.
        """
        if self._alone_left:
            self._calibrate(alone=alone, now_s=now_s)
        elif full and self._limit > 1:
            self._take(stretch, now_s)
        if now_s - self._changed_s > self._trial_s and self._limit < self._most:
            self._step(1, now_s)

    def _take(self, stretch: float | None, now_s: float) -> None:
        if stretch is None:
            self._unknown_count += 1
            if self._unknown_count >= _WINDOW and now_s >= self._next_alone_s:
                self._begin_alone(now_s)
            return
        self._stretches.append(stretch)
        if len(self._stretches) >= _WINDOW:
            done = self._limit / max(1.0, median(self._stretches))
            self._stretches.clear()
            if done < self._limit - 1 + _LEAST_GAIN:
                self._trial_s = min(_LAST_TRIAL_S, 2 * self._trial_s)
                self._step(-1, now_s)
            elif now_s - self._changed_s > self._trial_s:
                self._trial_s = _FIRST_TRIAL_S
            if now_s >= self._next_alone_s:
                self._begin_alone(now_s)

    def _step(self, by: int, now_s: float) -> None:
        self._limit += by
        self._changed_s = now_s
        self._stretches.clear()

    def _begin_alone(self, now_s: float) -> None:
        self._unknown_count = 0
        self._alone_left = _YARDSTICK_RUNS
        self._alone_until_s = now_s + _YARDSTICK_S
        self._next_alone_s = now_s + _YARDSTICK_EVERY_S

    def _calibrate(self, *, alone: bool, now_s: float) -> None:
        self._alone_left -= alone
        if now_s >= self._alone_until_s:
            self._alone_left = 0
