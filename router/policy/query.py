"""What is asked, from where and under which law: all that a decision needs besides the fleet."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Query:
    """One request as the policy sees it.

    `required_regions` None: any region is lawful. `preferred` holds the seconds that a region is
    favoured by. `vantage` None: seconds are counted from this router (proxy mode); else it holds
    the round trip from the client to each region (direct mode). Instants are monotonic.
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
    preferred: Mapping[str, float] = field(default_factory=dict)
    priority: int = 5
    vantage: Mapping[str, float] | None = None
