"""The parameters of a request that steer the writing of a text, and the ranges they may lie in."""

from collections.abc import Mapping
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from isochrone.router.errors import BadRequest
from isochrone.router.wire.message import Parameter
from isochrone.router.wire.peer_json import read_json

_TOKENS = 20
_MAX_STOPS = 16
_MAX_STOP_LENGTH = 256
_STOP = "parameter stop must be a text or a list of texts"


class Wishes(msgspec.Struct, frozen=True):
    """What a caller may say, each with the protocol's default; other parameters are not for us.

    `temperature` 0 takes the likeliest token every time; `seed` makes chance repeatable; `stop` is
    one text, or a JSON list of them, and is not part of the answer.
    """

    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0)] = 1.0
    top_p: Annotated[float, Meta(ge=0, le=1)] = 1.0
    seed: Annotated[int, Meta(ge=0)] = 0
    stop: str = ""
    details: bool = False

    @classmethod
    def of(cls, parameters: Mapping[str, Parameter]) -> Self:
        """What a request's parameters say.

        Raises:
            BadRequest: one of them is out of its range.
        """
        try:
            wishes = msgspec.convert(dict(parameters), cls)
        except msgspec.ValidationError as error:
            raise BadRequest(f"parameters: {error}") from None
        wishes.stops()
        return wishes

    def tokens(self, most: int) -> int:
        """How many tokens to write, where the model writes at most `most`.

        Raises:
            BadRequest: more are wished for.
        """
        if self.max_tokens is None:
            return min(_TOKENS, most)
        if self.max_tokens > most:
            raise BadRequest(f"max_tokens must be at most {most}")
        return self.max_tokens

    def stops(self) -> tuple[str, ...]:
        """Every text that ends the answer.

        Raises:
            BadRequest: they are too many or too long, or a JSON list of something else.
        """
        listed = self.stop.startswith("[")
        stops = read_json(self.stop, list[str], _STOP) if listed else [self.stop]
        if len(stops) > _MAX_STOPS or max(map(len, stops), default=0) > _MAX_STOP_LENGTH:
            raise BadRequest(
                f"parameter stop: at most {_MAX_STOPS} texts of {_MAX_STOP_LENGTH} characters"
            )
        return tuple(filter(None, stops))
