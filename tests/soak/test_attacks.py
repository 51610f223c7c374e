"""Requests made to take memory, one and thirty-two at once: a real agent in 512 MB lives on."""

import asyncio
import gzip
import io
import json
import re
import socket
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path

import aiohttp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from isochrone.edge_agent.runtime.package.manifest import Declared, SampleTensor
from tests.conftest import model_bytes, write
from tests.soak.agent import SoakedAgent
from tests.soak.group import NoGroup, small_group

MIB = 1 << 20
GROUP_BYTES = 512 * MIB
BODY_BYTES = 16 * MIB - 1024
LEAST_GROWTH_BYTES = 16 * MIB
"""Of threads, caches and pages that come with anything at all."""
WIDTH = 1 << 18
DOUBLE, WORDS, TALK = (f"/v2/models/{name}/infer" for name in ("double", "words", "talk"))
GENERATE = "/v2/models/talk/generate"


def of(data, shape, datatype="FP32", name="x"):
    """A JSON body with one input."""
    head = f'{{"inputs":[{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":['
    return head.encode() + data + b"]}]}"


def fill(unit):
    """So often that a body is nearly as long as it may be, and how often that is."""
    count = BODY_BYTES // len(unit)
    return unit * count, count


def many(unit, shape, *more):
    data, count = fill(unit)
    return of(data + unit.rstrip(b","), shape.format(count + 1, (count + 1) // 2), *more)


ATTACKS = {
    "rows": (DOUBLE, many(b"0,", "[{1},2]")),
    "nested rows": (DOUBLE, many(b"[0,0],", "[{0},2]")),
    "rows of a flat shape": (DOUBLE, many(b"0,", "[{0}]")),
    "empty lists": (DOUBLE, many(b"[],", "[{0},0]")),
    "deep lists": (DOUBLE, many(b"[[[[[[[[]]]]]]]],", "[{0},1,1,1,1,1,1,1,0]")),
    "long numbers": (DOUBLE, many(b"0.12345678901234567890123456789,", "[{1},2]")),
    "one number": (DOUBLE, of(fill(b"1")[0], "[1,1]")),
    "a huge shape": (DOUBLE, of(fill(b"0,")[0] + b"0", "[1000000,1000000]")),
    "no elements, many rows": (DOUBLE, of(b"", "[999999999,0]")),
    "texts": (WORDS, many(b'"",', "[{0}]", "BYTES", "text")),
    "texts of two": (WORDS, many(b'"ab",', "[{0}]", "BYTES", "text")),
    "escapes": (WORDS, of(b'"' + fill(b"\\n")[0] + b'"', "[1]", "BYTES", "text")),
    "parameters": (DOUBLE, b'{"inputs":[],"parameters":{'
                   + b",".join(b'"%x":%d' % (n, n) for n in range(1_000_000)) + b"}}"),
    "inputs": (DOUBLE, b'{"inputs":[' + fill(b'{"name":"ab","shape":[1],"datatype":"cd"},')[0]),
    "outputs": (DOUBLE, b'{"inputs":[],"outputs":[' + fill(b'{"name":"ab"},')[0]),
    "duplicate keys": (DOUBLE, b"{" + fill(b'"inputs":[],"id":"abcd",')[0] + b'"inputs":[]}'),
    "a name": (DOUBLE, of(b"1", "[1]", "FP32", "n" * BODY_BYTES)),
    "a text to go on with": (GENERATE, b'{"text_input":"' + fill(b"a")[0] + b'"}'),
    "a text of escapes": (GENERATE, b'{"text_input":"' + fill(b"\\u00e9")[0] + b'"}'),
    "parameters of a text": (GENERATE, b'{"text_input":"a","parameters":{'
                             + b",".join(b'"%x":%d' % (n, n) for n in range(1_000_000)) + b"}}"),
    "an index": ("/v2/repository/index", fill(b"[[[[[]]]]],")[0]),
    "a wake": ("/isochrone/wake", fill(b'{"model":"ab"},')[0]),
}  # fmt: skip


CROWDS = ("rows", "empty lists", "inputs", "parameters, gzip")
"""Of the long ones, those that come in crowds, too."""


def binary_texts():
    count = 4_000_000
    size = {"binary_data_size": 4 * count}
    tensor = {"name": "text", "shape": [count], "datatype": "BYTES", "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + bytes(4 * count), {"inference-header-content-length": str(len(head))}


def write_wide(store):
    """A row of two numbers in, WIDTH numbers out."""
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    wide = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])
    weights = numpy_helper.from_array(np.ones((1, WIDTH), np.float32), "ones")
    axes = onnx.numpy_helper.from_array(np.array([1]), "axes")
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"]),
        helper.make_node("MatMul", ["sum", "ones"], ["y"]),
    ]
    return write(
        store,
        model_bytes(nodes, [rows], [wide], [weights, axes]),
        name="wide",
        inputs=(Declared("x", "FP32", (-1, 2)),),
        outputs=(Declared("y", "FP32", (-1, WIDTH)),),
        sample=SampleTensor("x", (1, 2)),
    )


def most_bytes(agent):
    text = Path(f"/proc/{agent.pid}/status").read_text()
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", text)
    return int(found) << 10


def forget_most(agent):
    Path(f"/proc/{agent.pid}/clear_refs").write_text("5")


@pytest.fixture
async def attacked(tmp_path):
    """An agent, in a group where this machine lets us make one, and a patient client."""
    with ExitStack() as stack:
        group = None
        with suppress(NoGroup):
            group = stack.enter_context(small_group(GROUP_BYTES))
        agent = SoakedAgent(tmp_path / "agent", group, keep_warm=["double", "words", "talk"])
        write_wide(tmp_path / "agent" / "packages")
        try:
            await agent.start()
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(120)
            async with aiohttp.ClientSession(
                agent.url, connector=connector, timeout=timeout
            ) as web:
                await ask(web, DOUBLE, of(b"1,2", "[1,2]"))
                yield agent, web
            assert group is None or group.killed == 0
        finally:
            assert agent.end() == 0


async def ask(session, path, body, **headers):
    """The status and the body of an answer; 503 where it was cut while the client still wrote."""
    try:
        async with session.post(path, data=io.BytesIO(body), headers=headers) as answer:
            return answer.status, await answer.read()
    except aiohttp.ClientOSError as error:
        return 503, repr(error).encode()


async def at_once(session, count, path, body, **headers):
    """The statuses of so many, and how often health was answered before the last of them."""
    asked = asyncio.gather(*(ask(session, path, body, **headers) for _ in range(count)))
    heard = 0
    while not asked.done():
        async with session.get("/v2/health/live") as answer:
            assert answer.status == 200
        heard += 1
    return {status for status, _ in await asked}, heard


async def test_no_request_takes_a_hundred_times_itself_and_no_crowd_kills(attacked):
    agent, session = attacked
    at_first = agent.rss_bytes()
    sent = {
        **{name: (path, body, {}) for name, (path, body) in ATTACKS.items()},
        **{
            f"{name}, gzip": (path, gzip.compress(body), {"content-encoding": "gzip"})
            for name, (path, body) in ATTACKS.items()
        },
        "rows, deflate": (
            DOUBLE,
            zlib.compress(ATTACKS["rows"][1]),
            {"content-encoding": "deflate"},
        ),
    }
    texts, fields = binary_texts()
    sent["binary texts"] = (WORDS, texts, fields)
    sent["binary texts, gzip"] = (
        WORDS,
        gzip.compress(texts),
        {**fields, "content-encoding": "gzip"},
    )
    for name, (path, body, headers) in sent.items():
        before = agent.rss_bytes()
        forget_most(agent)
        status, said = await ask(session, path, body, **headers)
        assert status in (200, 400, 413), (name, said[:200])
        grown = most_bytes(agent) - before
        assert grown < max(100 * len(body), LEAST_GROWTH_BYTES), (name, len(body), grown)
        if len(body) > MIB and name not in CROWDS:
            continue
        statuses, heard = await at_once(session, 32, path, body, **headers)
        assert statuses <= {200, 400, 413, 503}, (name, statuses)
        assert heard > 0, name
    await asyncio.sleep(2)
    assert agent.rss_bytes() - at_first < LEAST_GROWTH_BYTES, "what was taken is given back"
    assert (await ask(session, DOUBLE, of(b"1,2", "[1,2]")))[0] == 200


async def test_clients_that_do_not_read_take_no_more_than_requests_may(attacked):
    """A hundred ask for 6 MB each and take none of it: those that read are answered."""
    agent, session = attacked
    path, wish = (
        "/v2/models/wide/infer",
        b',"outputs":[{"name":"y","parameters":{"binary_data":true}}]}',
    )
    body = of(b"1," * 9 + b"1", "[5,2]").removesuffix(b"}") + wish + b" " * 8000
    assert (await ask(session, path, body))[0] == 200
    host, port = agent.url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    before = agent.rss_bytes()
    with ExitStack() as stack:
        for _ in range(100):
            one = stack.enter_context(socket.create_connection((host, int(port))))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(head + body)
        for _ in range(20):
            status, told = await ask(session, path, body)
            assert status in (200, 503), told
            await asyncio.sleep(0.1)
        # a quarter of the group is theirs; the engine's arena keeps what outputs took at most
        assert agent.rss_bytes() - before < GROUP_BYTES * 3 // 4
        async with asyncio.timeout(30):
            while (await ask(session, path, body))[0] != 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
