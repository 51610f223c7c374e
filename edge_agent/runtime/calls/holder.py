"""What the faces need of whatever holds the models: the pool, or something in front of it."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Protocol

from isochrone.edge_agent.runtime.calls.model import DirectModel
from isochrone.router.wire.message import InferRequest, InferResponse, ModelMetadata
from isochrone.router.wire.report import HeldModel, ModelState


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

    __slots__ = ("_ended", "model", "version")

    def __init__(self, model: DirectModel, version: str, ended: Callable[[], None]) -> None:
        """`ended` is called once, when it is given back."""
        self.model = model
        self.version = version
        self._ended: Callable[[], None] | None = ended

    def give_back(self) -> None:
        """It is used no more; doing so again changes nothing."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


class Holder(Shelf, Protocol):
    """A shelf whose models answer."""

    @property
    def runner(self) -> Executor:
        """The threads in which they do, where it takes long."""
        ...

    def choose(self, name: str, version: str | None = None) -> HeldModel:
        """The version that is to answer a call, warm or not."""
        ...

    async def load(
        self, name: str, version: str | None = None, until_s: float | None = None
    ) -> str:
        """Have a model warm; callers at the same time share one load. Returns which version.

        With `until_s`, an instant, room that is in use is waited for.
        """
        ...

    def lend(self, name: str, version: str | None = None) -> Loan | None:
        """The version that is to answer, for a call that runs it itself.

        None if it is not warm, or does not answer in one go.
        """
        ...

    def request(
        self, name: str, version: str | None, request: InferRequest, until_s: float | None = None
    ) -> AsyncIterator[InferResponse]:
        """The answers of a model, which is loaded first where it is cold, as by `load`."""
        ...
