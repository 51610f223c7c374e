"""One shallow tree of everything that can be refused, with a stable code for each.

A class says *what* went wrong and whether asking again may help; which HTTP status that is, is
chosen in one place (`wire.problem`). Texts are read by clients: they name no host, path or
stack of ours.
"""

from collections.abc import Mapping
from typing import ClassVar


class IsochroneError(Exception):
    """Anything we refuse or fail to do, with a machine-readable `code`."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.reasons = dict(reasons or {})


class ConfigError(IsochroneError):
    """A configuration file cannot be used; the message names file, line, key and remedy."""

    code = "config"


class BadRequest(IsochroneError):
    """The request itself is wrong; sending it again will not help."""

    code = "bad_request"


class Uncomputable(BadRequest):
    """The model cannot compute these inputs, though they are what it declares."""


class Unauthenticated(IsochroneError):
    """The key is missing where one is needed, or unknown."""

    code = "unauthenticated"


class Forbidden(IsochroneError):
    """The caller is known and may not do this."""

    code = "forbidden"


class NotFound(IsochroneError):
    """No such model, version, endpoint, decision or path."""

    code = "not_found"


class Misdirected(IsochroneError):
    """The request was meant for another region than this endpoint is in."""

    code = "misdirected"


class MethodNotAllowed(IsochroneError):
    """The path exists, the method does not fit; `allow` lists those that do."""

    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allow = allow


class TooLarge(IsochroneError):
    """The body is over the limit; it was not read."""

    code = "too_large"


class Unlawful(IsochroneError):
    """The laws that apply to this request leave no region at all."""

    code = "unlawful"


class Overloaded(IsochroneError):
    """Full at this moment; `retry_after_s` says when asking again makes sense."""

    code = "overloaded"
    retryable = True


class QuotaExceeded(IsochroneError):
    """The tenant has used up what it may ask for in a time; `retry_after_s` says when it may."""

    code = "quota_exceeded"
    retryable = True


class NoEndpoint(IsochroneError):
    """No endpoint may or can serve this now; `reasons` holds one text per endpoint."""

    code = "no_endpoint"
    retryable = True


class Unavailable(IsochroneError):
    """This process is starting, draining or cannot run the model."""

    code = "unavailable"
    retryable = True


class UnusableAnswer(IsochroneError):
    """Every endpoint that was tried failed or answered rubbish."""

    code = "unusable_answer"
    retryable = True


class Poison(IsochroneError):
    """Two endpoints were lost while this very request was there: nobody else is asked."""

    code = "poison"


class Crashed(IsochroneError):
    """The process that ran the model died while this request was there."""

    code = "crashed"
    retryable = True


class Quarantined(IsochroneError):
    """The process that runs the model died twice while this very request was there."""

    code = "quarantined"


class DeadlineExceeded(IsochroneError):
    """The request's deadline has passed."""

    code = "deadline_exceeded"


class Unloadable(Unavailable):
    """The package cannot be loaded here as it is, however often that is tried."""

    code = "unloadable"
    retryable = False


class NoSpace(IsochroneError):
    """The model does not fit into this machine's memory or disk."""

    code = "no_space"


def let_go(error: BaseException) -> None:
    """Forget by which way an error came, once it has been told and logged.

    The frames on that way, which keep all that was in memory there, mostly know the error as well,
    so that only Python's search for cycles would free them.
    """
    kin: list[BaseException | None] = [error]
    while kin:
        one = kin.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            kin += (one.__cause__, one.__context__)
