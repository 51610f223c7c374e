"""What is imported only where the configuration asks for it: boto3 alone takes 23 MB of memory."""

import asyncio
import importlib
from pathlib import Path
from typing import Any, Protocol

from isochrone.edge_agent.artefacts.settings import (
    ArtefactsConfig,
    FromDirectory,
    FromHttp,
    FromS3,
    SourceConfig,
)
from isochrone.edge_agent.artefacts.source import Source
from isochrone.router.errors import ConfigError

_SOURCES: dict[type[SourceConfig], str] = {
    FromDirectory: "isochrone.edge_agent.artefacts.directory",
    FromHttp: "isochrone.edge_agent.artefacts.http",
    FromS3: "isochrone.edge_agent.artefacts.s3",
}
_SIGNATURE = "isochrone.edge_agent.artefacts.signature"
_EXTRA = {"boto3": "s3", "botocore": "s3", "cryptography": "edge"}


class Trust(Protocol):
    """Refuses, by a PackageError, a manifest that no trusted key has signed."""

    def __call__(self, path: Path, manifest: bytes) -> None:
        """One that lies in a directory beside its signature."""
        ...

    def check(self, title: str, manifest: bytes, signature: bytes | None) -> None:
        """One that came with a signature, or with none."""
        ...


async def source_of(config: ArtefactsConfig) -> Source:
    """The configured source.

    Raises:
        ConfigError: none is configured, or what it needs is not there.
    """
    if config.source is None:
        raise ConfigError("nothing can be pulled: agent.yaml names no artefacts.source")
    return await asyncio.to_thread(_made, config.source, config.stall_s)  # boto3 takes 0.3 s


def trust_of(config: ArtefactsConfig) -> Trust | None:
    """Refuses what no trusted key has signed; None where no key is configured.

    Raises:
        ConfigError: a file of keys cannot be used.
    """
    if not config.trusted_keys and not config.trusted_key_files:
        return None
    made: Trust = _part(_SIGNATURE).make(config.trusted_keys, config.trusted_key_files)
    return made


def _made(config: SourceConfig, stall_s: float) -> Source:
    source: Source = _part(_SOURCES[type(config)]).make(config, stall_s)
    return source


def _part(module: str) -> Any:  # noqa: ANN401 - each has `make`, of its own configuration
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        extra = _EXTRA[missing]
        raise ConfigError(
            f"{missing} is not installed: pip install 'isochrone[{extra}]'"
        ) from error
