"""The limit of open files of this process, and the errors that show it is reached."""

import errno
import logging
import socket
import sys
from contextlib import suppress

from msgspec.structs import replace

from isochrone.router.http.limits import Limits
from isochrone.router.process import log

if sys.platform != "win32":
    import resource

_MOST = 1 << 20
RESERVE = 64
"""Descriptors for everything except connections: files, listeners, probes."""
_RESERVE_SHARE = 0.25
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
_RESOLVERS = frozenset({socket.EAI_MEMORY, socket.EAI_SYSTEM})
_log = logging.getLogger("isochrone.descriptors")


def is_local(error: OSError) -> bool:
    """The error is a lack of resources on this machine; it says nothing about the peer."""
    if isinstance(error, socket.gaierror):
        return error.errno in _RESOLVERS
    return error.errno in _OURS


def raised_limit() -> int | None:
    """Raise the limit of open files as far as allowed; returns it, None where unknown."""
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems allow less than the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else soft


def fitted(limits: Limits, limit: int | None, *, for_each: int) -> Limits:
    """Limits with as many `connections` as open files allow, at `for_each` descriptors each.

    The log says if that is less than configured.
    """
    if limit is None:
        return limits
    reserve = min(RESERVE, int(_RESERVE_SHARE * limit))
    most = max(1, (limit - reserve) // for_each)
    if limits.connections <= most:
        return limits
    fields = {"configured": limits.connections, "connections": most, "open_files": limit}
    remedy = "raise the limit of open files (LimitNOFILE, ulimit -n)"
    log.event(_log, "connections_clamped", level=logging.WARNING, remedy=remedy, **fields)
    return replace(limits, connections=most)
