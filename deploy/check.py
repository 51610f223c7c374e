"""`isochrone check`: everything that is wrong in a configuration file, each with its place."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec import inspect

from isochrone.cloud.config import CloudConfig
from isochrone.deploy.doctor import unknown_variants
from isochrone.deploy.result import add_json_argument, tell
from isochrone.edge_agent.artefacts.parts import trust_of
from isochrone.edge_agent.config import AgentConfig
from isochrone.edge_agent.guard import guard_of
from isochrone.edge_agent.runtime.package.package import packages_in
from isochrone.router.app import problems_in as router_problems
from isochrone.router.config import RouterConfig
from isochrone.router.errors import ConfigError
from isochrone.router.law.region_file import RegionFile
from isochrone.router.law.region_policy import region_problems
from isochrone.router.process.document import ConfigProblem, SettingsError, listed, read_document
from isochrone.router.process.settings import Settings, problems_in, readable_part
from isochrone.router.process.shape import differences
from isochrone.router.simulate.scenario import Scenario

HELP = "say everything that is wrong in a configuration file"

WithPackages = TypeVar("WithPackages", AgentConfig, CloudConfig)


def _agent_problems(path: Path) -> Iterator[ConfigProblem]:
    yield from _packages_problems(path, AgentConfig)
    config = readable_part(read_document(path), AgentConfig)
    if config is None:
        return
    if config.packages.is_dir():
        document = read_document(path)
        for name, text in unknown_variants(config, packages_in(config.packages)[0]).items():
            yield document.problem(("models", name, "variant"), text)
    for read in (
        lambda: guard_of(config.admin.token_file),
        lambda: trust_of(config.artefacts),
    ):
        try:
            read()
        except ConfigError as error:
            yield _unplaced(path, error)


def _packages_problems(path: Path, kind: type[WithPackages]) -> Iterator[ConfigProblem]:
    yield from problems_in(path, kind)
    document = read_document(path)
    config = readable_part(document, kind)
    if config is not None and not config.packages.is_dir():
        text = f"{config.packages} is no directory"
        remedy = "make it, and put packages there (isochrone package build)"
        yield document.problem(("packages",), text, code="missing_folder", suggestion=remedy)


_ROLES: dict[str, tuple[type[Settings], Callable[[Path], Iterable[ConfigProblem]]]] = {
    "router": (RouterConfig, router_problems),
    "agent": (AgentConfig, _agent_problems),
    "cloud": (CloudConfig, partial(_packages_problems, kind=CloudConfig)),
    "regions": (RegionFile, region_problems),
    "scenario": (Scenario, partial(problems_in, kind=Scenario)),
}
"""What a file holds, and what finds everything that is wrong in one."""


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
        _, problems_of = _ROLES[role]
        problems = list(problems_of(args.config))
    except SettingsError as error:
        problems = list(error.problems)
    except ConfigError as error:
        problems = [_unplaced(args.config, error)]
    result = {"schema": "isochrone.check/1", "ok": not problems, "role": role, "problems": problems}
    tell(args, result, map(str, problems) if problems else [f"{args.config}: OK ({role})"])
    return int(bool(problems))


def guessed(path: Path) -> str:
    """Whose file it is: the role that knows the most of its keys and finds the least wrong.

    Raises:
        ConfigError: it cannot be read, or may be of several.
    """
    data = read_document(path).data
    keys = set(data) if isinstance(data, dict) else set()
    fits: dict[str, tuple[int, int]] = {}
    for role, (kind, _) in _ROLES.items():
        known = len(keys & set(kind.__struct_fields__))
        fits[role] = (known, -sum(1 for _ in differences(inspect.type_info(kind), data)))
    best = [role for role, fit in fits.items() if fit == max(fits.values()) and fit[0]]
    if len(best) != 1:
        of = listed(sorted(best or _ROLES))
        raise ConfigError(f"{path}: whose file is this? Say --role {of}")
    return best[0]


def _unplaced(path: Path, error: ConfigError) -> ConfigProblem:
    """A problem between two files, which stands in no line of either."""
    message = error.message.removeprefix(f"{path}: ")
    return ConfigProblem(str(path), 1, 1, "", "invalid", message)
