"""Request heads that a listener has parsed: equal bytes are not parsed again."""

from msgspec.structs import replace

from isochrone.router.wire.http import Request

_HEAD_END = b"\r\n\r\n"
_MOST_BYTES = 2048
_MOST_HEADS = 256


class KnownHeads:
    """The heads used last, with the request that each begins and the length of its body.

    Clients send one head again and again, and many clients may send the same.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, tuple[int, Request]] = {}

    def again(self, data: bytes, peer: str, received_s: float) -> tuple[Request, int] | None:
        """The request that these bytes begin, and how many bytes of its body are missing.

        None where the head is not known, or is not whole, or where more than this request came.
        """
        head_bytes = data.find(_HEAD_END, 0, _MOST_BYTES) + len(_HEAD_END)
        head = data[:head_bytes]
        known = self._heads.pop(head, None)
        if known is None:
            return None
        self._heads[head] = known
        body_bytes, like = known
        missing_bytes = head_bytes + body_bytes - len(data)
        if missing_bytes < 0:
            return None
        body = data[head_bytes:]
        return replace(like, body=body, peer=peer, received_s=received_s), missing_bytes

    def learn(self, data: bytes, arrived_bytes: int, body_bytes: int, request: Request) -> None:
        """These bytes were the head of `request` and the first `arrived_bytes` of its body.

        Nothing else may stand around it: a parser skips empty lines before a request. The first
        empty line must end the head.
        """
        head_bytes = len(data) - arrived_bytes
        if data.find(_HEAD_END, 0, _MOST_BYTES) + len(_HEAD_END) != head_bytes:
            return
        if len(self._heads) >= _MOST_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[data[:head_bytes]] = body_bytes, replace(request, body=b"", peer="")
