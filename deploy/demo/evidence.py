"""Where requests went, by request id: from the endpoints' own logs and from the relays'.

Nothing here comes from a router: what it says of itself is not what it is judged by.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from isochrone.deploy.local.files import relay_name
from isochrone.deploy.local.layout import AGENTS, CLOUD, REGION_OF, ROUTERS, Layout
from isochrone.deploy.local.relay import Passage
from isochrone.router.process.clock import Clock, monotonic

T = TypeVar("T")
_LOOK_S = 0.05
_SERVE_LINE = re.compile(r" (?P<id>[A-Za-z0-9._-]+) -- [A-Z]+ \S+ 200 ")


class AccessLine(msgspec.Struct, frozen=True):
    """What counts here of a line of an agent's access log."""

    request_id: str
    status: int


class Evidence:
    """The logs of one run, read anew for each question."""

    def __init__(self, layout: Layout, *, clock: Clock = monotonic) -> None:
        self._layout = layout
        self._clock = clock
        self._carries = {relay_name(r, e): e for r in ROUTERS for e in REGION_OF}

    def served(self, ids: Collection[str]) -> dict[str, list[str]]:
        """Which endpoints answered each of these requests; more than one where it was repeated."""
        found: dict[str, list[str]] = {name: [] for name in ids}
        for agent in AGENTS:
            for line in _lines(self._layout.access_log(agent), AccessLine):
                if line.status == 200 and line.request_id in found:
                    found[line.request_id].append(agent)
        for request_id in self._answered_by_ray():
            if request_id in found:
                found[request_id].append(CLOUD)
        return found

    def carried(self, ids: Collection[str]) -> dict[str, list[str]]:
        """To which endpoints the relays carried each of these requests, answered or not."""
        found: dict[str, list[str]] = {name: [] for name in ids}
        for passage in _lines(self._layout.relay_log, Passage):
            if passage.request_id in found:
                found[passage.request_id].append(self._carries[passage.relay])
        return found

    async def settled(self, ids: Collection[str], timeout_s: float = 5.0) -> dict[str, list[str]]:
        """As `served`, once each of these answered requests stands in some log, or time is up."""
        until_s = self._clock() + timeout_s
        while True:
            served = self.served(ids)
            if all(served.values()) or self._clock() > until_s:
                return served
            await asyncio.sleep(_LOOK_S)

    def loads(self, agent: str) -> int:
        """How often an agent has loaded a model since it was first started."""
        log = self._layout.folder / f"{agent}.log"
        return log.read_text(errors="replace").count("model_loaded")

    def _answered_by_ray(self) -> Iterator[str]:
        """Ids in the access lines of Serve's proxies, answered with 200."""
        for log in self._layout.ray_folder.glob("session_2*/logs/serve/proxy_*.log"):
            for found in _SERVE_LINE.finditer(log.read_text(errors="replace")):
                yield found["id"]


def outside(served: dict[str, list[str]], region: str) -> Counter[str]:
    """The endpoints outside a region that answered, and how often."""
    return Counter(name for names in served.values() for name in names if REGION_OF[name] != region)


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    """The whole lines of a JSON-lines file; the last may still be being written."""
    if not path.exists():
        return
    decode = msgspec.json.Decoder(kind).decode
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield decode(line)
