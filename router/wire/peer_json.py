"""JSON from a peer: whatever it sent becomes a value of the wanted type, or one clear refusal."""

from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from isochrone.router.errors import BadRequest, TooLarge

T = TypeVar("T")

MESSAGE_BYTES = 64 << 10
"""Most of a message that is decoded where nothing else is said: decoding holds the event loop."""
REPORT_BYTES = 1 << 20
"""Most of what an endpoint says of itself: it may hold thousands of models."""


def read_json(
    body: bytes | memoryview | str,
    kind: type[T],
    what: str,
    *,
    most_bytes: int | None = MESSAGE_BYTES,
) -> T:
    """A body as a `kind`; `what` says in the refusal what it should have been.

    `most_bytes` None is for what its sender's listener has bounded already.

    Raises:
        TooLarge: it is longer than `most_bytes`; it was not looked at.
        BadRequest: it is no JSON, no UTF-8, nested too deeply, or not a `kind`.
    """
    if most_bytes is not None and len(body) > most_bytes:
        raise TooLarge(f"{what}: over {most_bytes} bytes")
    try:
        value: T = _decoder(kind).decode(body)  # type: ignore[arg-type]  # a type is hashable
    except RecursionError:
        raise BadRequest(f"{what}: nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise BadRequest(f"{what}: {error}") from error
    return value


@lru_cache(maxsize=64)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401  # whatever kind says
    return msgspec.json.Decoder(kind)
