"""JSON from a peer: whatever it sent becomes a value of the wanted type, or one clear refusal."""

from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from router.errors import BadRequest

T = TypeVar("T")


def read_json(body: bytes | memoryview | str, kind: type[T], what: str) -> T:
    """A body as a `kind`; `what` says in the refusal what it should have been.

    Raises:
        BadRequest: it is no JSON, no UTF-8, nested too deeply, or not a `kind`.
    """
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
