"""What a routing rule under test is: one object per router, told what a router would see.

Somebody else's rule is plugged in by writing these methods. A rule never sees a true round trip or
a queue that it was not told of; only references are given an oracle. Instants are virtual seconds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from isochrone.router.fleet.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a client, as it reaches its router."""

    number: int
    model: str
    client_region: str
    tenant: str
    required_regions: frozenset[str] | None
    priority: int
    body_bytes: int
    work: float
    asked_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Site:
    """What every router knows of an endpoint before it has measured anything."""

    name: str
    region: str
    slots: int
    hardware_class: str
    prior_rtt_s: float
    price: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer, or the answer to a probe, tells the router.

    `latency_s` is counted at the router, `wait_s` and `infer_s` at the endpoint (0 in a probe);
    `in_flight` counts what runs and waits there, `recent_s` is its recent service time at that.
    """

    latency_s: float
    wait_s: float
    infer_s: float
    in_flight: int
    slots: int
    recent_s: float


class Algorithm(Protocol):
    """One router's rule. Every `sent` is followed by exactly one `answered` or `failed`."""

    def choose(self, call: Call, sites: Sequence[Site], now_s: float) -> Site | None:
        """One of `sites`: those that the law allows and that this call has not tried yet.

        None: let it wait at the router until something changes.
        """
        ...

    def sent(self, call: Call, site: Site, now_s: float) -> None:
        """The call leaves for that endpoint."""
        ...

    def answered(self, call: Call, site: Site, reply: Reply, now_s: float) -> None:
        """The endpoint served it."""
        ...

    def failed(self, call: Call, site: Site, outcome: Outcome, now_s: float) -> None:
        """The endpoint did not: it refused, failed, was full or too late."""
        ...

    def due(self, call: Call, sites: Sequence[Site], now_s: float) -> Iterable[Site]:
        """Whom to probe, asked after every arrival."""
        ...

    def probed(self, site: Site, reply: Reply | None, now_s: float) -> None:
        """A probe came back, or (None) did not."""
        ...


class Oracle(Protocol):
    """The truth at this instant, for references only."""

    def rtt_s(self, site: Site) -> float:
        """The round trip from this router."""
        ...

    def backlog_s(self, site: Site) -> float:
        """The work that runs and waits there or is on its way, in slot-seconds."""
        ...

    def present(self, site: Site) -> int:
        """How many requests run and wait there."""
        ...

    def coming(self, site: Site) -> int:
        """How many requests are on their way there, from every router."""
        ...

    def service_s(self, call: Call, site: Site) -> float:
        """How long a call of this work is expected to hold a slot there, as things stand now."""
        ...

    def wait_s(self, call: Call, site: Site) -> float:
        """How long this call would wait for a slot there if it left now, with cold start.

        Infinite where it would get no answer.
        """
        ...

    def rate_s(self, site: Site) -> float:
        """How many requests per second were sent there in the last seconds, by everybody."""
        ...


Factory = Callable[[Sequence[Site], Random, Oracle], Algorithm]
"""Makes one router's rule from the endpoints that it knows at first.

An endpoint that joins later stands among the sites of a `choose` without further notice.
"""
