"""The law of one request: which endpoints it may go to at all.

A `Permit` is made here and nowhere else, for one request and one endpoint, and a request can only
be sent with one. So no later step (fallback, hedge, wake) can widen what the law allows.
"""

from typing import Protocol

from isochrone.router.fleet.candidate import Candidate
from isochrone.router.members.endpoint import Endpoint

_SEAL = object()


class Lawful(Protocol):
    """What the law needs of a request. `required_regions` None: any region is lawful."""

    @property
    def request_id(self) -> str: ...
    @property
    def required_regions(self) -> frozenset[str] | None: ...
    @property
    def requirement(self) -> str: ...


class Permit:
    """Leave for one request to go to one endpoint."""

    __slots__ = ("endpoint", "request_id")

    def __init__(self, request_id: str, endpoint: Endpoint, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a permit is made by router.law only")
        self.request_id = request_id
        self.endpoint = endpoint

    def __repr__(self) -> str:
        return f"Permit({self.request_id} -> {self.endpoint.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Permit) and (self.request_id, self.endpoint) == (
            other.request_id,
            other.endpoint,
        )

    def __hash__(self) -> int:
        return hash((self.request_id, self.endpoint))


def permit(query: Lawful, candidate: Candidate) -> Permit | str:
    """A permit, or why the law forbids this endpoint. An unknown region is not allowed."""
    endpoint = candidate.endpoint
    required = query.required_regions
    if required is not None and endpoint.region not in required:
        return f"region {endpoint.region} is outside {query.requirement}"
    return Permit(query.request_id, endpoint, _SEAL)
