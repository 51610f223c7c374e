"""How a try on an endpoint can end."""

from enum import StrEnum


class Outcome(StrEnum):
    """How one try on one endpoint ended."""

    ANSWERED = "answered"
    BUSY = "busy"
    UNABLE = "unable"
    QUARANTINED = "quarantined"
    """It refused a request that has crashed its model before."""
    FAILED = "failed"
    """It answered that it failed."""
    CRASHED = "crashed"
    """The connection was lost while the request was there."""
    REFUSED = "refused"
    UNSENT = "unsent"
    """This router had no connection to spare: nothing is known of the endpoint by that."""
    LATE = "late"
    CANCELLED = "cancelled"
