"""Ports on 127.0.0.1 that nobody listens on."""

import socket
from argparse import ArgumentTypeError
from collections.abc import Iterator
from random import Random, SystemRandom

from isochrone.router.errors import ConfigError

HOST = "127.0.0.1"
_HIGHEST = 65535
_RANGE = range(20_000, 30_000)
"""Below what systems hand out for outgoing connections, above what services are known for."""


def port(text: str) -> int:
    """A port on a command line; 0 stands for any.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) > _HIGHEST:
        raise ArgumentTypeError(f"{text!r} is no port: 1 to {_HIGHEST}, or 0 for any")
    return int(text)


def free_ports(count: int, rng: Random | None = None) -> list[int]:
    """`count` different ports that were free a moment ago.

    Raises:
        ConfigError: the machine has not that many.
    """
    found = [port for port, _ in zip(_free(rng or SystemRandom()), range(count), strict=False)]
    if len(found) < count:
        raise ConfigError(f"{HOST} has no {count} free ports between {_RANGE[0]} and {_RANGE[-1]}")
    return found


def is_free(port: int) -> bool:
    """Nobody listens there, and we may."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free(rng: Random) -> Iterator[int]:
    return (port for port in rng.sample(_RANGE, len(_RANGE)) if is_free(port))
