"""Requests that were there when a model's process died, so that a poison one is not asked again.

A crash says only that it may have been one of those that ran. One that is answered is free of
suspicion; one that was there at two crashes, without an answer in between, is not asked again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from edge_agent.runtime.unheard import unheard
from router.errors import Quarantined

CRASHES = 2
_MOST = 1024
"""Digests remembered; of more, the ones that crashed longest ago are forgotten."""


class Quarantine:
    """The digests of requests that were there at a crash, and at how many."""

    def __init__(self, closed: Callable[[], None] = unheard) -> None:
        """`closed` is called whenever one more is not asked again."""
        self._closed = closed
        self._crashes: OrderedDict[bytes, int] = OrderedDict()

    def check(self, digest: bytes) -> None:
        """Pass a request whose process may be risked for it.

        Raises:
            Quarantined: it was there at too many crashes.
        """
        if self._crashes.get(digest, 0) >= CRASHES:
            raise Quarantined(
                f"this very request was there {CRASHES} times when the model's process died;"
                " it is not tried again"
            )

    def crashed(self, digests: Iterable[bytes]) -> None:
        """The process died while these were there."""
        for digest in digests:
            count = self._crashes[digest] = self._crashes.pop(digest, 0) + 1
            if count == CRASHES:
                self._closed()
            if len(self._crashes) > _MOST:
                self._crashes.popitem(last=False)

    def answered(self, digest: bytes) -> None:
        """This one did not kill it."""
        self._crashes.pop(digest, None)

    def __len__(self) -> int:
        return len(self._crashes)
