"""Request heads that come again, byte by byte: they need not be parsed again."""

from isochrone.router.http.received import Received

_HEAD_END = b"\r\n\r\n"
_MOST_BYTES = 2048
_MOST_HEADS = 256


class KnownHeads:
    """Heads with which a listener read a whole request, those that came last.

    Clients send one head again and again, and many may send the same.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, tuple[int, Received]] = {}

    def again(self, data: bytes, peer: str, received_s: float) -> Received | None:
        """The request that these bytes are; None unless they are one, whole, with a known head."""
        head_bytes = data.find(_HEAD_END, 0, _MOST_BYTES) + len(_HEAD_END)
        head = data[:head_bytes]
        known = self._heads.pop(head, None)
        if known is None:
            return None
        self._heads[head] = known
        whole_bytes, like = known
        if whole_bytes != len(data):
            return None
        request = like.request.again(data[head_bytes:], peer, received_s)
        return Received(request, keep_alive=True, chunks=like.chunks)

    def learn(self, data: bytes, body_bytes: int, received: Received) -> None:
        """These bytes, that ended with a body of so many, were that request and nothing else.

        Nothing may stand around it: a parser passes over empty lines before a request, and so after
        the one before. The first empty line must end the head, and its body the data.
        """
        head_bytes = len(data) - body_bytes
        if data.find(_HEAD_END, 0, _MOST_BYTES) + len(_HEAD_END) != head_bytes:
            return
        if len(self._heads) >= _MOST_HEADS:
            del self._heads[next(iter(self._heads))]
        like = received.request.again(b"", "", 0.0)
        self._heads[data[:head_bytes]] = len(data), Received(like, True, received.chunks)
