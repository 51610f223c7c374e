"""One place that can serve: an edge agent, or the cloud of one region."""

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """Where an endpoint sits."""

    EDGE = "edge"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An edge agent, or one region's cloud ingress."""

    name: str
    url: str
    region: str
    zone: str = ""
    tier: Tier = Tier.EDGE
    hardware_class: str = "unknown"
    reports: bool = True
