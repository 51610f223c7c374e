"""The configuration of one agent: a YAML file, read once into frozen structs, ranges checked."""

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Annotated

from msgspec import Meta, field

from isochrone.edge_agent.artefacts.settings import ArtefactsConfig
from isochrone.edge_agent.runtime.calls.lanes import INLINE_S, MAX_BATCH, ONE_CORE_INLINE_S, Sharing
from isochrone.edge_agent.runtime.package.manifest import Isolation
from isochrone.edge_agent.runtime.residence.upkeep import LOAD_TIMEOUT_S, Upkeep
from isochrone.router.errors import BadRequest
from isochrone.router.http.limits import Limits
from isochrone.router.http.sockets import Address, Listen, is_loopback, listed
from isochrone.router.process.access_log import DEFAULT_LOG_BYTES, LogBytes
from isochrone.router.process.log import LogConfig
from isochrone.router.process.settings import Settings, load_settings
from isochrone.router.wire.report import Name
from isochrone.router.wire.url import parse_url


class RouterConfig(Settings, frozen=True, kw_only=True):
    """A router that this agent joins; `advertise` is the URL under which it reaches the agent."""

    url: str
    advertise: str | None = None

    def __post_init__(self) -> None:
        for url in filter(None, (self.url, self.advertise)):
            try:
                parse_url(url)
            except BadRequest as error:
                raise ValueError(error.message) from error


class AdminConfig(Settings, frozen=True):
    """The listener for administrators: pulling, loading, unloading, metrics."""

    listen: Address = "127.0.0.1:8091"
    token_file: Path | None = None
    """Holds the token that administrators show; without one whoever reaches `listen` is one."""

    def __post_init__(self) -> None:
        if self.token_file is None and not is_loopback(self.listen):
            raise ValueError(
                f"listen: {self.listen} can be reached from elsewhere: name a token_file"
                " (openssl rand -hex 32), or listen on 127.0.0.1"
            )


class MemoryConfig(Settings, frozen=True, kw_only=True):
    """What all models together may take: bytes, or a share of what this process may take."""

    budget_bytes: Annotated[int, Meta(ge=1)] | None = None
    budget_share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    overcommit: bool = False

    def budget(self, limit_bytes: int) -> int:
        """The budget in bytes, where this process may take `limit_bytes`."""
        return self.budget_bytes or int(self.budget_share * limit_bytes)


class KeepAliveConfig(Settings, frozen=True, kw_only=True):
    """How long an unused model stays, until its idle times, counted in bins, say more."""

    fixed_s: Annotated[float, Meta(gt=0, le=1e9)] = 600.0
    bin_s: Annotated[float, Meta(ge=0.01, le=3600)] = 60.0


class ModelConfig(Settings, frozen=True, kw_only=True):
    """What is otherwise for one model; its package's manifest and `keep_alive` are the default."""

    isolation: Isolation | None = None
    variant: Name | None = None
    keep_alive_s: Annotated[float, Meta(gt=0, le=1e9)] | None = None


class AgentConfig(Settings, frozen=True, kw_only=True):
    """`agent.yaml`."""

    name: Name
    region: Name
    packages: Path
    zone: Annotated[str, Meta(max_length=63)] = ""
    hardware_class: Name = "unknown"
    listen: Listen = "127.0.0.1:8090"
    admin: AdminConfig = AdminConfig()
    keep_warm: tuple[Name, ...] = ()
    memory: MemoryConfig = MemoryConfig()
    keep_alive: KeepAliveConfig = KeepAliveConfig()
    models: dict[Name, ModelConfig] = field(default_factory=dict)
    slots: Annotated[int, Meta(ge=1, le=65536)] = 2
    queue: Annotated[int, Meta(ge=0, le=4096)] = 64
    tenants: dict[str, Annotated[float, Meta(gt=0, le=1000)]] = field(default_factory=dict)
    max_batch: Annotated[int, Meta(ge=1, le=4096)] = MAX_BATCH
    batches: dict[Name, Annotated[int, Meta(ge=1, le=4096)]] = field(default_factory=dict)
    min_service_s: Annotated[float, Meta(ge=0, le=10)] = 0.0
    min_load_s: Annotated[float, Meta(ge=0, le=60)] = 0.0
    load_timeout_s: Annotated[float, Meta(gt=0, le=86400)] = LOAD_TIMEOUT_S
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 20.0
    artefacts: ArtefactsConfig = ArtefactsConfig()
    routers: tuple[RouterConfig, ...] = ()
    limits: Limits = Limits()
    log: LogConfig = LogConfig()
    access_log: Path | None = None
    access_log_bytes: LogBytes = DEFAULT_LOG_BYTES
    state_file: Path | None = None

    def __post_init__(self) -> None:
        urls = [router.url for router in self.routers]
        twice = next((url for url in urls if urls.count(url) > 1), None)
        if twice is not None:
            raise ValueError(f"routers: {twice} stands here twice; name each once")
        everywhere = listed(self.listen)[0].startswith(("0.0.0.0:", "[::]:"))
        if everywhere and not all(router.advertise for router in self.routers):
            raise ValueError("routers: each needs `advertise` where `listen` is every address")

    def upkeep(self, limit_bytes: int) -> Upkeep:
        """How models are kept in memory, where this process may take `limit_bytes`."""
        models = self.models.items()
        return Upkeep(
            budget_bytes=self.memory.budget(limit_bytes),
            overcommit=self.memory.overcommit,
            load_timeout_s=self.load_timeout_s,
            keep_warm=frozenset(self.keep_warm),
            keep_alive_s=self.keep_alive.fixed_s,
            idle_bin_s=self.keep_alive.bin_s,
            keep_alive_of={name: one.keep_alive_s for name, one in models if one.keep_alive_s},
            isolation_of={name: one.isolation for name, one in models if one.isolation},
            variant_of={name: one.variant for name, one in models if one.variant},
        )

    def slots_on(self, cores: float) -> int:
        """How many runs go on at once: no more than cores, unless several machines are played."""
        return self.slots if self.min_service_s else min(self.slots, _whole(cores))

    def threads_on(self, cores: float) -> int:
        """How many cores a call gets, of those that there are."""
        return min(self.threads, _whole(cores))

    def staged(self) -> Iterator[str]:
        """Which times of this agent are a demonstration's, and not what the machine takes."""
        if self.min_service_s:
            yield f"staged: a call takes at least {self.min_service_s:g} s (min_service_s)"
        if self.min_load_s:
            yield f"staged: a load takes at least {self.min_load_s:g} s (min_load_s)"

    def sharing(self, cores: float) -> Sharing:
        """How calls share runs, on so many cores."""
        inline_s = INLINE_S if cores > 1 else ONE_CORE_INLINE_S
        return Sharing(self.max_batch, self.batches, inline_s)


def _whole(cores: float) -> int:
    return max(1, ceil(cores))


def check(path: Path) -> AgentConfig:
    """The configuration in a file.

    Raises:
        ConfigError: it cannot be used; the message names file, line, key and remedy.
    """
    return load_settings(path, AgentConfig)
