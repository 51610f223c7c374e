"""What an ingress needs of whoever answers for one model."""

from collections.abc import AsyncGenerator
from typing import Protocol

from isochrone.router.wire.http import Request, Response


class Replicas(Protocol):
    """Whoever answers for one model."""

    async def answer(self, request: Request) -> Response:
        """A whole answer; its body is bytes.

        Raises:
            Overloaded: too many calls wait already.
            Unavailable: no replica can be reached.
            UnusableAnswer: the replica died with the call inside, which may have run.
        """
        ...

    def parts(self, request: Request) -> AsyncGenerator[Response | bytes]:
        """A head, then the chunks of its body. Raises as `answer` does."""
        ...

    def rouse(self) -> None:
        """Ask for a replica where there is none, and wait for nothing."""
        ...
