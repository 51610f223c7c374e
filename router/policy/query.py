"""What is asked, from where and under which law: all that a decision needs besides the fleet."""

from collections.abc import Mapping

import msgspec

from isochrone.router.geo.network import Vantage


class Query(msgspec.Struct, frozen=True):
    """One request as the policy sees it.

    `required_regions` None: any region is lawful. `preferred` holds the seconds that a region is
    favoured by. `vantage` None: seconds are counted from this router (proxy mode); else it tells
    the round trip from the client to each endpoint (direct mode). `repeatable` says that the call
    may be made twice, `explain` that somebody wants to know every candidate's seconds or reason.
    Instants are monotonic.
    """

    request_id: str
    model: str
    now_s: float
    deadline_s: float
    version: str | None = None
    action: str = "infer"
    tenant: str = "default"
    rule: str = ""
    required_regions: frozenset[str] | None = None
    requirement: str = "any"
    preferred: Mapping[str, float] = {}
    priority: int = 5
    body_bytes: int = 0
    repeatable: bool = True
    explain: bool = False
    vantage: Vantage | None = None
