"""What Ray must find in its environment before it is first imported: it reads it only then."""

import os
from collections.abc import Mapping
from pathlib import Path

PYTHONPATH = "PYTHONPATH"


def inherited() -> Mapping[str, str]:
    """This process's environment."""
    return os.environ  # noqa: TID251  # Ray takes settings from nowhere else; this is where we read


def for_ray(before: Mapping[str, str], token_file: Path | None) -> dict[str, str]:
    """The environment of a process that uses Ray.

    With a token file every process of this Ray must know the token in it, and none writes one to
    the home directory; without one, the environment says already how to reach the Ray that runs.
    """
    ours = {
        "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anyone
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    if token_file is not None:
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}
        before = {name: value for name, value in before.items() if name not in _LEADS_ELSEWHERE}
    return {**before, **ours}


_LEADS_ELSEWHERE = frozenset({"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_SERVE_ENABLE_HA_PROXY"})
"""Another Ray, another token, and a proxy that listens on every address of the machine."""
