"""A process that runs one model's engine: `python -m` this module, with socket descriptors.

It is started by the agent, answers on the sockets that it was handed, one call at a time on each,
and ends when any of them is closed, or when the agent does, whatever its engine is at. What the
engine leaks or breaks ends with it.
"""

import asyncio
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import NoReturn

import msgspec

from isochrone.edge_agent.runtime.calls.model import Model
from isochrone.edge_agent.runtime.engines.frames import Frame, Kind, Refusal, Start, read
from isochrone.edge_agent.runtime.engines.table import engine
from isochrone.edge_agent.runtime.package.package import open_package
from isochrone.router.errors import IsochroneError, Uncomputable
from isochrone.router.process import freed_memory
from isochrone.router.process.freed_memory import keep_trimmed
from isochrone.router.wire import binary_codec

_OOM_SCORE = "500"
"""Where memory runs out, the system is to end this process rather than the agent."""


def main(descriptors: Sequence[int]) -> NoReturn:
    """Serve until a socket is closed."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # meant for the agent, which ends us when done
        signal.signal(number, signal.SIG_IGN)
    freed_memory.use_one_heap()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    Thread(target=_end_with, args=(descriptors[0],), daemon=True).start()
    with suppress(EOFError, OSError):
        asyncio.run(_serve([socket.socket(fileno=descriptor) for descriptor in descriptors]))
    os._exit(0)  # whatever thread may still run


def _end_with(descriptor: int) -> None:
    """Wait until the other end of a socket is closed, which a load would see only at its end."""
    hung_up = select.poll()
    hung_up.register(descriptor, 0)  # which is told in any case
    hung_up.poll()
    os._exit(0)


async def _serve(sockets: Sequence[socket.socket]) -> None:
    streams = [await asyncio.open_connection(sock=one) for one in sockets]
    model = await _started(*streams[0], ThreadPoolExecutor(len(streams)))
    if model is None:
        return
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_trimmed())
        for stream in streams:
            group.create_task(_answer(model, *stream))


async def _started(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, executor: ThreadPoolExecutor
) -> Model | None:
    start = msgspec.json.decode((await read(reader)).body, type=Start)
    try:
        model = _loaded(start, executor)
    except Exception as error:  # the agent hears why, whatever the engine raised
        await _send(writer, _refusal(error))
        return None
    await _send(writer, Frame.of(Kind.STARTED))
    return model


def _loaded(start: Start, executor: ThreadPoolExecutor) -> Model:
    package = open_package(Path(start.package))
    variant = next(one for one in package.manifest.variants if one.name == start.variant)
    model = engine(variant.engine).build(package, variant, executor, start.threads)
    model.startup()
    return model


async def _answer(model: Model, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(EOFError, OSError):
        while True:
            asked = await read(reader)
            try:
                answer = await _computed(model, asked)
            except Exception as error:  # one call has failed, the process goes on
                answer = _refusal(error)
            await _send(writer, answer)
    os._exit(0)  # one socket is closed: nobody wants the others' answers either


async def _computed(model: Model, asked: Frame) -> Frame:
    request = binary_codec.decode_request(asked.body, asked.head_bytes)
    (part,) = [part async for part in model.request(request)]
    body, head_bytes = binary_codec.encode_response(part, {tensor.name for tensor in part.outputs})
    return Frame(Kind.ANSWER, body, head_bytes)


def _refusal(error: Exception) -> Frame:
    if isinstance(error, Uncomputable):
        return Frame.of(Kind.REFUSAL, Refusal("uncomputable", error.message))
    if isinstance(error, IsochroneError):
        return Frame.of(Kind.REFUSAL, Refusal(error.code, error.message))
    code = "memory" if isinstance(error, MemoryError) else "internal"
    return Frame.of(Kind.REFUSAL, Refusal(code, f"{type(error).__name__}: {error}"))


async def _send(writer: asyncio.StreamWriter, frame: Frame) -> None:
    writer.write(frame.encoded())
    await writer.drain()


if __name__ == "__main__":
    main([int(descriptor) for descriptor in sys.argv[1:]])
