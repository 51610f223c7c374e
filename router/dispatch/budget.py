"""How many tries may be made beside those that the clients asked for: pure, with time as argument.

Repeating is a loan on everybody's capacity: in an overload it is what turns a bad second into a bad
hour. So extra tries are a share of the requests of the last seconds (the retry budget of Finagle
and linkerd), with a floor for quiet times that scales with the slots that this router sees, not a
fixed rate, which would drown a small fleet. Each worker has its own part of the floor.
"""

WINDOW_S = 10


class Seconds:
    """How often something happened, by second, over the last ten and the present one."""

    def __init__(self) -> None:
        self._seconds = [-1] * (WINDOW_S + 1)
        self._counts = [0] * (WINDOW_S + 1)

    def add(self, now_s: float) -> None:
        """Once more."""
        second = int(now_s)
        slot = second % (WINDOW_S + 1)
        if self._seconds[slot] != second:
            self._seconds[slot] = second
            self._counts[slot] = 0
        self._counts[slot] += 1

    def since(self, second: int) -> int:
        """How often from that second on."""
        return sum(n for n, s in zip(self._counts, self._seconds, strict=True) if s >= second)


class RetryBudget:
    """At most `share` of the requests of the last ten seconds, plus a floor.

    The law: whenever a retry is granted, those of the ten seconds up to it are no more than `share`
    times the requests of these, plus ten seconds of the floor. One-second slots are counted so that
    an edge never favours the retry: requests over what surely lies within the window, retries over
    all that may.
    """

    def __init__(
        self,
        share: float,
        floor_per_slot_s: float,
        *,
        workers: int = 1,
        requests: Seconds | None = None,
    ) -> None:
        """`floor_per_slot_s` is in retries per second for each slot of the fleet.

        Budgets that share `requests` count what clients ask for together.
        """
        self._share = share
        self._floor_per_slot_s = floor_per_slot_s / workers
        self._floor = 0.0
        self.requests = requests if requests is not None else Seconds()
        self._retries = Seconds()

    def resize(self, slots: int) -> None:
        """The fleet has so many slots now."""
        self._floor = self._floor_per_slot_s * slots * WINDOW_S

    def take(self, now_s: float) -> bool:
        """Leave to try once more; False: the budget is used up."""
        if self.left(now_s) < 1.0:
            return False
        self._retries.add(now_s)
        return True

    def left(self, now_s: float) -> float:
        """How many retries there is leave for."""
        second = int(now_s)
        requests = self.requests.since(second - WINDOW_S + 1)
        retries = self._retries.since(second - WINDOW_S)
        return self._share * requests + self._floor - retries


class HedgeBudget:
    """A token bucket: each request puts `share` of a token in, each hedge takes a whole one.

    A hedge counts at full cost, although the loser is cancelled: the endpoint may have run it, and
    over HTTP/1.1 a cancel costs the connection. The bucket holds `burst` tokens and is empty at
    first, so hedges never exceed `share` of all requests so far, nor `share` of those in any window
    plus the burst.
    """

    def __init__(self, share: float, *, burst: float = 10.0, workers: int = 1) -> None:
        self._share = share
        self._most = max(1.0, burst / workers)
        self._tokens = 0.0

    @property
    def left(self) -> float:
        """How many hedges there is leave for."""
        return self._tokens

    def requested(self) -> None:
        """What a client has asked for has been sent."""
        self._tokens = min(self._most, self._tokens + self._share)

    def take(self) -> bool:
        """Leave for one hedge; False: the budget is used up."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
