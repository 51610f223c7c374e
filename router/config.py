"""The router's own configuration file, read once into frozen structs."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from isochrone.router.errors import BadRequest
from isochrone.router.http.listener import Limits
from isochrone.router.http.sockets import Address, Listen
from isochrone.router.process.access_log import DEFAULT_LOG_BYTES, LogBytes
from isochrone.router.process.log import LogConfig
from isochrone.router.process.settings import Settings
from isochrone.router.wire.report import Name
from isochrone.router.wire.url import parse_url

Interval = Annotated[float, msgspec.Meta(ge=0.05, le=60)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class AdminConfig(Settings, frozen=True):
    """The administration's own listener; it is not for clients."""

    listen: Address = "127.0.0.1:8081"


class ProbeConfig(Settings, frozen=True):
    """What is asked of endpoints beside the requests.

    Whoever was not heard of for `interval_s` is asked, and given up after `timeout_s`: two misses
    take an endpoint out. The best candidates are asked when what is known of them is older than
    `fresh_s`, up to `per_request` probes for each request. A model that nobody has used for
    `explore_s` runs its own sample (0: never), so that an old bad impression does not stay.
    """

    interval_s: Interval = 1.0
    timeout_s: Interval = 0.45
    fresh_s: Interval = 0.25
    per_request: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.25
    explore_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0


class EnrolmentConfig(Settings, frozen=True):
    """Who may join: agents whose address lies in one of these networks."""

    allowed_networks: tuple[str, ...] = ("127.0.0.0/8",)
    lease_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 15.0
    renew_s: Annotated[float, msgspec.Meta(ge=0.5, le=1200)] = 5.0

    def __post_init__(self) -> None:
        for text in self.allowed_networks:
            try:
                ip_network(text)
            except ValueError as error:
                raise ValueError(f"allowed_networks: {error}; write it as 10.0.0.0/8") from error
        if self.renew_s >= self.lease_s:
            raise ValueError("renew_s must be less than lease_s, so that a lease never runs out")


class RetryConfig(Settings, frozen=True):
    """How often another endpoint may be asked after one that may have done the work already.

    At most `share` of the requests of the last ten seconds, and `floor_per_slot_s` a second for
    each slot of the fleet. Asking others after a refusal or a full endpoint is free; asking the
    same ones again has a budget of its own.
    """

    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    floor_per_slot_s: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.5


class HedgeConfig(Settings, frozen=True):
    """Asking a second endpoint beside one that is late against its own prediction.

    At most `share` of the requests, each at full cost (0: never).
    """

    share: Annotated[float, msgspec.Meta(ge=0, le=0.1)] = 0.0


class QueueConfig(Settings, frozen=True):
    """Requests wait here while every endpoint that may serve them is full."""

    capacity: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1024


class ModelConfig(Settings, frozen=True):
    """A known model: may a call for it be made twice (inference may), and hedged."""

    repeatable: bool = True
    hedge: bool = True


class DecisionsConfig(Settings, frozen=True):
    """Whether every decision is explained in full, or only when a request asks for it."""

    explain: Literal["always", "asked"] = "asked"


class EndpointConfig(Settings, frozen=True):
    """An endpoint that does not enrol itself: a cloud ingress, or (`reports` false) any server of
    the Open Inference Protocol, of which only its readiness is asked.
    """

    name: Name
    url: str
    region: Name
    zone: str = ""
    tier: Literal["edge", "cloud"] = "cloud"
    hardware_class: str = "unknown"
    slots: Count = 1
    models: tuple[Name, ...] = ()
    reports: bool = True

    def __post_init__(self) -> None:
        if not self.reports and not self.models:
            raise ValueError("models must name what it holds, as it does not report that itself")
        try:
            parse_url(self.url)
        except BadRequest as error:
            raise ValueError(error.message) from error


class RouterLogConfig(LogConfig, frozen=True):
    """What the process says on standard error, and one line per request in `access` if named.

    A file that has reached `access_bytes` becomes `NAME.1`, and a new one is begun.
    """

    access: Path | None = None
    access_bytes: LogBytes = DEFAULT_LOG_BYTES


class RouterConfig(Settings, frozen=True):
    """`router.yaml`."""

    name: Name
    region: Name
    regions_file: Path
    zone: str = ""
    listen: Listen = "127.0.0.1:8080"
    admin: AdminConfig = AdminConfig()
    state_file: Path | None = None
    endpoints: tuple[EndpointConfig, ...] = ()
    enrolment: EnrolmentConfig = EnrolmentConfig()
    probe: ProbeConfig = ProbeConfig()
    limits: Limits = Limits()
    in_flight: Count = 4096
    retries: RetryConfig = RetryConfig()
    hedge: HedgeConfig = HedgeConfig()
    queue: QueueConfig = QueueConfig()
    models: dict[Name, ModelConfig] = msgspec.field(default_factory=dict)
    decisions: DecisionsConfig = DecisionsConfig()
    tries: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    drain_notice_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 20.0
    log: RouterLogConfig = RouterLogConfig()

    def __post_init__(self) -> None:
        names = [endpoint.name for endpoint in self.endpoints]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"endpoints: {twice} stands here twice; names must differ")
