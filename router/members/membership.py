"""Who has joined: leases on a monotonic clock, and a feed of changes that ledgers follow."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from isochrone.router.errors import BadRequest, Forbidden
from isochrone.router.members.endpoint import Endpoint, Tier
from isochrone.router.wire.report import Enrolment, HeldModel, Lease

KNOWN_FOR_S = 24 * 3600.0
_TOMBSTONES = 10_000


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint that has joined; `expires_s` None: it stands in the configuration.

    `asked_url` is where it asked to be reached; its endpoint has the address that was found there.
    `predecessor` is the instance that had its name before.
    """

    endpoint: Endpoint
    slots: int
    models: tuple[HeldModel, ...]
    instance: str = ""
    sequence: int = 0
    expires_s: float | None = None
    asked_url: str = ""
    predecessor: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A member as it is since `generation`; None: it has left."""

    generation: int
    name: str
    member: Member | None


class Membership:
    """The single place where endpoints join and leave. Holds no liveness and does no I/O."""

    def __init__(self, configured: Iterable[Member], regions: Iterable[str], lease: Lease) -> None:
        self.generation = 0
        self._regions = frozenset(regions)
        self._lease = lease
        self._changes: dict[str, Change] = {}
        self._gone: dict[str, None] = {}
        self._known: dict[str, float] = {}
        for member in configured:
            self._record(member.endpoint.name, member)

    def enrol(self, enrolment: Enrolment, url: str, now_s: float) -> Lease:
        """Join, or renew; `url` is the address that was checked and pinned.

        Raises:
            BadRequest: the region or tier is unknown, or the sequence has not grown.
            Forbidden: the name belongs to a configured endpoint or to another live agent.
        """
        self._check(enrolment, url, now_s)
        endpoint = Endpoint(
            name=enrolment.name,
            url=url,
            region=enrolment.region,
            zone=enrolment.zone,
            tier=Tier(enrolment.tier),
            hardware_class=enrolment.hardware_class,
        )
        member = Member(
            endpoint=endpoint,
            slots=enrolment.slots,
            models=enrolment.models,
            instance=enrolment.instance,
            sequence=enrolment.sequence,
            expires_s=now_s + self._lease.lease_s,
            asked_url=enrolment.url,
            predecessor=self._predecessor(enrolment),
        )
        self._record(enrolment.name, member)
        self.remember((model.name for model in enrolment.models), now_s)
        return self._lease

    def leave(self, name: str, instance: str | None = None) -> bool:
        """An agent leaves; False where no agent of that name, or of that instance, is enrolled.

        Without an instance (an operator, or an agent of an older version) the name is enough.
        """
        member = self.get(name)
        if member is None or member.expires_s is None:
            return False
        if instance is not None and member.instance != instance:
            return False
        self._record(name, None)
        return True

    def expire(self, now_s: float) -> list[str]:
        """Take out whoever has not renewed, and forget models not heard of for a day."""
        gone = [
            change.name
            for change in self._changes.values()
            if change.member and change.member.expires_s is not None
            if change.member.expires_s <= now_s
        ]
        for name in gone:
            self._record(name, None)
        self._known = {m: at for m, at in self._known.items() if now_s - at < KNOWN_FOR_S}
        return gone

    def remember(self, models: Iterable[str], seen_s: float) -> None:
        """These models are known from `seen_s` on for a day."""
        for model in models:
            self._known[model] = max(seen_s, self._known.get(model, seen_s))

    def knows(self, model: str) -> bool:
        """Some enrolment of the last day named this model."""
        return model in self._known

    def known(self) -> list[str]:
        """The models that enrolments of the last day named."""
        return sorted(self._known)

    def get(self, name: str) -> Member | None:
        """The member of that name."""
        change = self._changes.get(name)
        return change.member if change else None

    def since(self, generation: int) -> Sequence[Change]:
        """What has changed after `generation`, oldest first."""
        newest_first = reversed(self._changes.values())
        return list(takewhile(lambda change: change.generation > generation, newest_first))[::-1]

    def _record(self, name: str, member: Member | None) -> None:
        self.generation += 1
        self._changes.pop(name, None)  # so that the newest stands last
        self._changes[name] = Change(self.generation, name, member)
        self._gone.pop(name, None)
        if member is None:
            self._gone[name] = None
        if len(self._gone) > _TOMBSTONES:
            oldest = next(iter(self._gone))
            del self._gone[oldest], self._changes[oldest]

    def _predecessor(self, enrolment: Enrolment) -> str:
        present = self.get(enrolment.name)
        if present is None:
            return ""
        renews = present.instance == enrolment.instance
        return present.predecessor if renews else present.instance

    def _check(self, enrolment: Enrolment, url: str, now_s: float) -> None:
        if enrolment.region not in self._regions:
            known = ", ".join(sorted(self._regions))
            raise BadRequest(f"region {enrolment.region} is unknown here; known: {known}")
        if enrolment.tier not in {tier.value for tier in Tier}:
            raise BadRequest(f"tier must be edge or cloud, not {enrolment.tier!r}")
        present = self.get(enrolment.name)
        if present is None:
            return
        if present.expires_s is None:
            raise Forbidden(f"{enrolment.name} is the name of a configured endpoint")
        alive = present.expires_s > now_s
        if alive and present.endpoint.region != enrolment.region:
            raise Forbidden(
                f"{enrolment.name} is enrolled in another region; let its lease run out"
            )
        if present.instance == enrolment.instance:
            if enrolment.sequence <= present.sequence:
                raise BadRequest(f"sequence {enrolment.sequence} is not newer than the last one")
        elif enrolment.instance == present.predecessor:
            raise Forbidden(f"{enrolment.name} has been enrolled by a newer instance since")
        elif alive and present.endpoint.url != url:
            raise Forbidden(f"{enrolment.name} is enrolled from another address; choose a new name")
