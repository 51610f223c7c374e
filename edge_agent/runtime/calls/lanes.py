"""What may share a run, and what is known of such runs: what they cost and how often calls come."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from isochrone.edge_agent.runtime.calls.cost import Cost
from isochrone.edge_agent.runtime.calls.rows import Arrays

MAX_BATCH = 32
INLINE_S, ONE_CORE_INLINE_S = 2e-4, 5e-3
"""On one core a thread would only take turns with the loop, and each turn costs."""
_MOST_LANES = 256
_NEWEST_SHARE = 0.1
_MOST_BYTES = 16 << 20
"""Of the inputs of a run that is shared: those of more take long alone, and room in any case."""
_LONGEST_GAP_S = 60.0
"""Longer ones count as so long, so that calls that come often again are soon seen to do so."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """How calls share runs: at most so many rows, by model where it is named; 1 is never.

    A run that takes less than `inline_s` is done on the event loop.
    """

    max_batch: int = MAX_BATCH
    by_model: Mapping[str, int] = field(default_factory=dict)
    inline_s: float = INLINE_S

    def most_rows(self, model: str) -> int:
        """How many rows of a model may share a run."""
        return self.by_model.get(model, self.max_batch)


NONE_SHARED = Sharing(max_batch=1)


class Lane:
    """Calls that may share a run: of one model version, with inputs of one form."""

    __slots__ = ("_came_s", "cost", "gap_s", "most_rows", "row_bytes", "seen_rows")

    def __init__(self, most_rows: int, row_bytes: int) -> None:
        self.most_rows = most_rows
        self.row_bytes = row_bytes
        self.seen_rows = 0
        """What runs of more rows take in memory was not looked at yet."""
        self.cost = Cost()
        self.gap_s = _LONGEST_GAP_S
        """The mean time between two calls."""
        self._came_s = 0.0

    def came(self, now_s: float) -> None:
        """A call has come."""
        gap_s = min(now_s - self._came_s, _LONGEST_GAP_S)
        self.gap_s += _NEWEST_SHARE * (gap_s - self.gap_s)
        self._came_s = now_s


class Lanes:
    """The lanes of all models; of very many, those that were used last."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._lanes: OrderedDict[object, Lane] = OrderedDict()

    def find(
        self, name: str, version: str, arrays: Arrays, rows: int | None, most_rows: int
    ) -> Lane:
        """The lane of a call of a model version; `rows` None where it has no rows.

        At most `most_rows` of the model may share a run.
        """
        cut = 0 if rows is None else 1
        shapes = tuple([array.shape[cut:] for array in arrays.values()])
        key = name, version, cut, most_rows, shapes
        lane = self._lanes.get(key)
        if lane is None:
            row_bytes = sum(array.nbytes for array in arrays.values()) // (rows or 1)
            most_rows = 1 if rows is None else min(most_rows, self._most_rows(name, row_bytes))
            lane = self._lanes[key] = Lane(most_rows, row_bytes)
            if len(self._lanes) > _MOST_LANES:
                self._lanes.popitem(last=False)
        else:
            self._lanes.move_to_end(key)
        return lane

    def _most_rows(self, name: str, row_bytes: int) -> int:
        return min(self._sharing.most_rows(name), max(1, _MOST_BYTES // max(1, row_bytes)))
