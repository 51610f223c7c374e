"""Content-Encoding of bodies: gzip and deflate, unpacked within a bound, packed where it pays.

A gzip body may have several members (RFC 1952 §2.2), as `bgzip` and `cat` make them.
`deflate` is the zlib container (RFC 9110 §8.4.1.2).
"""

import zlib

from isochrone.router.errors import BadRequest, TooLarge
from isochrone.router.wire.bounds import unpacked_bound

WORTH_BYTES = 1024
"""Below this, packing costs more than it saves."""
MEMBERS = 4096
"""Most members of a gzip body: an empty one takes 20 bytes, and far more to begin."""
_PIECE_BYTES = 64 << 10
"""Of the members after the first, unpacked at once: what follows one in a piece is copied."""
_LEVEL = 1  # latency matters more than the last tenth of the size
_WINDOW = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_PREFERRED = (b"gzip", b"deflate")


def packed(encoding: bytes | None) -> bool:
    """A body with this Content-Encoding needs `unpack`."""
    return encoding is not None and encoding.strip().lower() not in (b"", b"identity")


def unpack(body: bytes, encoding: bytes, limit_bytes: int) -> bytes:
    """The body as it was before it was packed, where bodies may have `limit_bytes`.

    Raises:
        BadRequest: the encoding is unknown, or the body is not in it, is cut or goes on.
        TooLarge: it unpacks to more than that, or to too many times its length.
    """
    name = encoding.strip().lower()
    if name not in _WINDOW:
        raise BadRequest("content-encoding must be gzip, deflate or identity")
    bound = unpacked_bound(len(body), limit_bytes)
    most = 1 if name == b"deflate" else MEMBERS
    parts: list[bytes] = []
    taken_bytes = 0
    left_bytes = bound.size_bytes + 1
    for _ in range(most):
        machine = zlib.decompressobj(_WINDOW[name])
        while taken_bytes < len(body) and not machine.eof:
            piece = body[taken_bytes : taken_bytes + _PIECE_BYTES] if parts else body
            try:
                parts.append(machine.decompress(piece, left_bytes))
            except zlib.error:
                raise BadRequest(f"the body is not {name.decode()} data") from None
            taken_bytes += len(piece) - len(machine.unused_data)
            left_bytes -= len(parts[-1])
            if left_bytes <= 0:
                raise TooLarge(
                    f"the body unpacks to more than {bound.size_bytes} bytes, "
                    f"which are {bound.source}"
                )
        if not machine.eof or taken_bytes == len(body):
            break
    if not machine.eof or taken_bytes < len(body):
        raise BadRequest(f"the {name.decode()} body is cut short, or more follows it")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def choose(accept: bytes | None, size_bytes: int) -> bytes | None:
    """The encoding for an answer of `size_bytes` to a client that sent this Accept-Encoding."""
    if accept is None or size_bytes < WORTH_BYTES:
        return None
    wishes = dict(map(_wish, accept.lower().split(b",")))
    best = max(_PREFERRED, key=lambda name: _quality(wishes, name))
    return best if _quality(wishes, best) > 0 else None


def pack(body: bytes, encoding: bytes) -> bytes:
    """`body` in one of the encodings that `choose` names."""
    machine = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[encoding])
    return machine.compress(body) + machine.flush()


def _wish(text: bytes) -> tuple[bytes, float]:
    name, _, quality = text.partition(b";")
    _, _, number = quality.partition(b"=")
    try:
        return name.strip(), float(number) if number else 1.0
    except ValueError:
        return name.strip(), 0.0


def _quality(wishes: dict[bytes, float], name: bytes) -> float:
    return wishes.get(name, wishes.get(b"*", 0.0))
