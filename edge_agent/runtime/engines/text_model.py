"""A model that writes text: asks a graph for the next token again and again, a piece at a time."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from random import Random

import numpy as np

from isochrone.edge_agent.runtime.calls.model import Model
from isochrone.edge_agent.runtime.package.fit import feeds, wanted
from isochrone.edge_agent.runtime.package.manifest import TEXT_OUTPUT, Generate
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.edge_agent.runtime.package.wishes import Wishes
from isochrone.router.errors import BadRequest, Unavailable
from isochrone.router.wire.message import InferRequest, InferResponse, Parameter
from isochrone.router.wire.tensor import Array, Tensor

LENGTH = "length"
STOP = "stop_sequence"


class TextModel:
    """`text_input` in, pieces of `text_output` out, on top of an engine's next-token graph."""

    def __init__(self, graph: Model, package: Package, generate: Generate) -> None:
        self._graph = graph
        self._package = package
        self._generate = generate
        self._ids = {character: index for index, character in enumerate(generate.alphabet)}

    def startup(self) -> None:
        """Load the graph.

        Raises:
            PackageError: it cannot be loaded.
        """
        self._graph.startup()

    async def request(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """One answer for each piece of text; the last says in `finish_reason` why it is the last.

        Raises:
            BadRequest: the text or a parameter cannot be used.
        """
        wanted(request, self._package.manifest.gives())
        wishes = Wishes.of(request.parameters)
        ids = self._prompt(request)
        pieces = _Pieces(wishes.stops())
        chance = Random(wishes.seed)
        for left in range(wishes.tokens(self._generate.max_tokens) - 1, -1, -1):
            logits = await self._logits(ids)
            token = _pick(logits, wishes.temperature, chance, wishes.top_p)
            ids.append(token)
            piece = pieces.take(self._generate.alphabet[token])
            if pieces.stopped or not left:
                last = piece if pieces.stopped else piece + pieces.rest()
                yield self._answer(request, last, STOP if pieces.stopped else LENGTH)
                return
            if piece:
                yield self._answer(request, piece)

    def shutdown(self) -> None:
        """Release the graph."""
        self._graph.shutdown()

    def is_healthy(self) -> bool:
        """The graph can still answer."""
        return self._graph.is_healthy()

    def _prompt(self, request: InferRequest) -> list[int]:
        (data,) = feeds(request, self._package.manifest.takes()).values()
        try:
            text: str = data[0].decode()
            given = [self._ids[character] for character in text[-self._generate.context :]]
        except UnicodeDecodeError:
            raise BadRequest("text_input must be UTF-8 text") from None
        except KeyError as error:
            raise BadRequest(f"text_input: the model does not know {error.args[0]!r}") from None
        return [0] * (self._generate.context - len(given)) + given

    async def _logits(self, ids: Sequence[int]) -> Array:
        window = np.array([ids[-self._generate.context :]], np.int64)
        tensor = Tensor(self._generate.ids, "INT64", window)
        async for part in self._graph.request(InferRequest((tensor,))):
            logits: Array = part.outputs[0].data.reshape(-1)
            return logits
        raise Unavailable(f"{self._package.name} gave no next token")

    def _answer(self, request: InferRequest, piece: str, reason: str = "") -> InferResponse:
        text = Tensor(TEXT_OUTPUT, "BYTES", np.array([piece.encode()], object))
        parameters: dict[str, Parameter] = {"finish_reason": reason} if reason else {}
        name, version = self._package.name, self._package.version
        return InferResponse(name, version, (text,), request.id, parameters)


class _Pieces:
    """Holds back what may be the beginning of a text that ends the answer."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stopped = False
        self._stops = stops
        self._held = ""

    def take(self, character: str) -> str:
        """What can be given out now."""
        self._held += character
        for stop in self._stops:
            if self._held.endswith(stop):
                self.stopped = True
                return self._held[: -len(stop)]
        kept = max(self._beginnings(), default=0)
        given, self._held = self._held[: len(self._held) - kept], self._held[-kept:] if kept else ""
        return given

    def rest(self) -> str:
        """What was held back for nothing."""
        return self._held

    def _beginnings(self) -> Iterator[int]:
        for stop in self._stops:
            for length in range(1, min(len(stop), len(self._held) + 1)):
                if self._held.endswith(stop[:length]):
                    yield length


def _pick(logits: Array, temperature: float, chance: Random, top_p: float = 1.0) -> int:
    if temperature == 0:
        return int(np.argmax(logits))
    exact = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature leaves the likeliest alone: as it should
        weights = np.exp((exact - exact.max()) / temperature)
    order = np.arange(len(weights))
    if top_p < 1:
        order = np.argsort(-weights, kind="stable")
        shares = np.cumsum(weights[order]) / weights.sum()
        order = order[: int(np.searchsorted(shares, top_p)) + 1]
    cumulated = np.cumsum(weights[order])
    index = np.searchsorted(cumulated, chance.random() * cumulated[-1], side="right")
    return int(order[min(int(index), len(order) - 1)])
