"""`cloud.yaml`: one region's Serve application, read once into frozen structs, without Ray."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from isochrone.router.http.sockets import Address
from isochrone.router.process.log import LogConfig
from isochrone.router.process.settings import Settings, load_settings
from isochrone.router.wire.headers import MAX_TIMEOUT_S
from isochrone.router.wire.report import Name

Replicas = Annotated[int, Meta(ge=0, le=1000)]
Ongoing = Annotated[int, Meta(ge=1, le=1000)]
Delay = Annotated[float, Meta(ge=0, le=86400)]
MESSAGE_BYTES = (1 << 31) - 1
"""The most that gRPC carries in one message."""
_MAX_BODY_BYTES = MESSAGE_BYTES - (1 << 20)
_MAX_TEMP_DIR = 40
"""Ray makes sockets some 65 characters below its folder; the system's bound is 107."""


class ModelConfig(Settings, frozen=True, kw_only=True):
    """One model, how many replicas answer for it, and how much each takes at once.

    Without `version`, the newest package counts. Between `replicas_min` and `replicas_max`, Serve
    aims at `target_ongoing_requests` in each replica; what is over `max_ongoing_requests` waits,
    and what is over `max_queued_requests` is refused. A replica with a run that goes on for longer
    than `longest_run_s` is replaced; no caller waits longer than the default. `num_cpus` and
    `num_gpus` are what Ray sets aside for one replica, parts of one included.
    """

    name: Name
    version: Name | None = None
    replicas_min: Replicas = 1
    replicas_max: Annotated[int, Meta(ge=1, le=1000)] = 1
    target_ongoing_requests: Annotated[float, Meta(gt=0, le=1000)] = 2.0
    max_ongoing_requests: Ongoing = 5
    max_queued_requests: Annotated[int, Meta(ge=0, le=100_000)] = 64
    longest_run_s: Annotated[float, Meta(gt=0, le=86400)] = MAX_TIMEOUT_S
    num_cpus: Annotated[float, Meta(ge=0, le=1024)] = 1.0
    num_gpus: Annotated[float, Meta(ge=0, le=64)] = 0.0
    upscale_delay_s: Delay = 5.0
    downscale_delay_s: Delay = 300.0

    def __post_init__(self) -> None:
        if self.replicas_min > self.replicas_max:
            raise ValueError("replicas_min must not be more than replicas_max")
        if self.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError(
                "target_ongoing_requests must not be more than max_ongoing_requests,"
                " or the replicas are full before Serve adds one"
            )


class RayConfig(Settings, frozen=True, kw_only=True):
    """Where Ray is: `address` null starts it for this process alone, `auto` finds one here.

    What follows `address` holds for a Ray of our own. Its logs and sockets are in `temp_dir`;
    without one they are in a new folder, which goes when the process does.
    """

    address: Annotated[str, Meta(min_length=1)] | None = None
    num_cpus: Annotated[int, Meta(ge=1, le=4096)] | None = None
    object_store_bytes: Annotated[int, Meta(ge=80 << 20, le=1 << 40)] = 256 << 20
    temp_dir: Path | None = None

    def __post_init__(self) -> None:
        if self.temp_dir is not None and len(str(self.temp_dir)) > _MAX_TEMP_DIR:
            raise ValueError(
                f"temp_dir must be a path of at most {_MAX_TEMP_DIR} characters,"
                " because Ray makes Unix sockets below it"
            )


class CloudConfig(Settings, frozen=True, kw_only=True):
    """Everything that one region's application is told."""

    name: Name
    region: Name
    zone: Annotated[str, Meta(max_length=63)] = ""
    hardware_class: Name = "unknown"
    listen: Address = "127.0.0.1:8000"
    packages: Path
    models: Annotated[tuple[ModelConfig, ...], Meta(min_length=1)]
    ingress_replicas: Annotated[int, Meta(ge=1, le=100)] = 1
    body_bytes: Annotated[int, Meta(ge=1024, le=_MAX_BODY_BYTES)] = 64 << 20
    drain_s: Annotated[float, Meta(ge=0, le=3600)] = 20.0
    ray: RayConfig = RayConfig()
    log: LogConfig = LogConfig()

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"models: {twice} stands here twice; names must differ")

    @property
    def host(self) -> str:
        """Where the HTTP proxy listens."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The HTTP proxy's port."""
        return int(self.listen.rpartition(":")[2])


def check(path: Path) -> CloudConfig:
    """The configuration in a file.

    Raises:
        ConfigError: it cannot be used; the message names file, line, key and remedy.
    """
    return load_settings(path, CloudConfig)


def as_arguments(config: CloudConfig) -> dict[str, Any]:
    """A configuration as plain data, paths absolute: it travels inside Serve's own files."""
    arguments: dict[str, Any] = msgspec.to_builtins(config, enc_hook=_path_as_text)
    return arguments


def from_arguments(arguments: dict[str, Any]) -> CloudConfig:
    """What `as_arguments` wrote.

    Raises:
        msgspec.ValidationError: somebody has changed it since.
    """
    return msgspec.convert(arguments, CloudConfig, dec_hook=lambda _kind, text: Path(text))


def _path_as_text(value: object) -> str:
    if not isinstance(value, Path):
        raise NotImplementedError(f"{type(value).__name__} cannot stand in a configuration file")
    return str(value.absolute())
