"""What can happen to one try on one endpoint, and to the request as a whole."""

from dataclasses import dataclass

from isochrone.router.upstream.event import Answer


@dataclass(frozen=True, slots=True)
class Timer:
    """The request's deadline has passed."""


@dataclass(frozen=True, slots=True)
class HedgeDue:
    """The answer is late against its own prediction."""


@dataclass(frozen=True, slots=True)
class ClientGone:
    """Nobody waits for the answer any more."""


Event = Answer | Timer | HedgeDue | ClientGone
