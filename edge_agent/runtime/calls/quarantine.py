"""Requests that were there when a model's process died, so that a poison one is not asked again.

A crash says only that it may have been one of those that ran. One that is answered is free of
suspicion; one that was there at two crashes, without an answer in between, is not asked again for a
while.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from isochrone.edge_agent.runtime.calls.unheard import unheard
from isochrone.router.errors import Quarantined
from isochrone.router.process.clock import Clock

CRASHES = 2
EXPIRY_S = 3600.0
"""After so long without a further crash a request may be asked again."""
_MOST = 1024
"""Digests remembered; of more, the ones that crashed longest ago are forgotten."""


@dataclass(slots=True)
class _Suspect:
    """How many processes died with a request inside; which was the last one, and when."""

    crashes: int
    process: int
    crashed_s: float


class Quarantine:
    """The digests of requests that were there at a crash."""

    def __init__(self, clock: Clock, closed: Callable[[], None] = unheard) -> None:
        """`closed` is called whenever one more is not asked again."""
        self.clock = clock
        self._closed = closed
        self._suspects: OrderedDict[bytes, _Suspect] = OrderedDict()

    def check(self, digest: bytes) -> None:
        """Pass a request whose process may be risked for it.

        Raises:
            Quarantined: it was there at too many crashes.
        """
        suspect = self._suspects.get(digest)
        if suspect is None or suspect.crashes < CRASHES:
            return
        left_s = suspect.crashed_s + EXPIRY_S - self.clock()
        if left_s <= 0:
            del self._suspects[digest]
            return
        raise Quarantined(
            f"this very request was there {CRASHES} times when the model's process died;"
            f" it is not tried here again for {left_s:.0f} s"
        )

    def crashed(self, digest: bytes, process: int) -> None:
        """A process died while this request was there.

        Each process has its own number: requests that are equal are there at one crash, not two.
        """
        now_s = self.clock()
        suspect = self._suspects.pop(digest, None)
        if suspect is None or now_s >= suspect.crashed_s + EXPIRY_S:
            suspect = _Suspect(0, -1, now_s)
        self._suspects[digest] = suspect
        if suspect.process != process:
            suspect.process, suspect.crashed_s = process, now_s
            suspect.crashes += 1
            if suspect.crashes == CRASHES:
                self._closed()
        if len(self._suspects) > _MOST:
            self._suspects.popitem(last=False)

    def answered(self, digest: bytes) -> None:
        """This one did not kill it."""
        self._suspects.pop(digest, None)

    def __len__(self) -> int:
        return len(self._suspects)
