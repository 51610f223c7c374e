"""How long requests really wait at a given load: learned, starting from the arithmetic.

Reports are late and other routers send too, so the wait at an endpoint that seemed free is not
nothing, and a queue that seemed long has often gone. The curve keeps, for each load, the mean and
the spread of what was seen, in turns (so that fast and slow endpoints teach each other). A turn
weighs as much as it lasts: what is predicted is seconds, and a slow endpoint is fled before there
are as many turns of waiting as at a fast one.
"""

_STEPS = 8
"""Loads are told apart by an eighth of the slots."""
_LEAST, _MOST = -_STEPS, 8 * _STEPS
_CLASSES = (1, 2, 4, 8)
"""Endpoints with up to so many slots share a curve; a last one is for more."""
_PRIOR_COUNT = 10.0
_MEMORY_COUNT = 40.0


class WaitCurve:
    """Mean and variance of the wait, in turns, over the load known when sending."""

    __slots__ = ("_counts", "_lengths_s", "_squares", "turns")

    def __init__(self) -> None:
        width = _MOST - _LEAST + 1
        prior = [max(0.0, (k + _LEAST) / _STEPS) for k in range(width)] * (len(_CLASSES) + 1)
        self._squares = [2.0 * mean * mean for mean in prior]
        self.turns = [(mean, mean * mean) for mean in prior]
        """By place: the expected wait in turns, and its variance."""
        self._counts = [_PRIOR_COUNT] * len(prior)
        self._lengths_s = [0.0] * len(prior)

    def observe(self, place: int, turns: float, turn_s: float) -> None:
        """A request that was sent at this load has waited so many turns, of this length.

        A mean over the last few dozen; what stands there at first weighs as much as ten.
        """
        count = self._counts[place]
        if count < _MEMORY_COUNT:
            count = self._counts[place] = count + 1.0
        length_s = self._lengths_s[place] or turn_s
        length_s = self._lengths_s[place] = length_s + (turn_s - length_s) / count
        share = turn_s / (length_s * count)
        mean, square = self.turns[place][0], self._squares[place]
        mean += share * (turns - mean)
        square = self._squares[place] = square + share * (turns * turns - square)
        self.turns[place] = mean, max(0.0, square - mean * mean)


def place(in_flight: int, slots: int) -> int:
    """Which point of a curve a load belongs to."""
    eighths = round(_STEPS * (in_flight + 1 - slots) / slots)
    offset = min(max(eighths, _LEAST), _MOST) - _LEAST
    return _class_of(slots) * (_MOST - _LEAST + 1) + offset


def _class_of(slots: int) -> int:
    for number, most in enumerate(_CLASSES):
        if slots <= most:
            return number
    return len(_CLASSES)
