"""The router's own configuration file, read once into frozen structs."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from router.errors import BadRequest
from router.process.listener import Limits
from router.process.log import LogConfig
from router.process.settings import Settings
from router.process.sockets import Address
from router.wire.report import Name
from router.wire.url import parse_url

Interval = Annotated[float, msgspec.Meta(ge=0.05, le=60)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class AdminConfig(Settings, frozen=True):
    """The administration's own listener; it is not for clients."""

    listen: Address = "127.0.0.1:8081"


class ProbeConfig(Settings, frozen=True):
    """How often each endpoint is asked how it is, and how long its answer may take."""

    interval_s: Interval = 1.0
    timeout_s: Interval = 1.0


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
    """What the process says on standard error, and one line per request in `access` if named."""

    access: Path | None = None


class RouterConfig(Settings, frozen=True):
    """`router.yaml`."""

    name: Name
    region: Name
    regions_file: Path
    zone: str = ""
    listen: Address = "127.0.0.1:8080"
    admin: AdminConfig = AdminConfig()
    state_file: Path | None = None
    endpoints: tuple[EndpointConfig, ...] = ()
    enrolment: EnrolmentConfig = EnrolmentConfig()
    probe: ProbeConfig = ProbeConfig()
    limits: Limits = Limits()
    in_flight: Count = 4096
    tries: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    drain_notice_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 20.0
    log: RouterLogConfig = RouterLogConfig()

    def __post_init__(self) -> None:
        names = [endpoint.name for endpoint in self.endpoints]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"endpoints: {twice} stands here twice; names must differ")
