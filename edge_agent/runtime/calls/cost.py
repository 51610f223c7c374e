"""What a run of a model takes by its rows: a·n + b seconds, fitted to what was measured.

Least squares with exponential forgetting (Haykin, Adaptive Filter Theory, ch. 13), on running sums:
what was measured long ago fades, so the fit follows a machine that becomes slower. With one number
of rows only, a and b cannot be told apart: then a stays as it was, zero at first, so that batches
are tried, and the trial tells.

No machine is quite a line: a batch that leaves its cache can take twice as long for a row. So
beside it stands how far runs of exactly n rows were off, which is forgotten where none comes any
more: then it is worth a trial again.
"""

_FORGET = 0.98
"""What a measurement counts for after one more."""
_LEAST_SPREAD = 0.02
"""Variance of the rows, over their squared mean, below which they are taken for all alike."""
_SURE_COUNT = 4.0
_MOST_TIMES = 8.0
"""A run that others kept waiting says little of the next: longer than so many times, it is cut.

The first of so many rows is not: the line may be as wrong."""
_OFF_FORGET = 0.9
"""What a measurement counts for after one more of as many rows."""
_LINE_COUNT = 2.0
"""How many measurements of some number of rows the line stands for."""
_MOST_OFF = 1.75
"""So many times the line is too much to share a run; what is longer was kept waiting."""
_OFF_LASTS = 256
"""So many runs after the last of as many rows, what they told is forgotten."""


class Cost:
    """`row_s`·n + `base_s` seconds for n rows, about; both are 0 until something was measured."""

    __slots__ = (
        "_count",
        "_off",
        "_rows",
        "_runs",
        "_seconds",
        "_squares",
        "_told",
        "_weighted",
        "base_s",
        "row_s",
    )

    def __init__(self) -> None:
        self.row_s = 0.0
        self.base_s = 0.0
        self._count = self._rows = self._squares = self._seconds = self._weighted = 0.0
        self._runs = 0
        self._off: dict[int, float] = {}
        """By the number of rows, how many times the line their runs take."""
        self._told: dict[int, tuple[int, float, float]] = {}
        """By the number of rows, those that came first in front: the run that told of it last, how
        many count, and the sum of their times the line."""

    @property
    def sure(self) -> bool:
        """More than a few runs were measured."""
        return self._count >= _SURE_COUNT

    def predict_s(self, rows: int) -> float:
        """What a run of so many rows takes; 0 where none was measured."""
        return (self.row_s * rows + self.base_s) * self._off.get(rows, 1.0)

    def knows(self, rows: int) -> bool:
        """A run of so many rows was measured lately: what it takes is no guess."""
        return rows in self._off

    def measured(self, rows: int, took_s: float) -> None:
        """A run of so many rows took so long."""
        if self.sure and self.knows(rows):
            took_s = min(took_s, _MOST_TIMES * self.predict_s(rows))
        self._count = self._count * _FORGET + 1.0
        self._rows = self._rows * _FORGET + rows
        self._squares = self._squares * _FORGET + rows * rows
        self._seconds = self._seconds * _FORGET + took_s
        self._weighted = self._weighted * _FORGET + rows * took_s
        self._fit()
        self._compare(rows, took_s)

    def _fit(self) -> None:
        mean_rows, mean_s = self._rows / self._count, self._seconds / self._count
        spread = self._squares / self._count - mean_rows * mean_rows
        if spread > _LEAST_SPREAD * mean_rows * mean_rows:
            self.row_s = (self._weighted / self._count - mean_rows * mean_s) / spread
        self.row_s = min(max(0.0, self.row_s), mean_s / mean_rows)
        self.base_s = max(0.0, mean_s - self.row_s * mean_rows)

    def _compare(self, rows: int, took_s: float) -> None:
        line_s = self.row_s * rows + self.base_s
        self._runs += 1
        _, count, times = self._told.pop(rows, (0, 0.0, 0.0))
        count = count * _OFF_FORGET + 1.0
        times = times * _OFF_FORGET + (min(took_s / line_s, _MOST_OFF) if line_s else 1.0)
        self._told[rows] = self._runs, count, times
        self._off[rows] = (times + _LINE_COUNT) / (count + _LINE_COUNT)
        eldest = next(iter(self._told))
        if self._told[eldest][0] < self._runs - _OFF_LASTS:
            del self._told[eldest], self._off[eldest]
