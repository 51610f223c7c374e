"""What Ray must find in its environment before it is first imported: it reads it only then."""

import os
from collections.abc import Mapping
from pathlib import Path

from isochrone.cloud.config import MESSAGE_BYTES

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Nothing is told to anyone."""
_FAST = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
"""Nothing of ours blocks an event loop, so each replica needs one only: half the time per call."""
_MESSAGES = {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MESSAGE_BYTES)}
"""What goes to a replica and comes from it is a gRPC message, by default of at most 4 MiB."""
_LEADS_ELSEWHERE = frozenset(
    {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED"}
)
"""To another Ray, another token, and proxies that listen on every address of the machine."""


def inherited() -> Mapping[str, str]:
    """This process's environment."""
    return os.environ  # noqa: TID251  # Ray takes settings from nowhere else; this is where we read


def for_ray(before: Mapping[str, str], token_file: Path | None) -> dict[str, str]:
    """The environment of a process that uses Ray.

    With a token file, every process of this Ray must know the token in it, and none writes one to
    the home directory; without one, `before` says already how to reach the Ray that runs.
    """
    if token_file is None:
        return {**before, **_QUIET}
    kept = {name: value for name, value in before.items() if name not in _LEADS_ELSEWHERE}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}
    return {**_FAST, **_MESSAGES, **kept, **_QUIET, **token}
