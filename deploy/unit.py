"""`isochrone unit`: a hardened systemd service for an agent, with this installation's paths."""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from isochrone.edge_agent.config import AgentConfig, check
from isochrone.router.errors import ConfigError

HELP = "print a hardened systemd service for an edge agent"
TEMPLATE = Path(__file__).parent / "systemd" / "isochrone-agent.service"
_STOP_MORE_S = 15
"""After the drain: for leaving the routers and closing files."""
_WRITABLE = ("/var/lib/isochrone", "/var/log/isochrone")
"""What the service owns; see its StateDirectory and LogsDirectory."""
_HOMES = ("/home", "/root", "/run/user")
_MARK = re.compile(r"@([a-z_]+)@")
_MEMORY = re.compile(r"[0-9]+[KMGT]?|[0-9]{1,3}%")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose service, and how much memory it may take."""
    parser.add_argument("--config", type=Path, required=True, help="its agent.yaml")
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        default="80%",
        help="more than this it never gets: 512M, or a share of the machine's (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Print it, and on standard error what its agent could not do."""
    sys.stdout.write(rendered(args.config, args.memory))
    for line in shortcomings(check(args.config)):
        print(f"isochrone: {line}", file=sys.stderr)
    return 0


def shortcomings(config: AgentConfig) -> list[str]:
    """What the service may not write although its agent would."""
    places = {
        "packages": (config.packages, "it serves from there, but cannot pull, update or roll back"),
        "access_log": (config.access_log, "it cannot write its log"),
        "state_file": (config.state_file, "it cannot keep what routers must hear of"),
    }
    return [
        f"{key}: {path} is not in {_WRITABLE[key == 'access_log']}, and the service may write"
        f" only there: {loss}"
        for key, (path, loss) in places.items()
        if path is not None and not any(map(path.resolve().is_relative_to, _WRITABLE))
    ]


def rendered(path: Path, memory: str, python: str = sys.executable) -> str:
    """The unit of the agent with this configuration.

    Raises:
        ConfigError: the configuration cannot be used, or a path cannot stand in a unit.
    """
    config = check(path)
    if not _MEMORY.fullmatch(memory):
        raise ConfigError(f"--memory {memory!r}: write a size as 512M, or a share as 80%")
    words = [python, "-m", "isochrone.edge_agent", str(path.resolve())]
    values = {
        "command": " ".join(map(_word, words)),
        "stop_s": f"{config.drain_s + _STOP_MORE_S:.0f}",
        "memory": memory,
        "home": "read-only" if _needs_home(config, path, python) else "yes",
    }
    return _filled(TEMPLATE.read_text(), values)


def _filled(template: str, values: Mapping[str, str]) -> str:
    return _MARK.sub(lambda mark: values[mark[1]], template)


def _word(text: str) -> str:
    """One word of a command line as systemd reads it.

    Raises:
        ConfigError: no quoting lets it stand there.
    """
    if any(character < " " for character in text):
        raise ConfigError(f"{text!r} cannot stand in a unit; move it to a plainer path")
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if re.search(r"[^\w./:@%+,=-]", plain) else plain


def _needs_home(config: AgentConfig, path: Path, python: str) -> bool:
    """Does anything that it reads lie in somebody's home?"""
    read = [path.resolve(), config.packages.resolve(), Path(python), Path(python).resolve()]
    return any(found.is_relative_to(home) for found in read for home in _HOMES)
