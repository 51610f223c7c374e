"""A server of packages on loopback that does what it should, or, by path, what it should not."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

CHUNK_BYTES = 1 << 14

Fault = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass
class Shop:
    """Serves the files of a folder; `faults` takes over where one is given, once for each put."""

    folder: object
    faults: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    sent_bytes: int = 0
    pause_s: float = 0.0
    url: str = ""

    async def answer(self, request):
        name = request.match_info["path"]
        begin = int(re.sub(r"bytes=(\d+)-", r"\1", request.headers.get("range", "bytes=0-")))
        self.asked.append((name.rpartition("/")[2], begin))
        faults = self.faults.get(name.rpartition("/")[2], [])
        path = self.folder / name
        if not path.is_file():
            return web.Response(status=404)
        data = path.read_bytes()
        if faults:
            return await faults.pop(0)(request, data)
        return await self.sent(request, data, begin)

    async def sent(self, request, data, begin=0, upto=None):
        answer = web.StreamResponse(status=206 if begin else 200)
        if begin:
            answer.headers["content-range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        answer.content_length = len(data) - begin
        await answer.prepare(request)
        end = len(data) if upto is None else upto
        for place in range(begin, end, CHUNK_BYTES):
            chunk = data[place : min(place + CHUNK_BYTES, end)]
            await answer.write(chunk)
            self.sent_bytes += len(chunk)
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
        return answer

    def cut_after(self, count):
        """The connection is lost after `count` bytes of the file."""

        async def fault(request, data):
            answer = await self.sent(request, data, 0, upto=count)
            request.transport.abort()
            return answer

        return fault

    def cut_after_more(self, count):
        """The connection is lost `count` bytes after where the answer begins."""

        async def fault(request, data):
            begin = int(re.sub(r"bytes=(\d+)-", r"\1", request.headers.get("range", "bytes=0-")))
            answer = await self.sent(request, data, begin, upto=begin + count)
            request.transport.abort()
            return answer

        return fault

    def whole(self):
        """Ranges are not known."""

        async def fault(request, data):
            return await self.sent(request, data)

        return fault

    def instead(self, change):
        """Other bytes."""

        async def fault(request, data):
            return await self.sent(request, change(data))

        return fault


def status(code, **headers):
    async def fault(_request, _data):
        return web.Response(
            status=code, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return fault


def stall():
    async def fault(request, data):
        answer = web.StreamResponse()
        answer.content_length = len(data)
        await answer.prepare(request)
        await answer.write(data[:1000])
        await asyncio.sleep(30)
        return answer

    return fault


def endless():
    async def fault(request, _data):
        answer = web.StreamResponse()
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        while True:
            await answer.write(b"#" * CHUNK_BYTES)

    return fault


@asynccontextmanager
async def open_shop(folder):
    shop = Shop(folder)
    app = web.Application()
    app.router.add_get("/shop/{path:.*}", shop.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shop.url = f"http://127.0.0.1:{runner.addresses[0][1]}/shop"
    try:
        yield shop
    finally:
        await runner.cleanup()
