"""Counts the Python function calls of a router for a proxied request.

`python -m tests.router.frontend.calls [--list]`: a real router on uvloop with everything on: a
tenant's key and requirement, ledger, metrics, deadline, access log, decisions. The endpoint and the
client are processes of their own, so that only the router is counted; C functions are not. With
`--list`, also the functions that are entered for every request.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from hashlib import sha256
from pathlib import Path
from random import Random
from types import CodeType, FrameType

import uvloop

from isochrone.router.app import Router, load
from isochrone.router.http.limits import Limits
from isochrone.router.http.listener import Listener
from isochrone.router.http.sockets import bind
from isochrone.router.members.store import Store
from isochrone.router.process.clock import monotonic, wall

REQUESTS = 1000
WARM_UP = 200
KEY = "key-of-acme"
REGIONS = """
regions:
  eu-west: {location: {latitude: 53.3, longitude: -6.3}, jurisdiction: eu}
  us-east: {location: {latitude: 39.0, longitude: -77.5}, jurisdiction: us}
tenants:
  default: {require: any}
  acme: {require: [eu], keys_file: keys}
"""
ENDPOINT = """
import asyncio, itertools, msgspec
from isochrone.router.wire.report import *
numbers = itertools.count()
MODEL = HeldModel("digits", "1", ModelState.WARM, load_s=0.5)
def report():
    return msgspec.json.encode(EndpointReport(wire_version=WIRE_VERSION, name="edge",
        region="eu-west", instance="i1", sequence=next(numbers), in_flight=0, slots=4, ready=True,
        draining=False, models_generation=1, models=(MODEL,)))
def load():
    return encode_call_report(CallReport(instance="i1", sequence=next(numbers), in_flight=0,
        slots=4, latency_s=0.001, wait_s=0.0001, infer_s=0.001, models_generation=1))
class Answering(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        while b"\\r\\n\\r\\n" in self.data:
            head, _, rest = self.data.partition(b"\\r\\n\\r\\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\\r\\n")[0] or 0)
            if len(rest) < length:
                return
            self.data = rest[length:]
            is_call = b"/infer" in head
            body = b"x" * 1000 if is_call else report()
            field = LOAD_HEADER + b": " + load() if is_call else b"a: b"
            self.transport.write(b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\n"
                + field + b"\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body)
async def main():
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
CLIENT = f"""
import http.client, socket, sys
there = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
request = (b"POST /v2/models/digits/infer HTTP/1.1\\r\\nhost: a\\r\\n"
    b"authorization: Bearer {KEY}\\r\\n"
    b"x-request-timeout-seconds: 10\\r\\ncontent-length: 1000\\r\\n\\r\\n" + b"y" * 1000)
for _ in range(int(sys.argv[2])):
    there.sendall(request)
    answer = http.client.HTTPResponse(there)
    answer.begin()
    assert (answer.status, len(answer.read())) == (200, 1000), answer.status
"""


def configured(folder: Path, endpoint_port: int) -> Path:
    """A router's configuration in a folder."""
    (folder / "keys").write_text(f"acme sha256:{sha256(KEY.encode()).hexdigest()}\n")
    (folder / "regions.yaml").write_text(REGIONS)
    (folder / "router.yaml").write_text(f"""
name: r1
region: eu-west
listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
regions_file: regions.yaml
log: {{access: {folder}/access.log}}
endpoints:
  - {{name: edge, url: "http://127.0.0.1:{endpoint_port}", region: eu-west, tier: edge, slots: 4}}
""")
    return folder / "router.yaml"


async def counted(folder: Path) -> Counter[CodeType]:
    """How often each function was entered for `REQUESTS` requests."""
    counts: Counter[CodeType] = Counter()

    def heard(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            counts[frame.f_code] += 1

    async def ask(port: int, count: int) -> None:
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, str(port), str(count)
        )
        assert await client.wait() == 0

    endpoint = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ENDPOINT, stdout=asyncio.subprocess.PIPE
    )
    assert endpoint.stdout is not None
    port = int(await endpoint.stdout.readline())
    config, law = load(configured(folder, port))
    async with asyncio.TaskGroup() as tasks:
        router = Router(
            config, law, Store(None, wall), clock=monotonic, wall=wall, rng=Random(1), tasks=tasks
        )
        listener = Listener(router.serve, Limits(), monotonic)
        public = bind("127.0.0.1:0")
        await listener.start(public)
        while not router.readiness:
            router.tick()
            await asyncio.sleep(0.02)
        await ask(public.getsockname()[1], WARM_UP)
        sys.setprofile(heard)
        await ask(public.getsockname()[1], REQUESTS)
        sys.setprofile(None)
        await listener.drain(0.0)
        await router.close()
    endpoint.kill()
    await endpoint.wait()
    return counts


def main() -> None:
    """Count, and print."""
    with tempfile.TemporaryDirectory() as folder:
        counts = uvloop.run(counted(Path(folder)))
    print(f"{counts.total() / REQUESTS:.1f}")
    if "--list" in sys.argv:
        for code, count in counts.most_common():
            if count >= REQUESTS // 2:
                print(f"{count / REQUESTS:6.2f} {Path(code.co_filename).stem}.{code.co_qualname}")


if __name__ == "__main__":
    main()
