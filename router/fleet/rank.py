"""The rank of a candidate, in seconds: requests go where it is least. Every rank is computed here.

The rank of a warm candidate is a straight line over the length of the body, plus the price of its
load. The ledger keeps the line (`Holding.base_s`, `rank_byte_s`) and the price
(`Occupancy.congestion_s`), so that `kept` reads three numbers for each candidate; `warm_s` works
the same sum out from the estimates, in the same order, so that both give the same float.
"""

from collections.abc import Sequence

from isochrone.router.fleet.candidate import Candidate
from isochrone.router.fleet.congestion import price


def line(candidate: Candidate) -> tuple[float, float]:
    """Seconds of a request without a body in a free slot, and the seconds of each byte."""
    slope_s = candidate.service_byte_s
    base_s = candidate.net_s + candidate.service_s - slope_s * candidate.mean_bytes
    return base_s, candidate.byte_s + slope_s


def congestion_s(candidate: Candidate) -> float:
    """What one more request costs there beside its own service: convex in the load."""
    return candidate.turn_s * price(candidate.expected, candidate.slots)


def warm_s(candidate: Candidate, body_bytes: int) -> float:
    """The rank as if the model were warm there, from the candidate's estimates."""
    base_s, byte_s = line(candidate)
    return base_s + congestion_s(candidate) + byte_s * body_bytes


def kept(candidates: Sequence[Candidate], body_bytes: int) -> list[float]:
    """The same of each, from what the ledger keeps; infinite for one that is full or not usual."""
    return [c.base_s + c.occupancy.congestion_s + c.rank_byte_s * body_bytes for c in candidates]
