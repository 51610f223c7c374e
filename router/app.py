"""The composition root: everything a router is made of, joined once."""

import asyncio
import logging
from collections.abc import Iterator
from importlib.metadata import version
from ipaddress import ip_network
from pathlib import Path
from random import Random

from prometheus_client import CollectorRegistry

from isochrone.router.admission.quota import Quotas
from isochrone.router.config import EndpointConfig, RouterConfig
from isochrone.router.core import HOUSEKEEPING_S, Core, Knobs, Surroundings
from isochrone.router.dispatch.request import RoutedRequest
from isochrone.router.errors import ConfigError, IsochroneError
from isochrone.router.fleet.quarantine import START_S
from isochrone.router.frontend.admin import Admin
from isochrone.router.frontend.agents import Agents
from isochrone.router.frontend.decisions import Decisions, access_line
from isochrone.router.frontend.measured import Measured
from isochrone.router.frontend.metrics import FleetCollector, GeoipCollector, Metrics
from isochrone.router.frontend.oip import Inference
from isochrone.router.frontend.place import Places
from isochrone.router.frontend.query_builder import QueryBuilder
from isochrone.router.frontend.refusal import Refusals
from isochrone.router.frontend.server import Readiness, Server
from isochrone.router.geo.clients import ClientPaths
from isochrone.router.geo.network import light_rtt_s, prior_rtt_s
from isochrone.router.geo.region import distance_km
from isochrone.router.law.region_policy import RegionPolicy
from isochrone.router.members.address import pin
from isochrone.router.members.endpoint import Endpoint, Tier
from isochrone.router.members.membership import Member, Membership
from isochrone.router.members.store import Store
from isochrone.router.policy.policy import Policy
from isochrone.router.process import log
from isochrone.router.process.access_log import AccessLog
from isochrone.router.process.clock import Clock
from isochrone.router.process.document import (
    ConfigProblem,
    Document,
    KeyPath,
    SettingsError,
    did_you_mean,
    read_document,
)
from isochrone.router.process.settings import attempted, readable_part, settings_in
from isochrone.router.upstream.upstreams import Upstreams
from isochrone.router.wire.report import NO_VERSION, HeldModel, Lease, ModelState
from isochrone.router.wire.url import parse_url

TELLING_S = 1.0
"""How often the log is told which endpoints have come in and gone out."""
GEOIP_S = 1.0
"""How often it is looked whether the GeoIP file has changed."""
RESTORED_S = 3600.0
"""Agents that were seen this lately are asked at once after a restart."""

_log = logging.getLogger("isochrone.router")


class Router:
    """One worker of one router, without its sockets."""

    def __init__(
        self,
        config: RouterConfig,
        law: RegionPolicy,
        store: Store,
        *,
        clock: Clock,
        wall: Clock,
        rng: Random,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._out: dict[str, str | None] = {}
        self._store = store
        self._law = law
        self._allowed = [ip_network(text) for text in config.enrolment.allowed_networks]
        access = config.log
        self._access = AccessLog(access.access, access.access_bytes) if access.access else None
        self.registry = CollectorRegistry()
        self.upstreams = Upstreams(tasks, clock)
        lease = Lease(config.enrolment.lease_s, config.enrolment.renew_s)
        prior_s, light_s = _round_trips(config, law)
        self.refusals = Refusals(lambda code: self._metrics.refused(code))  # noqa: PLW0108  # made below
        self.decisions = Decisions(law.fingerprint)
        self._policy = Policy()
        quotas = Quotas(law.quotas)
        self.core = Core(
            f"{config.name}.{rng.getrandbits(32):08x}",  # new: endpoints remember the old one
            Membership(map(_member, config.endpoints), law.regions.names, lease),
            Knobs(
                prior_rtt_s=prior_s,
                light_rtt_s=light_s,
                most_attempts=config.tries,
                policy=self._policy,
                probe=config.probe,
                retries=config.retries,
                hedge=config.hedge,
                queue=config.queue,
                models=config.models,
                weights=law.weights,
                in_flight=config.in_flight,
                start_s=max(START_S, config.enrolment.renew_s + 1),  # agents have so long to join
            ),
            Surroundings(
                self.upstreams.of,
                self.refusals.refuse,
                self._ended,
                self._left,
                law.locator.client_address,
            ),
            quotas,
            clock=clock,
            wall=wall,
            rng=rng,
            back_off_rng=rng,
        )
        ledger = self.core.ledger
        self._metrics = Metrics(self.registry, ledger, wall)
        self._keep_house()
        self.readiness = Readiness(ledger, clock, self.core.housekeeping.failing)
        self.measured = Measured(
            paths=ClientPaths(law.regions, rng),
            ledger=ledger,
            locator=law.locator,
            allowed=self._allowed,
            clock=clock,
        )
        if law.locator.database is not None:
            self.registry.register(GeoipCollector(law.locator.database, wall))
        self.registry.register(
            FleetCollector(
                ledger,
                self.core.runner,
                self.core.dispatcher,
                self.measured,
                self.core.housekeeping,
            )
        )
        self.serve = self._server(config, law, quotas, rng, tasks)
        self.admin = Admin(
            name=config.name,
            region=config.region,
            readiness=self.readiness,
            ledger=ledger,
            decisions=self.decisions,
            law=law,
            store=store,
            registry=self.registry,
        )
        if not self._restore() and self._allowed:
            self.readiness.joined_s = clock() + config.enrolment.renew_s

    def _server(
        self,
        config: RouterConfig,
        law: RegionPolicy,
        quotas: Quotas,
        rng: Random,
        tasks: asyncio.TaskGroup,
    ) -> Server:
        core = self.core
        queries = QueryBuilder(
            law,
            core.ledger,
            core.membership,
            frozenset(config.models).union(*(e.models for e in config.endpoints)),
            self._clock,
            unsettled_s=self.readiness.unsettled_s,
            once={name for name, model in config.models.items() if not model.repeatable},
            explain=config.decisions.explain == "always",
        )
        return Server(
            version=version("isochrone"),
            readiness=self.readiness,
            queries=queries,
            inference=Inference(queries, core.ledger, core.chooser, core.dispatcher),
            places=Places(self._policy, queries, core.ledger, self.measured.paths, quotas, rng),
            measured=self.measured,
            agents=Agents(
                membership=core.membership,
                store=self._store,
                allowed=self._allowed,
                client_address=law.locator.client_address,
                out_of=self._out_of,
                changed=core.follow,
                clock=self._clock,
                tasks=tasks,
            ),
            refusals=self.refusals,
            rng=rng,
        )

    def tick(self) -> None:
        """Do what is due because time passes; nothing is raised."""
        self.core.tick(self._clock())

    async def follow_geoip(self) -> None:
        """Take up a GeoIP file that has changed; it ends where there is none."""
        locator = self._law.locator
        database = locator.database
        while database is not None:
            await asyncio.sleep(GEOIP_S)
            try:
                taken_up = await asyncio.to_thread(database.refresh)
            except ConfigError as error:
                refused: dict[str, object] = {"file": database.path, "reason": error.message}
                log.event(_log, "geoip_refused", level=logging.ERROR, **refused)
                continue
            if taken_up:
                locator.forget()
                log.event(_log, "geoip_taken_up", file=database.path, built_s=database.built_s)

    def _keep_house(self) -> None:
        parts = self.core.housekeeping
        if self._access is not None:
            access = self._access
            parts.add("the access log", lambda _: access.flush(), every_s=HOUSEKEEPING_S)
        parts.add("the log of endpoints", self._tell_of_changes, every_s=TELLING_S)

    def _tell_of_changes(self, now_s: float) -> None:
        """Say in the log which endpoints have come in and gone out since the last time."""
        del now_s
        out = {site.endpoint.name: site.out for site in self.core.ledger.sites()}
        for name in self._out.keys() - out.keys():
            log.event(_log, "endpoint_left", endpoint=name)
        for name, why in out.items():
            if why is not None and self._out.get(name) is None:
                log.event(_log, "endpoint_out", endpoint=name, why=why)
            elif why is None and self._out.get(name, "") is not None:
                log.event(_log, "endpoint_in", endpoint=name)
        self._out = out

    async def close(self) -> None:
        """Give everything back."""
        await self.upstreams.close()
        if self._access is not None:
            self._access.close()

    def _out_of(self, name: str) -> str | None:
        site = self.core.ledger.site(name)
        return site.out if site is not None else "not seen yet"

    def _left(self, endpoint: Endpoint) -> None:
        self.upstreams.retire(endpoint)
        self._metrics.forget(endpoint.name)

    def _ended(self, record: RoutedRequest) -> None:
        now_s = self._wall()
        self._metrics.ended(record)
        self.decisions.keep(record, now_s)
        if self._access is not None:
            self._access.write(access_line(record, now_s))

    def _restore(self) -> bool:
        """Take up the agents that the state file has; False where it has none."""
        now_s, found = self._clock(), False
        for enrolment, url, age_s in self._store.load():
            self.core.membership.remember((m.name for m in enrolment.models), now_s - age_s)
            if url and age_s < RESTORED_S:
                try:
                    where = parse_url(url)
                    pinned = pin(where, [where.host], self._allowed)
                    self.core.membership.enrol(enrolment, pinned.url, now_s)
                    found = True
                except IsochroneError as error:  # the configuration has changed since
                    _log.info("%s is not restored: %s", enrolment.name, error)
        self.core.follow()
        return found


def load(path: Path) -> tuple[RouterConfig, RegionPolicy]:
    """A router's configuration and its region policy, checked against each other.

    Raises:
        SettingsError: (a ConfigError) one of the files cannot be used; a line for each problem.
    """
    document = read_document(path)
    config, problems = attempted(lambda: settings_in(document, RouterConfig))
    law: RegionPolicy | None = None
    regions_file = document.data.get("regions_file") if isinstance(document.data, dict) else None
    if isinstance(regions_file, str):
        place = path.parent / Path(regions_file).expanduser()
        law, more = attempted(lambda: RegionPolicy.from_file(place))
        problems += more
    sound = config or readable_part(document, RouterConfig)
    if sound is not None and law is not None:
        problems += _unknown_regions(document, sound, law)
    if problems or config is None or law is None:
        raise SettingsError(problems)
    return config, law


def problems_in(path: Path) -> list[ConfigProblem]:
    """Everything that is wrong in a router's configuration and its region policy."""
    files, problems = attempted(lambda: load(path))
    if files is None:
        return problems
    files[1].locator.close()
    return list(files[1].contradictions)


def _unknown_regions(
    document: Document, config: RouterConfig, law: RegionPolicy
) -> Iterator[ConfigProblem]:
    known = law.regions.names
    named: list[tuple[KeyPath, str]] = [(("region",), config.region)]
    named += [(("endpoints", i, "region"), one.region) for i, one in enumerate(config.endpoints)]
    for key, region in named:
        if region not in law.regions:
            text = f"{region!r} is not in {config.regions_file}: {', '.join(sorted(known))}"
            hint = did_you_mean(region, known)
            yield document.problem(key, text, code="unknown_region", suggestion=hint)


def _member(config: EndpointConfig) -> Member:
    endpoint = Endpoint(
        name=config.name,
        url=parse_url(config.url).url,
        region=config.region,
        zone=config.zone,
        tier=Tier(config.tier),
        hardware_class=config.hardware_class,
        reports=config.reports,
    )
    models = () if config.reports else config.models
    held = tuple(HeldModel(name, NO_VERSION, ModelState.WARM) for name in models)
    return Member(endpoint=endpoint, slots=config.slots, models=held)


def _round_trips(
    config: RouterConfig, law: RegionPolicy
) -> tuple[dict[str, float], dict[str, float]]:
    """From this router to each region: what to expect, and the least that is possible.

    The least counts half of the way: a region is wide, and its point is only its middle.
    """
    here = law.regions[config.region].point
    away_km = {r.name: distance_km(here, r.point) for r in law.regions}
    prior_s = {name: prior_rtt_s(km) for name, km in away_km.items()}
    return prior_s, {name: light_rtt_s(km / 2) for name, km in away_km.items()}
