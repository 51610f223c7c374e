"""The URL of an endpoint: `http://HOST:PORT`, and nothing that could mean something else."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from isochrone.router.errors import BadRequest

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where an endpoint says it listens; `host` is a name or the text of an address."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The URL of this address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def is_literal(self) -> bool:
        """The host is an address, so that nothing needs to be resolved."""
        return literal(self.host) is not None


def parse_url(url: str) -> HostPort:
    """Take `http://HOST:PORT` apart; nothing else is an endpoint's URL.

    Raises:
        BadRequest: another scheme, a user, a path or query, no port, or a host that is a disguised
            address (decimal, octal, hexadecimal).
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if (
        host is None
        or port is None
        or not _is_host(host)
        or url.rstrip("/") != HostPort(host, port).url
    ):
        raise BadRequest(f"url must be http://HOST:PORT and nothing more, not {url!r}")
    if literal(host) is None and not any(c.isalpha() for c in host.rpartition(".")[2]):
        raise BadRequest(f"url must not disguise an address: {url!r}")
    if host.startswith("0x"):
        raise BadRequest(f"url must not disguise an address: {url!r}")
    return HostPort(host, port)


def _is_host(host: str) -> bool:
    """An address without a zone, or a name that every resolver can look up (RFC 1123 §2.1)."""
    labels = host.rstrip(".").split(".")
    return "%" not in host and (
        ":" in host or (len(host) < 254 and all(_LABEL.fullmatch(label) for label in labels))
    )


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is; None where it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
