"""What memory a model's runs take beyond its weights, learned by the size of their inputs.

It rises with the inputs, so that what a run took bounds what smaller ones take; larger ones are
extrapolated by the power law through the largest two, between linear (images) and quadratic
(attention over a text). A run is light where it takes so little that nobody needs to count it.
"""

from bisect import bisect_left, insort
from math import ceil, log

LIGHT_BYTES = 8 << 20
STEP = 2
"""Inputs of at most so many times the largest known ones are extrapolated."""
_FLOOR_BYTES = 1 << 20
"""Less cannot be told from what else goes on in a process."""
_PRESUMED_BYTES, _PRESUMED_IDS_BYTES = 512 << 10, 8 << 10
"""Inputs of that size are light until one was not; one of numbers stands for less than an index."""
_MOST_POINTS = 64
_FADING = 0.5
"""A measurement may hold what else grew in the process: a lower one brings it down by so much."""


class Footprint:
    """Sizes are bytes: of all inputs of a run, and of what it took at its peak."""

    __slots__ = ("_inputs", "_taken", "light_bytes")

    def __init__(self, *, ids: bool = False) -> None:
        """`ids`: the inputs are indices or texts."""
        self.light_bytes = _PRESUMED_IDS_BYTES if ids else _PRESUMED_BYTES
        """Runs on inputs of at most that size are light, as far as is known."""
        self._inputs: list[int] = []
        self._taken: dict[int, int] = {}

    def knows(self, input_bytes: int) -> bool:
        """What a run on so much takes is measured, or near to what is."""
        return bool(self._inputs) and input_bytes <= STEP * self._inputs[-1]

    def step_bytes(self, input_bytes: int) -> int:
        """The largest inputs on the way to `input_bytes` that need no bold guess."""
        largest = self._inputs[-1] if self._inputs else 0
        return min(input_bytes, max(STEP * largest, self.light_bytes))

    def expected_bytes(self, input_bytes: int) -> int:
        """What a run takes at its peak."""
        place = bisect_left(self._inputs, input_bytes)
        if place < len(self._inputs):
            return self._taken[self._inputs[place]]
        largest = self._inputs[-1] if self._inputs else 0
        if largest < self.light_bytes:
            return LIGHT_BYTES * ceil(input_bytes / self.light_bytes)
        times = (input_bytes / largest) ** self._power()
        return int(max(_FLOOR_BYTES, self._taken[largest]) * times)

    def learn(self, input_bytes: int, taken_bytes: int) -> None:
        """A run took so much, as far as can be told."""
        known = self._taken.get(input_bytes)
        if known is None:
            insort(self._inputs, input_bytes)
        self._taken[input_bytes] = max(taken_bytes, int(_FADING * (known or 0)))
        if len(self._inputs) > _MOST_POINTS:
            del self._taken[self._inputs.pop(len(self._inputs) // 2)]
        heavy = [one for one in self._inputs if self._taken[one] > LIGHT_BYTES]
        light = [one for one in self._inputs if one < min(heavy, default=one + 1)]
        if light:
            self.light_bytes = max(self.light_bytes, STEP * light[-1])
        if heavy:
            share = LIGHT_BYTES / self._taken[heavy[0]]
            self.light_bytes = min(self.light_bytes, int(share * heavy[0]))

    def _power(self) -> float:
        if len(self._inputs) < 2:
            return 2.0
        small, large = self._inputs[-2:]
        taken = [max(_FLOOR_BYTES, self._taken[one]) for one in (small, large)]
        return min(2.0, max(1.0, log(taken[1] / taken[0]) / log(large / small)))
