"""The composition root: everything an agent is made of, joined once, from start to drain."""

import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, NoReturn

from aiohttp import ClientSession
from prometheus_client import CollectorRegistry

from isochrone.edge_agent.admin import Admin
from isochrone.edge_agent.artefacts import joined
from isochrone.edge_agent.artefacts.activation import Activations
from isochrone.edge_agent.artefacts.parts import Trust, trust_of
from isochrone.edge_agent.artefacts.repository import Change
from isochrone.edge_agent.client_trips import ClientTrips, Teller, noting
from isochrone.edge_agent.config import AgentConfig, check
from isochrone.edge_agent.enrol import Enroller
from isochrone.edge_agent.front import Front
from isochrone.edge_agent.guard import OPEN, Guard, guard_of
from isochrone.edge_agent.journal import Journal
from isochrone.edge_agent.lasting import lasting
from isochrone.edge_agent.lifecycle import Drain, Idle, Lifecycle, Listening, Phase, Settled
from isochrone.edge_agent.machine import Machine
from isochrone.edge_agent.metrics import Metrics
from isochrone.edge_agent.notes import Notes, Reconciler
from isochrone.edge_agent.notify import Headway, Supervisor, keep_watchdog, own_supervisor
from isochrone.edge_agent.pressure import Pressing, room_bytes
from isochrone.edge_agent.relief import Relief
from isochrone.edge_agent.report import Report, broken_in, identity
from isochrone.edge_agent.runtime.calls.call import Calls
from isochrone.edge_agent.runtime.calls.working_memory import WorkingMemory
from isochrone.edge_agent.runtime.face.infer import Inference
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.edge_agent.runtime.face.oip import OpenInference
from isochrone.edge_agent.runtime.package.cores import usable_cores
from isochrone.edge_agent.runtime.package.package import Package, packages_in
from isochrone.edge_agent.runtime.package.state import Step
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.runtime.residence.workshop import ModelMoved
from isochrone.edge_agent.server import Public
from isochrone.edge_agent.slots import SlotGate
from isochrone.router.errors import ConfigError, IsochroneError
from isochrone.router.http.descriptors import fitted, raised_limit
from isochrone.router.http.limits import Limits, Room
from isochrone.router.http.listener import Listener
from isochrone.router.http.service import asynchronous
from isochrone.router.http.sockets import address_of, bind, bind_all
from isochrone.router.process import freed_memory, log
from isochrone.router.process.access_log import AccessLog
from isochrone.router.process.clock import Clock, monotonic, wall
from isochrone.router.process.freed_memory import keep_trimmed
from isochrone.router.process.output import say
from isochrone.router.process.run import keep_on_hangup, run
from isochrone.router.wire.http import Request

__all__ = ["Agent", "check", "main"]

_ADMIN_DRAIN_S = 1.0
_log = logging.getLogger("isochrone.agent")


class Agent:
    """One agent without its sockets."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        clock: Clock,
        wall: Clock,
        rng: Random,
        trust: Trust | None = None,
        guard: Guard = OPEN,
    ) -> None:
        """With `trust`, only packages that it does not refuse are there; `wall` is for people.

        `guard` stands before the administration.
        """
        packages = _packages(config.packages, trust)
        activations = Activations(config.packages)
        machine = Machine((config.state_file or config.access_log or config.packages).parent)
        cores = usable_cores()
        sharing = config.sharing(cores)
        slots = config.slots_on(cores)
        registry = CollectorRegistry()
        self.config = config
        self.lifecycle = Lifecycle(config.keep_warm)
        self.metrics = Metrics(registry, wall)
        self.pool = Pool(
            packages,
            slots=slots,
            threads=config.threads_on(cores),
            clock=clock,
            on_event=self._moved,
            on_poison=self._poisoned,
            min_load_s=config.min_load_s,
            active=activations.active(),
            upkeep=config.upkeep(machine.memory_limit_bytes()),
            sharing=sharing,
        )
        self.repository = joined.repository(
            config.packages, config.artefacts, self.pool, activations, trust, rng, self._changed
        )
        self.metrics.watch_memory(self.pool.residents)
        who = identity(f"{rng.getrandbits(64):016x}")
        self.gate = SlotGate(
            slots, config.queue, clock, lambda: self.load.service_s, config.tenants
        )
        self.load = Load(config.name, config.region, who.instance, self.gate, self.pool, clock)
        self.metrics.watch(lambda: self.gate.in_flight, lambda: self.gate.queued)
        broken = broken_in(config.packages, packages)
        self.pressing = Pressing(slots)
        self.report = Report(
            config, who, self.pool, self.load, self.lifecycle, broken, self.pressing
        )
        self.room = Room(config.limits.held_bytes(machine.memory_limit_bytes()))
        calls = Calls(
            self.pool,
            self.gate,
            clock,
            self._served,
            config.min_service_s,
            sharing,
            self.room.answer_bytes,
            WorkingMemory(
                self.pool.residents,
                lambda: _room_bytes(machine),
                lambda: self.room.held_bytes,
                clock,
            ),
        )
        inference = Inference(
            calls, self.load, body_limit_bytes=config.limits.body_bytes, room=self.room
        )
        face = OpenInference(self.pool, inference, lambda: self.lifecycle.ready)
        self.public = Public(
            face, inference, self.pool, self.report, self.lifecycle, self.pressing, self.load
        )
        self.admin = Admin(self.repository, self.pool, self.lifecycle, registry, guard)
        journal = Journal(config.state_file, lambda: f"{rng.getrandbits(64):016x}")
        self.notes = Notes(journal, wall)
        self.access = (
            AccessLog(config.access_log, config.access_log_bytes) if config.access_log else None
        )
        self.relief = Relief(
            machine,
            self.pressing,
            self.pool,
            self.gate,
            self.notes,
            lost_lines=lambda: self.access.dropped if self.access else 0,
            changed=self.tell_routers,
            clock=clock,
        )
        self.metrics.watch_machine(lambda: self.pressing.pressure)
        self._headway = Headway()
        self._finished = 0
        self._unloadable: set[tuple[str, str]] = set()
        self._rng = rng
        self._enrollers: list[Enroller] = []

    async def warm(self, names: Iterable[str]) -> None:
        """Load some models; those that fail are tried again by whoever tends the pool."""
        for name in names:
            try:
                await self.pool.load(name)
            except IsochroneError as error:
                log.event(_log, "not_warm", level=logging.ERROR, model=name, error=error.message)
            except Exception:  # whatever a package may cause must not end the agent
                _log.exception("%s failed to load", name)
            self.lifecycle.on(Settled(name))

    def enrollers(self, session: ClientSession, own_url: str) -> list[Enroller]:
        """One for every router of the configuration; `own_url` is where this agent listens."""
        self._enrollers = [
            Enroller(
                router.url,
                self.report.enrolment_at(router.advertise or own_url),
                session,
                self._rng,
            )
            for router in self.config.routers
        ]
        return self._enrollers

    def tell_routers(self) -> None:
        """What routers know of this agent has changed: they hear of it now."""
        for enroller in self._enrollers:
            enroller.renew_soon()

    def _served(self, model: str, wait_s: float, infer_s: float) -> None:
        self._finished += 1
        self.load.served(model, infer_s)
        self.metrics.served(model, wait_s, infer_s)

    def progresses(self, now_s: float) -> bool:
        """Do inferences come to an end?"""
        full = self.gate.in_flight >= self.gate.slots
        return self._headway.on(self._finished, now_s, full=full)

    def answered(self, request: Request, status: int) -> None:
        """A request was answered."""
        self.metrics.answered(status)
        self.notes.answered(request, status)

    def _moved(self, event: ModelMoved) -> None:
        self.tell_routers()
        self._note(event)
        self.metrics.moved(event)
        model, version = event.name, event.version
        if event.cold_start is not None:
            told: dict[str, Any] = {"variant": event.variant, "load_s": event.cold_start.load_s}
            log.event(_log, "model_loaded", model=model, version=version, **told)
        if event.cause is not None:
            log.event(_log, "model_leaves", model=model, version=version, cause=event.cause)
        if event.step is Step.CRASHED:
            log.event(_log, "model_crashed", level=logging.ERROR, model=model, version=version)

    def _changed(self, change: Change, model: str, version: str) -> None:
        """What came or went tells routers at once; which version serves is worth a note, too."""
        self.tell_routers()
        if change in (Change.UPDATED, Change.ROLLED_BACK):
            self.notes.note(change, model=model, version=version)

    def _poisoned(self, package: Package) -> None:
        self.notes.note("quarantined", model=package.name, version=package.version)

    def _note(self, event: ModelMoved) -> None:
        """Every crash; that a model cannot be loaded once, until it could be."""
        model = event.name, event.version
        if event.step is Step.CRASHED:
            self.notes.note("crashed", model=event.name, version=event.version)
        elif event.error is not None and model not in self._unloadable:
            self._unloadable.add(model)
            self.notes.note("load_failed", model=model[0], version=model[1], detail=event.error)
        elif event.cold_start is not None:
            self._unloadable.discard(model)


def main(path: Path, log_level: str | None = None, log_format: log.Format | None = None) -> int:
    """Run an agent until SIGTERM or SIGINT; returns the exit code.

    `log_level` and `log_format` go over what the configuration says.

    Raises:
        ConfigError: it cannot start, and why.
    """
    keep_on_hangup()
    freed_memory.use_one_heap()
    config = check(path)
    if not config.packages.is_dir():
        raise ConfigError(f"{path}: packages: {config.packages} is no directory; make it")
    log.setup(log_level or config.log.level, log_format or config.log.format)
    return run(lambda stop: serve(config, stop))


async def serve(config: AgentConfig, stop: asyncio.Event) -> int:
    """Run an agent until `stop` is set, then drain it; prints `ready URL` once it is ready."""
    trust, guard = trust_of(config.artefacts), guard_of(config.admin.token_file)
    sockets, admin_socket = bind_all(config.listen), bind(config.admin.listen)
    urls = [f"http://{address_of(one)}" for one in sockets]
    url = urls[0]
    rng, supervisor = SystemRandom(), own_supervisor()
    async with ClientSession() as session, asyncio.TaskGroup() as tasks:
        agent = Agent(config, clock=monotonic, wall=wall, rng=rng, trust=trust, guard=guard)
        front = Front(agent.public.handle, agent.answered, agent.access, monotonic, wall, rng)
        trips = ClientTrips()
        service = front.service(agent.public.begin, asynchronous(front.handle, tasks))
        limits = fitted(config.limits, raised_limit(), for_each=1)
        public = Listener(
            noting(service, trips),
            limits,
            monotonic,
            agent.room,
            refusal_fields=agent.load.fields,
        )
        admin = Listener(asynchronous(agent.admin.handle, tasks), Limits(), monotonic)
        await public.start(*sockets)
        await admin.start(admin_socket)
        agent.lifecycle.on(Listening())
        here = " ".join(urls)
        log.event(_log, "listening", url=here, admin=f"http://{address_of(admin_socket)}")
        enrollers = agent.enrollers(session, url)
        routers = [router.url for router in config.routers]
        teller = Teller(routers, config.name, trips, session)
        reconciler = Reconciler(routers, config.name, agent.notes, session)
        keep = teller.keep, reconciler.keep, agent.notes.keep, agent.notes.sum_up, agent.relief.keep
        work: dict[str, Callable[[], Awaitable[None]]] = {
            **{f"joining {one.title}": one.keep for one in enrollers},
            **{task.__qualname__: task for task in keep},
            "warming": lambda: _become_ready(agent, url, supervisor),
            "the watchdog": lambda: keep_watchdog(supervisor, agent.progresses, monotonic),
            "giving memory back": keep_trimmed,
            "the repository": lambda: agent.repository.keep(wall()),
        }
        background = [tasks.create_task(lasting(one, name)) for name, one in work.items()]
        await stop.wait()
        supervisor.stopping()
        await _leave(agent, enrollers, background)
        until_s = monotonic() + config.drain_s
        cut = await public.drain(config.drain_s)
        await admin.drain(_ADMIN_DRAIN_S)
        agent.lifecycle.on(Idle())
        ended = await agent.pool.close(until_s - monotonic())
        ended = await agent.notes.close() and ended
        log.event(_log, "stopped", requests_cut=cut)
    if agent.access is not None:
        agent.access.close()
    if not ended:
        _end_process()
    return 0


async def _become_ready(agent: Agent, url: str, supervisor: Supervisor) -> None:
    """Warm what is kept warm, and say so."""
    await agent.warm(agent.config.keep_warm)
    gc.freeze()  # what is here now stays, and need not be looked through for garbage each time
    if agent.lifecycle.phase is Phase.READY:
        say(f"ready {url}")
        supervisor.ready(f"serving on {url}")


def _end_process() -> NoReturn:
    """Leave without the threads that still work for nobody: Python would wait for them."""
    logging.shutdown()
    os._exit(0)


async def _leave(
    agent: Agent, enrollers: list[Enroller], background: list[asyncio.Task[None]]
) -> None:
    """Readiness goes first, then the routers are told; meanwhile whatever comes is still served."""
    agent.lifecycle.on(Drain())
    log.event(_log, "draining")
    for task in background:
        task.cancel()
    await asyncio.wait(background)
    await asyncio.gather(*(enroller.leave() for enroller in enrollers))


def _room_bytes(machine: Machine) -> int | None:
    try:
        return room_bytes(machine.read().memory)
    except (OSError, ValueError):  # a kernel that tells it otherwise
        return None


def _packages(store: Path, trust: Trust | None) -> list[Package]:
    packages, errors = packages_in(store, trust)
    for error in errors:
        log.event(_log, "package_broken", level=logging.ERROR, error=error.message)
    return packages
