"""What is expected of one model: how long its next load takes, and whether its next call is due."""

from isochrone.edge_agent.runtime.loading.loads import Loads
from isochrone.edge_agent.runtime.residence.keepalive import IdleTimes, KeepAlive
from isochrone.edge_agent.runtime.residence.upkeep import Upkeep


class Outlook:
    """Learns from one model's loads and calls. Instants are seconds, given by the caller."""

    def __init__(
        self, name: str, file_bytes: int, upkeep: Upkeep, loads: Loads, now_s: float
    ) -> None:
        """`loads` are those of all models."""
        self.load_s: float | None = None
        """What the newest load took, without waiting for others."""
        self.keep_alive = KeepAlive(upkeep.fixed_s(name), IdleTimes(upkeep.idle_bin_s), now_s)
        self._file_bytes = file_bytes
        self._loads = loads

    @property
    def expected_s(self) -> float:
        """What a load takes: measured, or a guess by the size of the file."""
        return self._loads.guess_s(self._file_bytes) if self.load_s is None else self.load_s

    def time_to_warm_s(self, now_s: float, back_off_s: float) -> float:
        """Seconds until it is loaded, if that is asked for now: the loads before it included.

        `back_off_s` have to pass before it may be begun.
        """
        left_s = self._loads.left_s(self, now_s)
        if left_s is not None:
            return left_s
        return max(back_off_s, self._loads.all_left_s(now_s)) + self.expected_s

    def load_joins(self) -> None:
        """A load was asked for."""
        self._loads.join(self, self.expected_s)

    def load_begins(self, now_s: float) -> None:
        """Its turn has come."""
        self._loads.began(self, now_s)

    def load_failed(self) -> None:
        """It ended without a model."""
        self._loads.ended(self, self._file_bytes, None)

    def loaded(self, now_s: float, load_s: float) -> None:
        """It ended with one."""
        self.load_s = load_s
        self._loads.ended(self, self._file_bytes, load_s)
        self.keep_alive.loaded(now_s, load_s)

    def wants(self, now_s: float) -> bool:
        """It should be in memory now, if no call runs."""
        return self.keep_alive.wants(now_s, self.expected_s)

    def foresees(self, now_s: float) -> bool:
        """It should be in memory because its next call is due."""
        return self.keep_alive.foresees(now_s, self.expected_s)

    def learn(self, other: "Outlook") -> None:
        """Expect calls as another version of the model had them."""
        self.keep_alive.go_on_from(other.keep_alive)
