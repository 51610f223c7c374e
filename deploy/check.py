"""`isochrone check`: everything that is wrong in a configuration file, each with its place."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloud.config
import edge_agent.config
import router.app
from deploy.result import add_json_argument, tell
from router.errors import ConfigError
from router.policy.region_policy import RegionPolicy
from router.process.document import ConfigProblem, SettingsError, listed, read_document
from router.process.settings import load_settings
from router.simulate.scenario import Scenario

HELP = "say everything that is wrong in a configuration file"

_CHECKS: dict[str, Callable[[Path], Any]] = {
    "router": router.app.load,
    "agent": edge_agent.config.check,
    "cloud": cloud.config.check,
    "regions": RegionPolicy.from_file,
    "scenario": partial(load_settings, kind=Scenario),
}
_KEYS: dict[str, frozenset[str]] = {
    "router": frozenset({"regions_file", "endpoints", "enrolment", "probe", "state_file"}),
    "agent": frozenset({"keep_warm", "routers", "min_service_s", "slots", "queue"}),
    "cloud": frozenset({"ray", "models", "ingress_replicas"}),
    "regions": frozenset({"regions", "groups", "tenants", "rules", "networks", "data_classes"}),
    "scenario": frozenset({"places", "arrivals", "seconds", "warmup_s", "objective_s", "faults"}),
}
"""Keys that tell whose file it is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file, and whose it is."""
    parser.add_argument("--config", type=Path, required=True, help="the file")
    parser.add_argument(
        "--role", choices=sorted(_CHECKS), help="whose it is (else guessed from its keys)"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print `OK`, or every problem; 1 where there is one."""
    role = args.role
    try:
        role = role or guessed(args.config)
        _CHECKS[role](args.config)
        problems: list[ConfigProblem] = []
    except SettingsError as error:
        problems = list(error.problems)
    except ConfigError as error:
        problems = [_unplaced(args.config, error)]
    result = {"schema": "isochrone.check/1", "ok": not problems, "role": role, "problems": problems}
    tell(args, result, map(str, problems) if problems else [f"{args.config}: OK ({role})"])
    return int(bool(problems))


def guessed(path: Path) -> str:
    """Whose file it is, by its keys.

    Raises:
        ConfigError: it cannot be read, or does not say.
    """
    data = read_document(path).data
    keys = set(data) if isinstance(data, dict) else set()
    hits = {role: len(keys & own) for role, own in _KEYS.items()}
    best = max(hits, key=lambda role: hits[role])
    if not hits[best]:
        raise ConfigError(f"{path}: whose file is this? Say --role {listed(sorted(_CHECKS))}")
    return best


def _unplaced(path: Path, error: ConfigError) -> ConfigProblem:
    """A problem between two files, which stands in no line of either."""
    message = error.message.removeprefix(f"{path}: ")
    return ConfigProblem(str(path), 1, 1, "", "invalid", message)
