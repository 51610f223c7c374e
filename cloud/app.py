"""Where a cloud process begins: all is checked before Ray is started, or even imported."""

import os
import secrets
import signal
import socket
import sys
import tempfile
from pathlib import Path

from isochrone.cloud.catalogue import find_package
from isochrone.cloud.config import CloudConfig, check
from isochrone.cloud.environment import for_ray, inherited
from isochrone.cloud.scale import cpus_needed
from isochrone.router.errors import ConfigError

_TOKEN_BYTES = 32


def main(config_path: Path) -> int:
    """Become the process that runs the application of `config_path`, until it is told to stop.

    Ray reads its environment when it is imported, so this process is replaced by one that has the
    right one from its start; the process id stays.

    Raises:
        ConfigError: the file cannot be used, the port is in use, or Ray is too small.
        PackageError: a model has no usable package.
    """
    config = check(config_path)
    for model in config.models:
        find_package(config.packages, model.name, model.version)
    if config.ray.address is None:  # on a Ray of others, Serve's proxy may listen there already
        check_port(config)
    _check_size(config)
    folder = _folder(config)
    command = [sys.executable, "-P", "-m", "isochrone.cloud", str(config_path), *map(str, folder)]
    environment = for_ray(inherited(), _token_file(folder[0]) if folder else None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it stays so in the process that follows
    os.execve(sys.executable, command, environment)


def check_port(config: CloudConfig) -> None:
    """Nobody else listens where the HTTP proxy will.

    Raises:
        ConfigError: somebody does, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise ConfigError(
                f"listen: {config.listen} cannot be used ({error.strerror});"
                " stop what listens there, or choose another port"
            ) from error


def _check_size(config: CloudConfig) -> None:
    """Serve would wait without end for CPUs that are not there."""
    here = config.ray.num_cpus or os.cpu_count() or 1
    needed = cpus_needed(config)
    if config.ray.address is None and needed > here:
        raise ConfigError(
            f"models: their first replicas need {needed:g} CPUs with the ingress, Ray has {here};"
            " lower num_cpus or replicas_min, or raise ray.num_cpus"
        )


def _folder(config: CloudConfig) -> list[Path]:
    """The folder of a Ray of our own, made; none where we join another."""
    if config.ray.address is not None:
        return []
    if config.ray.temp_dir is None:
        return [Path(tempfile.mkdtemp(prefix="isochrone-"))]
    config.ray.temp_dir.mkdir(parents=True, exist_ok=True)
    return [config.ray.temp_dir.absolute()]


def _token_file(folder: Path) -> Path:
    """A token for this run, which only we can read."""
    path = folder / "auth_token"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(_TOKEN_BYTES))
    return path
