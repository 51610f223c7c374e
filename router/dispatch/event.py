"""What can happen to a request as a whole; what happens to one attempt is in `upstream.event`."""

from msgspec import Struct

from isochrone.router.policy.pick import Scored


class Next(Struct, frozen=True):
    """The answer to a `Choose` command: an endpoint, or None where there is no other.

    `leave` is what the retry budget said, where leave was needed.
    """

    scored: Scored | None
    leave: bool = True


class DeadlinePassed(Struct, frozen=True):
    """The request's deadline has passed."""


class HedgeDue(Struct, frozen=True):
    """The answer is late against its own prediction."""


class ClientGone(Struct, frozen=True):
    """The client has left."""


Event = Next | DeadlinePassed | HedgeDue | ClientGone
