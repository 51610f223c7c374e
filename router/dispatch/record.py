"""What became of one request: its plan, its tries, and how it ended."""

from dataclasses import dataclass, field

from router.policy.policy import Plan


@dataclass(frozen=True, slots=True)
class Tried:
    """One try on one endpoint. `why` says what sent it there, `outcome` how it ended."""

    endpoint: str
    why: str
    outcome: str
    seconds: float


@dataclass(slots=True)
class Record:
    """One request from decision to end; `status` 0: the client had gone. Instants are monotonic."""

    plan: Plan
    fleet_generation: int
    asked_s: float
    tried: list[Tried] = field(default_factory=list)
    status: int = 0
    code: str = ""
    seconds: float = 0.0
