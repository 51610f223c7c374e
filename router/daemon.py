"""A router's process: sockets, the tick of its time, and a graceful end."""

import asyncio
import logging
from pathlib import Path
from random import SystemRandom

from aiohttp import web

from isochrone.router.app import Router, load
from isochrone.router.config import RouterConfig
from isochrone.router.core import TICK_S
from isochrone.router.http.descriptors import fitted, raised_limit
from isochrone.router.http.limits import Room
from isochrone.router.http.listener import Listener
from isochrone.router.http.sockets import address_of, bind, bind_all
from isochrone.router.law.region_policy import RegionPolicy
from isochrone.router.members.store import Store
from isochrone.router.process import log
from isochrone.router.process.clock import monotonic, wall
from isochrone.router.process.control_groups import memory_limit_bytes
from isochrone.router.process.freed_memory import keep_trimmed
from isochrone.router.process.output import say
from isochrone.router.process.run import keep_on_hangup, run

_log = logging.getLogger("isochrone.router")


def main(path: Path, log_level: str | None = None, log_format: log.Format | None = None) -> int:
    """Run a router until SIGTERM or SIGINT; returns the exit code.

    `log_level` and `log_format` go over what the configuration says.

    Raises:
        ConfigError: it cannot start, and why.
    """
    keep_on_hangup()
    config, law = load(path)
    log.setup(log_level or config.log.level, log_format or config.log.format)
    for contradiction in law.contradictions:
        _log.warning("%s", contradiction)
    return run(lambda stop: _serve(config, law, stop))


async def _serve(config: RouterConfig, law: RegionPolicy, stop: asyncio.Event) -> int:
    public, admin = bind_all(config.listen), bind(config.admin.listen)
    store = Store(config.state_file, wall)
    async with asyncio.TaskGroup() as tasks:
        router = Router(
            config, law, store, clock=monotonic, wall=wall, rng=SystemRandom(), tasks=tasks
        )
        # a client's request is given a connection to an endpoint as well
        limits = fitted(config.limits, raised_limit(), for_each=2)
        room = Room(limits.held_bytes(memory_limit_bytes()))
        listener = Listener(router.serve, limits, monotonic, room)
        settled = asyncio.Event()
        background = [
            tasks.create_task(work)
            for work in (
                _tick(router, settled),
                router.follow_geoip(),
                keep_trimmed(),
            )
        ]
        await listener.start(*public)
        site = web.AppRunner(router.admin.application(), access_log=None)
        await site.setup()
        await web.SockSite(site, admin).start()
        await settled.wait()
        urls = [f"http://{address_of(one)}" for one in public]
        log.event(_log, "listening", url=" ".join(urls), admin=f"http://{address_of(admin)}")
        say(f"ready {urls[0]}")
        await stop.wait()
        router.readiness.draining = True
        await asyncio.sleep(config.drain_notice_s)
        cut = await listener.drain(config.drain_s)
        _log.info("drained, %d requests cut", cut)
        await site.cleanup()
        for task in background:
            task.cancel()
        await router.close()
    store.close()
    return 0


async def _tick(router: Router, settled: asyncio.Event) -> None:
    while True:
        router.tick()
        if router.readiness:
            settled.set()
        await asyncio.sleep(TICK_S)
