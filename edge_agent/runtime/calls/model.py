"""The life of one loaded model: build, startup, request, shutdown, is_healthy."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent.futures import Executor
from typing import NamedTuple, Protocol

from isochrone.edge_agent.runtime.calls.rows import by_rows, row_bytes
from isochrone.edge_agent.runtime.memory.footprint import Footprint
from isochrone.edge_agent.runtime.package.fit import feeds, wanted
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.edge_agent.runtime.package.thread import in_thread
from isochrone.router.wire.message import InferRequest, InferResponse
from isochrone.router.wire.tensor import Array, Tensor, TensorSpec

_INDICES = frozenset({"BYTES", "INT32", "INT64", "UINT32", "UINT64"})


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


class Feed(NamedTuple):
    """Inputs that fit a model, by name, and the outputs that are asked for."""

    arrays: Mapping[str, Array]
    outputs: tuple[TensorSpec, ...]
    frees: bool = False
    """It takes much memory, which is to be given back at its end."""


class DirectModel(Model, ABC):
    """A `Model` that answers every request in one go, so that several may share a run."""

    def __init__(self, package: Package, executor: Executor) -> None:
        """Calls that share nothing run in `executor`."""
        self.name, self.version = package.name, package.version
        self.takes, self.gives = package.takes, package.gives
        self.optional = frozenset(one.name for one in package.manifest.inputs if one.optional)
        """Inputs that it also runs without."""
        self.rowwise = by_rows((*self.takes, *self.gives))
        """Its inputs and outputs are declared with any number of rows."""
        self.row_bytes = row_bytes(self.gives)
        """What its outputs take for each row, where they have as many as its inputs."""
        self.most_rows = 1
        """So many rows may share a run; more than 1 where they are proven to be independent."""
        self.executor = executor
        ids = all(one.datatype in _INDICES for one in self.takes)
        self.footprint = Footprint(ids=ids)
        """What its runs take in memory."""

    @abstractmethod
    def compute(self, feed: Feed) -> tuple[Tensor, ...]:
        """The outputs that are asked for, in that order; blocks, in any thread.

        Raises:
            BadRequest: the inputs cannot be computed.
            Unavailable: the model is not loaded, or ran out of memory.
        """

    def feed(self, request: InferRequest) -> Feed:
        """What a request comes to.

        Raises:
            BadRequest: the inputs or outputs are not those of the model.
        """
        return Feed(feeds(request, self.takes, self.optional), wanted(request, self.gives))

    async def request(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """One answer; see `Model`."""
        outputs = await in_thread(self.executor, self.compute, self.feed(request))
        yield InferResponse(self.name, self.version, outputs, request.id)
