"""What a run of a model takes by its rows: a·n + b seconds, fitted to what was measured.

Least squares with exponential forgetting (Haykin, Adaptive Filter Theory, ch. 13), on running sums:
what was measured long ago fades, so the fit follows a machine that becomes slower. With one number
of rows only, a and b cannot be told apart: then a stays as it was, zero at first, so that batches
are tried, and the trial tells.
"""

_FORGET = 0.98
"""What a measurement counts for after one more."""
_LEAST_SPREAD = 0.02
"""Variance of the rows, over their squared mean, below which they are taken for all alike."""
_SURE_COUNT = 4.0
_MOST_TIMES = 8.0
"""A run that others kept waiting says little of the next: longer than so many times, it is cut."""


class Cost:
    """`row_s`·n + `base_s` seconds for n rows; both are 0 until something was measured."""

    __slots__ = ("_count", "_rows", "_seconds", "_squares", "_weighted", "base_s", "row_s")

    def __init__(self) -> None:
        self.row_s = 0.0
        self.base_s = 0.0
        self._count = self._rows = self._squares = self._seconds = self._weighted = 0.0

    @property
    def sure(self) -> bool:
        """More than a few runs were measured."""
        return self._count >= _SURE_COUNT

    def predict_s(self, rows: int) -> float:
        """What a run of so many rows takes; 0 where none was measured."""
        return self.row_s * rows + self.base_s

    def measured(self, rows: int, took_s: float) -> None:
        """A run of so many rows took so long."""
        if self.sure:
            took_s = min(took_s, _MOST_TIMES * self.predict_s(rows))
        self._count = self._count * _FORGET + 1.0
        self._rows = self._rows * _FORGET + rows
        self._squares = self._squares * _FORGET + rows * rows
        self._seconds = self._seconds * _FORGET + took_s
        self._weighted = self._weighted * _FORGET + rows * took_s
        self._fit()

    def _fit(self) -> None:
        mean_rows, mean_s = self._rows / self._count, self._seconds / self._count
        spread = self._squares / self._count - mean_rows * mean_rows
        if spread > _LEAST_SPREAD * mean_rows * mean_rows:
            self.row_s = (self._weighted / self._count - mean_rows * mean_s) / spread
        self.row_s = min(max(0.0, self.row_s), mean_s / mean_rows)
        self.base_s = max(0.0, mean_s - self.row_s * mean_rows)
