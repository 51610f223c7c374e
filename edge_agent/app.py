"""The composition root: everything an agent is made of, joined once, and its life from end to end."""

import asyncio
import logging
from random import Random

from aiohttp import ClientSession
from prometheus_client import CollectorRegistry

from edge_agent.config import AgentConfig
from edge_agent.enrol import Enroller
from edge_agent.lifecycle import Lifecycle, Settled
from edge_agent.metrics import Metrics
from edge_agent.report import Report, broken_in, identity
from edge_agent.runtime.calls import Calls
from edge_agent.runtime.held import ModelMoved
from edge_agent.runtime.infer import Inference
from edge_agent.runtime.load import Load
from edge_agent.runtime.oip import OpenInference
from edge_agent.runtime.pool import Pool
from edge_agent.server import Admin, Public
from edge_agent.slots import SlotGate
from router.errors import IsochroneError
from router.process.clock import Clock

_log = logging.getLogger("isochrone.agent")


class Agent:
    """One agent without its sockets."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        clock: Clock,
        rng: Random,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Work that no request waits for runs in `tasks`."""
        self.config = config
        self.lifecycle = Lifecycle(config.keep_warm)
        self._rng = rng
        packages = _packages(config.packages)
        registry = CollectorRegistry()
        self.metrics = Metrics(registry)
        self.pool = Pool(
            packages,
            slots=config.slots,
            threads=config.threads,
            clock=clock,
            on_event=self._moved,
        )
        self.gate = SlotGate(config.slots, config.queue, clock, lambda: self.load.service_s)
        who = identity(f"{rng.getrandbits(64):016x}")
        self.load = Load(config.name, who.instance, self.gate, self.pool)
        self.metrics.watch(lambda: self.gate.in_flight, lambda: self.gate.queued)
        self.report = Report(
            config, who, self.pool, self.load, self.lifecycle, broken_in(config.packages, packages)
        )
        calls = Calls(self.pool, self.gate, clock, self._served, config.min_service_s)
        inference = Inference(calls, self.load, body_limit_bytes=config.limits.body_bytes)
        face = OpenInference(self.pool, inference, lambda: self.lifecycle.ready)
        self.public = Public(face, self.pool, self.report, self.lifecycle, tasks)
        self.admin = Admin(self.pool, self.lifecycle, registry)

    async def warm(self) -> None:
        """Load every model that is kept warm; one that cannot be is told of and left."""
        for name in self.config.keep_warm:
            try:
                await self.pool.load(name)
            except IsochroneError as error:
                _log.error("keep_warm: %s: %s", name, error.message)
            self.lifecycle.on(Settled(name))

    def enrollers(self, session: ClientSession, own_url: str) -> list[Enroller]:
        """One for every router of the configuration."""
        return [
            Enroller(
                router.url,
                self.report.enrolment_at(router.advertise or own_url),
                session,
                self._rng,
            )
            for router in self.config.routers
        ]

    def _served(self, model: str, wait_s: float, infer_s: float) -> None:
        self.load.served(model, infer_s)
        self.metrics.served(model, wait_s, infer_s)

    def _moved(self, event: ModelMoved) -> None:
        if event.load_s is not None:
            self.metrics.loaded(event.name, event.load_s)
