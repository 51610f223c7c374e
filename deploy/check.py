"""`isochrone check`: everything that is wrong in a configuration file, each with its place."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloud.config
import edge_agent.config
import router.app
from cloud.config import CloudConfig
from deploy.result import add_json_argument, tell
from edge_agent.config import AgentConfig
from router.config import RouterConfig
from router.errors import ConfigError
from router.policy.region_file import RegionFile
from router.policy.region_policy import RegionPolicy
from router.process.document import ConfigProblem, SettingsError, listed, read_document
from router.process.settings import Settings, load_settings
from router.simulate.scenario import Scenario

HELP = "say everything that is wrong in a configuration file"

_ROLES: dict[str, tuple[type[Settings], Callable[[Path], Any]]] = {
    "router": (RouterConfig, router.app.load),
    "agent": (AgentConfig, edge_agent.config.check),
    "cloud": (CloudConfig, cloud.config.check),
    "regions": (RegionFile, RegionPolicy.from_file),
    "scenario": (Scenario, partial(load_settings, kind=Scenario)),
}
"""What a file holds, and what reads it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file, and whose it is."""
    parser.add_argument("--config", type=Path, required=True, help="the file")
    parser.add_argument(
        "--role", choices=sorted(_ROLES), help="whose it is (else guessed from its keys)"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print `OK`, or every problem; 1 where there is one."""
    role = args.role
    try:
        role = role or guessed(args.config)
        _, read = _ROLES[role]
        read(args.config)
        problems: list[ConfigProblem] = []
    except SettingsError as error:
        problems = list(error.problems)
    except ConfigError as error:
        problems = [_unplaced(args.config, error)]
    result = {"schema": "isochrone.check/1", "ok": not problems, "role": role, "problems": problems}
    tell(args, result, map(str, problems) if problems else [f"{args.config}: OK ({role})"])
    return int(bool(problems))


def guessed(path: Path) -> str:
    """Whose file it is: theirs who know the most of its keys.

    Raises:
        ConfigError: it cannot be read, or may be of several.
    """
    data = read_document(path).data
    keys = set(data) if isinstance(data, dict) else set()
    known = {role: len(keys & set(kind.__struct_fields__)) for role, (kind, _) in _ROLES.items()}
    best = [role for role, count in known.items() if count == max(known.values()) > 0]
    if len(best) != 1:
        of = listed(sorted(best or _ROLES))
        raise ConfigError(f"{path}: whose file is this? Say --role {of}")
    return best[0]


def _unplaced(path: Path, error: ConfigError) -> ConfigProblem:
    """A problem between two files, which stands in no line of either."""
    message = error.message.removeprefix(f"{path}: ")
    return ConfigProblem(str(path), 1, 1, "", "invalid", message)
