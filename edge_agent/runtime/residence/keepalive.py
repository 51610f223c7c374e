"""How long a model that nobody calls stays in memory, and when it is loaded before the next call.

The hybrid histogram policy of Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020): idle
times are counted in bins; where they gather in few of them, the model leaves after a call, is
loaded again just before the 5th percentile of its idle times and kept until just after the 99th.
Until they do, it is kept for a fixed time. Instants and idle times are seconds.
"""

from dataclasses import dataclass
from math import ceil, inf, sqrt

BIN_COUNT = 240
_HEAD_SHARE, _TAIL_SHARE = 0.05, 0.99
_MARGIN = 0.1
_MIN_COUNT = 10
"""Fewer idle times than this say nothing."""
_MIN_VARIATION = 2.0
"""Of the bins' counts: standard deviation over mean. 0 is a flat histogram, 15 a single bin."""
_MAX_BEYOND_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Window:
    """After a call, a model should be in memory from `from_s` on until `until_s`."""

    from_s: float
    until_s: float

    def holds(self, idle_s: float) -> bool:
        """A model that has been idle for so long should be in memory."""
        return self.from_s <= idle_s < self.until_s


class IdleTimes:
    """A histogram of one model's idle times, bounded in size: 240 bins and what lies beyond."""

    def __init__(self, bin_s: float = 60.0) -> None:
        """Bins are `bin_s` seconds wide."""
        self._bin_s = bin_s
        self._bins = [0] * BIN_COUNT
        self._within = 0
        self._beyond = 0

    def note(self, idle_s: float) -> None:
        """One more idle time, between the end of a call and the start of the next."""
        index = int(idle_s / self._bin_s)
        if index < BIN_COUNT:
            self._bins[index] += 1
            self._within += 1
        else:
            self._beyond += 1

    @property
    def representative(self) -> bool:
        """The next idle time is likely to be like those that were."""
        if self._within < _MIN_COUNT or self._beyond > _MAX_BEYOND_SHARE * self._within:
            return False
        mean = self._within / BIN_COUNT
        variance = sum((count - mean) ** 2 for count in self._bins) / BIN_COUNT
        return sqrt(variance) / mean >= _MIN_VARIATION

    def window(self, fixed_s: float, load_s: float) -> Window:
        """When to have the model in memory; `fixed_s` after each call where nothing is known.

        A gap that is not long against `load_s`, the time that a load takes, is not worth leaving.
        """
        if not self.representative:
            return Window(0.0, fixed_s)
        head_s = self._bin(_HEAD_SHARE) * self._bin_s * (1 - _MARGIN) - load_s
        until_s = (self._bin(_TAIL_SHARE) + 1) * self._bin_s * (1 + _MARGIN)
        return Window(head_s if head_s > load_s else 0.0, until_s)

    def _bin(self, share: float) -> int:
        """The bin in which this share of the idle times is reached."""
        left = max(1, ceil(share * self._within))
        for index, count in enumerate(self._bins):
            left -= count
            if left <= 0:
                return index
        return BIN_COUNT - 1


class KeepAlive:
    """One model's calls and what follows from them."""

    def __init__(self, fixed_s: float, idle_times: IdleTimes, now_s: float) -> None:
        """`fixed_s` may be infinite: then the model stays until its idle times say otherwise."""
        self._fixed_s = fixed_s
        self._idle_times = idle_times
        self._since_s = now_s
        self._was_called = False
        self._loaded_s: float | None = None
        self._window: Window | None = None

    def go_on_from(self, other: "KeepAlive") -> None:
        """From here on the calls are its that were the other's; what those taught is for both."""
        self._idle_times = other._idle_times
        self._since_s = max(self._since_s, other._since_s)
        self._was_called = self._was_called or other._was_called
        self._window = None

    def began(self, now_s: float) -> None:
        """A call began while none ran."""
        if self._was_called:
            self._idle_times.note(max(0.0, now_s - self._since_s))
            self._window = None
        self._was_called = True
        self._loaded_s = None

    def ended(self, now_s: float) -> None:
        """The last running call ended."""
        self._since_s = now_s

    def loaded(self, now_s: float, load_s: float) -> None:
        """It was loaded; where no call was due, somebody wished it, and it stays the fixed time."""
        if not self.foresees(now_s, load_s):
            self._loaded_s = now_s

    def wants(self, now_s: float, load_s: float) -> bool:
        """It should be in memory now, if no call runs."""
        if self._window is None:
            self._window = self._idle_times.window(self._fixed_s, load_s)
        is_wished = self._loaded_s is not None and now_s - self._loaded_s < self._fixed_s
        return is_wished or self._window.holds(now_s - self._since_s)

    def foresees(self, now_s: float, load_s: float) -> bool:
        """It should be in memory now because its next call is due, not because of the last one."""
        return self.wants(now_s, load_s) and self._window is not None and self._window.from_s > 0


NEVER_S = inf
"""A fixed time that does not end."""
