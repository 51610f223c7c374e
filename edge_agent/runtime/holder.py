"""What the faces need of whatever holds the models: the pool, or something in front of it."""

from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Protocol

from edge_agent.runtime.model import Model
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


class Loan:
    """A model that stays in memory until it is given back."""

    __slots__ = ("_use", "model")

    def __init__(self, model: Model, use: AbstractContextManager[None]) -> None:
        """`use` was entered."""
        self.model = model
        self._use: AbstractContextManager[None] | None = use

    def give_back(self) -> None:
        """It is used no more; doing so again changes nothing."""
        use, self._use = self._use, None
        if use is not None:
            use.__exit__(None, None, None)


class Holder(Shelf, Protocol):
    """A shelf whose models answer."""

    @property
    def runner(self) -> Executor:
        """The threads in which they do, where it takes long."""
        ...

    def choose(self, name: str, version: str | None = None) -> HeldModel:
        """The version that is to answer a call, warm or not."""
        ...

    async def load(self, name: str, version: str | None = None) -> str:
        """Have a model warm; callers at the same time share one load. Returns which version."""
        ...

    def lend(self, name: str, version: str) -> Loan | None:
        """A model for calls that run it themselves; None where it is not warm."""
        ...

    def request(
        self, name: str, version: str | None, request: InferRequest
    ) -> AsyncIterator[InferResponse]:
        """The answers of a model."""
        ...
