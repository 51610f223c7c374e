"""What every scene of the demo needs, and what a scene leaves behind."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from isochrone.deploy.demo.evidence import Evidence
from isochrone.deploy.demo.load import Answer, Call, Client, quantile
from isochrone.deploy.local.system import System


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold, in words with its numbers, and whether it does."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene that was played. `served` says by request id who answered; `refusals` are meant."""

    name: str
    answers: Sequence[Answer]
    served: Mapping[str, Sequence[str]]
    checks: Sequence[Check]
    refusals: Sequence[Answer] = ()
    outside_region: int = 0
    loads: int = 0

    @property
    def ok(self) -> bool:
        """Every check holds."""
        return all(check.holds for check in self.checks)

    @property
    def failed(self) -> list[Answer]:
        """The requests that a model should have answered and did not."""
        return [answer for answer in self.answers if not answer.ok]

    def counts(self) -> Counter[str]:
        """How many requests each endpoint answered."""
        return Counter(name for names in self.served.values() for name in names)

    def reasons(self) -> Counter[str]:
        """How many requests were answered where they were for which reason."""
        return Counter(answer.reason or "none given" for answer in self.answers if answer.ok)

    def latency_s(self, share: float) -> float:
        """A quantile of the answered requests' latency."""
        return quantile((answer.seconds for answer in self.answers if answer.ok), share)


@dataclass(slots=True)
class Stage:
    """A running system, its clients by router, the evidence, and a way to tell the story."""

    system: System
    clients: Mapping[str, Client]
    evidence: Evidence
    images: int
    tell: Callable[[str], None]
    rng: Random
    _numbers: Counter[str] = field(default_factory=Counter)

    def calls(
        self, router: str, model: str, images: Iterable[int], *, key: str | None = None
    ) -> list[Call]:
        """One call for each image, with ids that were never used before."""
        calls = []
        for image in images:
            self._numbers[router] += 1
            calls.append(Call(f"{router}.{self._numbers[router]}", model, image % self.images, key))
        return calls

    async def on_all_routers(
        self, play: Callable[[str], Coroutine[None, None, list[Answer]]]
    ) -> dict[str, list[Answer]]:
        """Play the same on every router at the same time."""
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(play(name)) for name in self.clients}
        return {name: task.result() for name, task in tasks.items()}


def ids(answers: Iterable[Answer]) -> list[str]:
    """The request ids of answers."""
    return [answer.call.request_id for answer in answers]


def all_answered(answers: Sequence[Answer]) -> Check:
    """None of these requests failed; the first failure stands in the text."""
    failed = [answer for answer in answers if not answer.ok]
    if not failed:
        return Check(f"0 of {len(answers)} requests failed", True)
    first = failed[0]
    return Check(
        f"{len(failed)} of {len(answers)} requests failed, first {first.call.request_id}:"
        f" {first.status} {first.error}",
        False,
    )


def share_of(served: Mapping[str, Sequence[str]], endpoint: str, least: float) -> Check:
    """At least this share of the requests was answered by one endpoint."""
    count = sum(1 for names in served.values() if endpoint in names)
    share = count / max(1, len(served))
    return Check(
        f"{share:.1%} of {len(served)} were answered by {endpoint} (at least {least:.0%})",
        share >= least,
    )
