"""A server that only reads, runs and writes: what the socket, the loop and the run cost together.

    python -m tests.bench.edge_floor PORT FOLDER

It serves every `NAME.onnx` of the folder at the path of the protocol, to clients that send one
whole binary request at a time. It checks nothing, and knows no queue, deadline or metric.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from isochrone.router.wire import codec
from isochrone.router.wire.json_codec import BINARY_WISHES
from isochrone.router.wire.message import InferRequest, InferResponse
from isochrone.router.wire.tensor import Tensor
from tests.bench.edge_models import session

Answer = Callable[[bytes], bytes]
_LENGTH = b"content-length: "
_END = b"\r\n\r\n"


def answering(path: Path) -> Answer:
    """From a whole request to a whole answer of one model."""
    opened = session(path.read_bytes())
    shape = tuple(size if isinstance(size, int) else 1 for size in opened.get_inputs()[0].shape)
    count = int(np.prod(shape))
    first = opened.run(["out"], {"in": np.zeros(shape, np.float32)})[0]
    wish = InferRequest((), parameters={BINARY_WISHES: True})
    response = InferResponse(path.stem, "1", (Tensor("out", "FP32", first),))
    fields, body = codec.encode_response(wish, response)
    lines = [b"HTTP/1.1 200 OK", *(b"%b: %b" % field for field in fields)]
    lines.append(b"content-length: %d" % len(body))
    head = b"\r\n".join([*lines, b"", body[: len(body) - first.nbytes]])

    def answer(request: bytes) -> bytes:
        given = np.frombuffer(request[-4 * count :], np.float32).reshape(shape)
        return head + cast(bytes, opened.run(["out"], {"in": given})[0].tobytes())

    return answer


class Floor(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: dict[bytes, Answer]) -> None:
        self._answers = answers
        self._transport: asyncio.Transport
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """A part of a request, mostly all of it."""
        data = self._data + data if self._data else data
        end, at = data.find(_END), data.find(_LENGTH) + len(_LENGTH)
        whole = end >= 0 and len(data) >= end + 4 + int(data[at : data.find(b"\r", at)])
        self._data = b"" if whole else data
        if whole:
            self._transport.write(self._answers[data.split(b" ", 2)[1]](data))


def all_answering(folder: Path) -> dict[bytes, Answer]:
    """Every model of a folder, by its path."""
    return {
        f"/v2/models/{path.stem}/infer".encode(): answering(path) for path in folder.glob("*.onnx")
    }


async def serve(port: int, answers: dict[bytes, Answer]) -> None:
    """Until it is ended."""
    server = await asyncio.get_running_loop().create_server(
        lambda: Floor(answers), "127.0.0.1", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), all_answering(Path(sys.argv[2]))))
