"""The configuration files of the local system, as its parts will read them."""

import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from isochrone.deploy.local.layout import (
    AGENTS,
    CLOUD,
    CLOUD_MODEL,
    EDGE_MODEL,
    EU_ONLY,
    MIN_LOAD_S,
    MIN_SERVICE_S,
    REGION_OF,
    ROUTERS,
    SLOTS,
    Layout,
)
from isochrone.deploy.local.ports import HOST

_QUEUE = 64
"""Requests that an agent lets wait: enough that a burst of a hundred is not refused."""
_REGIONS = {
    "eu-west": {
        "location": {"latitude": 53.3, "longitude": -6.3},
        "jurisdiction": "EU",
        "zones": ["dublin", "paris"],
    },
    "us-east": {
        "location": {"latitude": 38.9, "longitude": -77.4},
        "jurisdiction": "US",
        "zones": ["virginia"],
    },
}


def write_files(layout: Layout, packages: Path, log: Mapping[str, str]) -> None:
    """Every part's configuration, the law, the keys, and the packages that the agents hold.

    `packages` holds the model packages of both models; `log` is each part's `log`.
    """
    edge = layout.folder / "edge-packages"
    shutil.copytree(packages / EDGE_MODEL, edge / EDGE_MODEL)
    hashed = sha256(layout.key.encode()).hexdigest()
    (layout.folder / "keys.txt").write_text(f"{EU_ONLY} sha256:{hashed}\n")
    _write(layout.folder / "regions.yaml", _law())
    _write(layout.config("relays"), _relays(layout))
    for name in ROUTERS:
        _write(layout.config(name), _router(layout, name) | {"log": dict(log)})
    for name in AGENTS:
        _write(layout.config(name), _agent(layout, name, edge) | {"log": dict(log)})
    _write(layout.config(CLOUD), _cloud(layout, packages) | {"log": dict(log)})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _law() -> dict[str, Any]:
    return {
        "regions": _REGIONS,
        "networks": {
            "192.0.2.0/24": {"region": "eu-west", "country": "IE"},
            "198.51.100.0/24": {"region": "us-east", "country": "US"},
        },
        "tenants": {
            "default": {"require": "any"},
            EU_ONLY: {"require": ["EU"], "keys_file": "keys.txt"},
        },
        "models": {EDGE_MODEL: {}, CLOUD_MODEL: {}},
    }


def _relays(layout: Layout) -> dict[str, Any]:
    return {
        "log": layout.relay_log.name,
        "relays": [
            {
                "name": relay_name(router, endpoint),
                "listen": f"{HOST}:{port}",
                "target": f"{HOST}:{layout.ports[endpoint]}",
                "delay_s": ROUTERS[router].distance_s[endpoint],
            }
            for (router, endpoint), port in layout.relay_ports.items()
        ],
    }


def relay_name(router: str, endpoint: str) -> str:
    """What a relay is called in its log."""
    return f"{router}..{endpoint}"


def _router(layout: Layout, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "region": name,
        "listen": f"{HOST}:{layout.ports[name]}",
        "admin": {"listen": f"{HOST}:{layout.admin[name]}"},
        "regions_file": "regions.yaml",
        "state_file": f"{name}.state",
        "endpoints": [
            {
                "name": CLOUD,
                "url": _relayed(layout, name, CLOUD),
                "region": REGION_OF[CLOUD],
                "tier": "cloud",
                "hardware_class": "cpu",
                "slots": 4,
                "models": [EDGE_MODEL, CLOUD_MODEL],
            }
        ],
        "enrolment": {"allowed_networks": [f"{HOST}/32"]},
        "probe": {"interval_s": 0.25, "timeout_s": 1.0},
        "decisions": {"explain": "always"},
    }


def _relayed(layout: Layout, router: str, endpoint: str) -> str:
    return f"http://{HOST}:{layout.relay_ports[router, endpoint]}"


def _agent(layout: Layout, name: str, packages: Path) -> dict[str, Any]:
    place = AGENTS[name]
    return {
        "name": name,
        "region": place.region,
        "zone": place.zone,
        "hardware_class": "cpu",
        "listen": f"{HOST}:{layout.ports[name]}",
        "admin": {"listen": f"{HOST}:{layout.admin[name]}"},
        "packages": str(packages),
        "keep_warm": [EDGE_MODEL],
        "slots": SLOTS,
        "queue": _QUEUE,
        "min_service_s": MIN_SERVICE_S,
        "min_load_s": MIN_LOAD_S,
        "threads": 1,
        "routers": [
            {"url": layout.router_url(router), "advertise": _relayed(layout, router, name)}
            for router in ROUTERS
        ],
        "access_log": layout.access_log(name).name,
    }


def _cloud(layout: Layout, packages: Path) -> dict[str, Any]:
    return {
        "name": CLOUD,
        "region": REGION_OF[CLOUD],
        "hardware_class": "cpu",
        "listen": f"{HOST}:{layout.ports[CLOUD]}",
        "packages": str(packages),
        "models": [_cloud_model(EDGE_MODEL), _cloud_model(CLOUD_MODEL)],
        "ray": {"num_cpus": 4, "temp_dir": str(layout.ray_folder)},
    }


def _cloud_model(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "num_cpus": 0.5,
        "target_ongoing_requests": 4.0,
        "max_ongoing_requests": 8,
        "max_queued_requests": 256,
    }
