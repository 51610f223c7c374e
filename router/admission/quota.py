"""How often each tenant may ask: token buckets, and the exact time until the next token.

Written as the generic cell rate algorithm (ITU-T I.371): a bucket is one instant, at which it would
be full again; that is the same as counting tokens, with nothing to refill.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from isochrone.router.law.region_file import Rate

_HAIR_S = 1e-7
"""Instants that differ by less are one: sums of them err by about this much after a year."""


class Quotas:
    """A bucket for each tenant that has a quota; the others may ask as they like."""

    def __init__(self, rates: Mapping[str, Rate], share: float = 1.0) -> None:
        """`share` is the part of every quota that is this worker's: 1 over the workers.

        A bucket holds at least one token, however small the share.
        """
        self._buckets = {
            tenant: _bucket(rate.requests_per_s * share, max(1.0, rate.burst * share))
            for tenant, rate in rates.items()
        }

    def take(self, tenant: str, now_s: float) -> float:
        """Take a token: 0.0, or in how many seconds there will be one. Nothing is taken then."""
        bucket = self._buckets.get(tenant)
        if bucket is None:
            return 0.0
        due_s = bucket.full_s - bucket.depth_s
        if now_s < due_s - _HAIR_S:
            return due_s - now_s
        bucket.full_s = max(bucket.full_s, now_s) + bucket.token_s
        return 0.0


@dataclass(slots=True)
class _Bucket:
    """`depth_s`: what may be missing when a token is taken; `full_s`: when it is full again."""

    token_s: float
    depth_s: float
    full_s: float = -inf


def _bucket(per_s: float, burst: float) -> _Bucket:
    return _Bucket(1.0 / per_s, (burst - 1.0) / per_s)
