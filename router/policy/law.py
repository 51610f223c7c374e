"""The law of one request: which endpoints it may go to at all.

A `Permit` is made here and nowhere else, for one request and one endpoint, and a request can only
be sent with one. So no later step (fallback, hedge, wake) can widen what the law allows.
"""

from router.fleet.endpoint import Candidate, Endpoint
from router.policy.query import Query

_SEAL = object()


class Permit:
    """Leave for one request to go to one endpoint."""

    __slots__ = ("endpoint", "request_id")

    def __init__(self, request_id: str, endpoint: Endpoint, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a permit is made by router.policy.law only")
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


def permit(query: Query, candidate: Candidate) -> Permit | str:
    """A permit, or why the law forbids this endpoint. An unknown region is not allowed."""
    endpoint = candidate.endpoint
    required = query.required_regions
    if required is not None and endpoint.region not in required:
        return f"region {endpoint.region} is outside {query.requirement}"
    return Permit(query.request_id, endpoint, _SEAL)
