"""What the faces need of whatever holds the models: the pool, or something in front of it."""

from collections.abc import AsyncIterator
from typing import Protocol

from router.wire.message import InferRequest, InferResponse, ModelMetadata
from router.wire.report import HeldModel, ModelState


class Shelf(Protocol):
    """Knows models by name and version; None stands for the version that it prefers.

    Every method with a name raises NotFound where no such model or version is held.
    """

    @property
    def models_generation(self) -> int:
        """Grows whenever a model's state changes."""
        ...

    def held(self) -> tuple[HeldModel, ...]:
        """Every model version and its state."""
        ...

    def metadata(self, name: str, version: str | None = None) -> ModelMetadata:
        """What a model takes and gives."""
        ...

    def labels(self, name: str, version: str | None = None) -> tuple[str, ...]:
        """The classes' names, in order; none where the package has none."""
        ...

    def state(self, name: str, version: str | None = None) -> ModelState:
        """Where a model stands."""
        ...


class Holder(Shelf, Protocol):
    """A shelf whose models answer."""

    def choose(self, name: str, version: str | None = None) -> HeldModel:
        """The version that is to answer a call, warm or not."""
        ...

    async def load(self, name: str, version: str | None = None) -> str:
        """Have a model warm; callers at the same time share one load. Returns which version."""
        ...

    def request(
        self, name: str, version: str | None, request: InferRequest
    ) -> AsyncIterator[InferResponse]:
        """The answers of a model."""
        ...
