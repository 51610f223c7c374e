"""Virtual time: a heap of what happens when. Equal instants happen in the order they were said."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any


class Engine:
    """Runs callbacks at their instants, in seconds from 0; nothing happens twice or too early."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events = 0
        """How many have happened."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._stopped = False

    def clock(self) -> float:
        """The present instant, for whoever wants a clock."""
        return self.now_s

    def at(self, when_s: float, happens: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - its own
        """Have this happen then; what should have happened before now happens next."""
        heappush(self._heap, (max(when_s, self.now_s), next(self._order), happens, arguments))

    def after(self, delay_s: float, happens: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - its own
        """Have this happen so much later."""
        heappush(self._heap, (self.now_s + delay_s, next(self._order), happens, arguments))

    def stop(self) -> None:
        """Let nothing more happen after the present callback."""
        self._stopped = True

    def run(self, until_s: float = float("inf")) -> None:
        """Let everything happen up to and including an instant, or until somebody stops it."""
        self._stopped = False
        heap = self._heap
        while heap and not self._stopped and heap[0][0] <= until_s:
            self.now_s, _, happens, arguments = heappop(heap)
            self.events += 1
            happens(*arguments)
        if not self._stopped and until_s < float("inf"):
            self.now_s = max(self.now_s, until_s)
