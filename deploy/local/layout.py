"""What stands where on this one machine: names, ports and distances."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isochrone.deploy.local.ports import HOST, free_ports, is_free
from isochrone.router.errors import ConfigError

CLOUD = "cloud-us-east"
EU_ONLY = "clinic"
"""The tenant whose data must stay in the EU."""
SLOTS = 4
MIN_SERVICE_S = 0.04
"""An agent holds a slot for at least this long, so that one machine can play several."""
MIN_LOAD_S = 3.0
"""And takes at least this long to load a model: `digits` alone would take a few milliseconds."""
CAPACITY_PER_S = SLOTS / MIN_SERVICE_S
"""What one agent can answer."""
EDGE_MODEL = "digits"
CLOUD_MODEL = "digits-large"


@dataclass(frozen=True, slots=True)
class RouterPlace:
    """A router, and how far each endpoint is from it: seconds, one way."""

    name: str
    distance_s: Mapping[str, float]

    @property
    def nearest(self) -> str:
        """The agent that is nearest to it."""
        return min(AGENTS, key=lambda name: self.distance_s[name])


@dataclass(frozen=True, slots=True)
class AgentPlace:
    """An edge agent's region, and its zone within."""

    region: str
    zone: str


AGENTS = {
    "eu-west-1": AgentPlace("eu-west", "dublin"),
    "eu-west-2": AgentPlace("eu-west", "paris"),
    "us-east-1": AgentPlace("us-east", "virginia"),
}
ROUTERS = {
    "eu-west": RouterPlace(
        "eu-west", {"eu-west-1": 0.002, "eu-west-2": 0.014, "us-east-1": 0.040, CLOUD: 0.050}
    ),
    "us-east": RouterPlace(
        "us-east", {"eu-west-1": 0.040, "eu-west-2": 0.046, "us-east-1": 0.002, CLOUD: 0.030}
    ),
}
REGION_OF = {**{name: place.region for name, place in AGENTS.items()}, CLOUD: "us-east"}
"""The region of every endpoint."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One run's folder and ports; `ports` are by part, `admin` those of the second listeners."""

    folder: Path
    ray_folder: Path
    """Where Ray keeps its logs and sockets."""
    ports: Mapping[str, int]
    admin: Mapping[str, int]
    relay_ports: Mapping[tuple[str, str], int]
    key: str
    """The EU-only tenant's API key."""

    def router_url(self, name: str) -> str:
        """Where clients reach a router."""
        return f"http://{HOST}:{self.ports[name]}"

    def admin_url(self, name: str) -> str:
        """Where operators reach a router or an agent."""
        return f"http://{HOST}:{self.admin[name]}"

    def config(self, part: str) -> Path:
        """The configuration file of a part."""
        return self.folder / f"{part}.yaml"

    def access_log(self, agent: str) -> Path:
        """One JSON line per request that this agent answered."""
        return self.folder / f"{agent}.access.jsonl"

    @property
    def relay_log(self) -> Path:
        """One JSON line per request that passed a relay."""
        return self.folder / "relays.access.jsonl"


def lay_out(folder: Path, ray_folder: Path, *, router_port: int = 0, admin_port: int = 0) -> Layout:
    """Ports for every part; the first router gets those that are asked for (0: any)."""
    first = next(iter(ROUTERS))
    pairs = [(router, endpoint) for router in ROUTERS for endpoint in REGION_OF]
    parts = [*ROUTERS, *AGENTS]
    asked = {router_port, admin_port}
    free = free_ports(2 * len(parts) + 1 + len(pairs) + len(asked))
    pool = (port for port in free if port not in asked)
    ports = {name: next(pool) for name in [*parts, CLOUD]}
    admin = {name: next(pool) for name in parts}
    return Layout(
        folder,
        ray_folder,
        ports | ({first: router_port} if router_port else {}),
        admin | ({first: admin_port} if admin_port else {}),
        {pair: next(pool) for pair in pairs},
        key=secrets.token_urlsafe(24),
    )


def check_free(*ports: int) -> None:
    """Nobody listens on these ports (0 stands for any).

    Raises:
        ConfigError: somebody does.
    """
    for port in ports:
        if port and not is_free(port):
            raise ConfigError(
                f"{HOST}:{port} is in use: stop what listens there (another isochrone up?),"
                " or choose other ports with --router-port and --admin-port"
            )
