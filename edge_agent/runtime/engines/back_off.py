"""When a model that failed to load, or whose process died, may be loaded again."""

FIRST_BACK_OFF_S = 1.0
LONGEST_BACK_OFF_S = 60.0
_MOST_DOUBLINGS = 16


class BackOff:
    """Waits that double with every failure in a row, up to a minute. Instants are seconds.

    Crashes are in a row unless a minute lies between a load and the crash; the first of a row costs
    no wait, as it says little.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._crashes = 0
        self._until_s: float | None = None
        self._loaded_s = 0.0

    @property
    def sound(self) -> bool:
        """The newest load did not fail."""
        return self._failures == 0

    def left_s(self, now_s: float) -> float:
        """How long to wait; 0 where there is no need."""
        return 0.0 if self._until_s is None else max(0.0, self._until_s - now_s)

    def succeeded(self, now_s: float) -> None:
        """It was loaded."""
        self._failures = 0
        self._until_s = None
        self._loaded_s = now_s

    def failed(self, now_s: float) -> None:
        """It could not be loaded."""
        self._until_s = now_s + _wait_s(self._failures)
        self._failures += 1

    def crashed(self, now_s: float) -> None:
        """It was loaded and then lost."""
        if now_s - self._loaded_s > LONGEST_BACK_OFF_S:
            self._crashes = 0
        self._until_s = now_s + (_wait_s(self._crashes - 1) if self._crashes else 0.0)
        self._crashes += 1


def _wait_s(doublings: int) -> float:
    return min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(doublings, _MOST_DOUBLINGS))
