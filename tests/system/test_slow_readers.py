"""Attacks on memory through a router: it passes refusals on, and holds little for slow readers."""

import asyncio
import gzip
import io
import re
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.soak.test_attacks import ATTACKS, DOUBLE, GROUP_BYTES, of, write_wide
from tests.system.town import Town

WIDE = "/v2/models/wide/infer"
WISH = b',"outputs":[{"name":"y","parameters":{"binary_data":true}}]}'


@pytest.fixture
def town(tmp_path, store):
    shutil.copytree(store, tmp_path / "store")
    write_wide(tmp_path / "store")
    town = Town(tmp_path, tmp_path / "store", limits={"in_flight_bytes": 64 << 20})
    try:
        town.agent("edge-1", keep_warm=["double", "wide"], limits={"in_flight_bytes": 128 << 20})
        yield town
    finally:
        town.end()


def rss_bytes(part):
    text = Path(f"/proc/{part.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) << 10


async def ask(session, path, body, **headers):
    async with session.post(path, data=io.BytesIO(body), headers=headers) as answer:
        return answer.status, await answer.read()


async def test_thirty_two_bombs_at_once_are_refused_and_harm_neither(town):
    path, body = ATTACKS["rows"]
    bomb = gzip.compress(body)
    parts = town.router, town.agents["edge-1"]
    async with aiohttp.ClientSession(town.router.url) as session:
        assert (await ask(session, DOUBLE, of(b"1,2", "[1,2]")))[0] == 200
        before = [rss_bytes(part) for part in parts]
        asked = (ask(session, path, bomb, **{"content-encoding": "gzip"}) for _ in range(32))
        assert {status for status, _ in await asyncio.gather(*asked)} == {413}
        grown = [rss_bytes(part) - was for part, was in zip(parts, before, strict=True)]
        assert max(grown) < 100 * 32 * len(bomb)
        assert (await ask(session, DOUBLE, of(b"1,2", "[1,2]")))[0] == 200


@pytest.mark.parametrize("rows", [1, 5], ids=["held until they are whole", "streams"])
async def test_clients_that_do_not_read_take_no_more_of_a_router_than_requests_may(town, rows):
    body = of(b",".join([b"1"] * 2 * rows), f"[{rows},2]").removesuffix(b"}") + WISH
    body += b" " * (8192 - len(body))
    host, port = town.router.address.split(":")
    head = f"POST {WIDE} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    async with aiohttp.ClientSession(town.router.url) as session:
        assert (await ask(session, WIDE, body))[0] == 200
        before = rss_bytes(town.router)
        with ExitStack() as stack:
            for _ in range(200):
                one = stack.enter_context(socket.create_connection((host, int(port))))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                one.sendall(head + body)
            for _ in range(20):
                status, _ = await ask(session, DOUBLE, of(b"1,2", "[1,2]"))
                assert status in (200, 502, 503)
                await asyncio.sleep(0.1)
            assert rss_bytes(town.router) - before < GROUP_BYTES // 4
        async with asyncio.timeout(30):
            while (await ask(session, WIDE, body))[0] != 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
