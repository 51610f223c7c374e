"""The same application as a Serve configuration file, for `serve deploy` on a cluster that runs."""

from pathlib import Path
from typing import Any

import yaml

from isochrone.cloud.config import CloudConfig, as_arguments, check

IMPORT_PATH = "isochrone.cloud.application:build"


def logging_config(config: CloudConfig) -> dict[str, Any]:
    """Serve's own words for how the replicas log."""
    return {
        "encoding": "JSON" if config.log.format == "json" else "TEXT",
        "log_level": config.log.level.upper(),
        "enable_access_log": True,
    }


def serve_config(config: CloudConfig) -> dict[str, Any]:
    """What `serve deploy` takes; the packages must be at the same path on the cluster's nodes."""
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": config.host, "port": config.port},
        "logging_config": logging_config(config),
        "applications": [
            {
                "name": config.name,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": as_arguments(config),
            }
        ],
    }


def write_serve_file(config_path: Path, out: Path) -> None:
    """Write what `serve deploy` takes for a `cloud.yaml`.

    Raises:
        ConfigError: the file cannot be used.
    """
    out.write_text(yaml.safe_dump(serve_config(check(config_path)), sort_keys=False))
