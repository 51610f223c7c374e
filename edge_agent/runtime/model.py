"""The life of one loaded model: build, startup, request, shutdown, is_healthy."""

from collections.abc import AsyncIterator
from typing import Protocol

from router.wire.message import InferRequest, InferResponse


class Model(Protocol):
    """One variant of one model version in memory.

    An engine's `build` makes it from a verified package and does no heavy work; `startup` loads the
    weights (blocking: the pool calls it off the event loop); `request` may then be iterated any
    number of times at once; `shutdown` gives the memory back.
    """

    def startup(self) -> None:
        """Load the weights.

        Raises:
            PackageError: the file cannot be loaded by this engine.
        """
        ...

    def request(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """The answers to one request: one when unary, several when the model streams.

        Raises:
            BadRequest: the inputs do not fit what the package declares.
        """
        ...

    def shutdown(self) -> None:
        """Release everything; the model is not used again."""
        ...

    def is_healthy(self) -> bool:
        """The model can still answer."""
        ...
