"""What the attempt machine wants done: at an endpoint, for the client, or decided."""

from msgspec import Struct

from isochrone.router.dispatch.attempt import Attempt
from isochrone.router.errors import IsochroneError
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.upstream.event import Head


class Choose(Struct, frozen=True):
    """Choose one more endpoint, and answer with a `Next` event; always the last of its commands.

    `hedge`: it is to run beside an attempt that is late. `needs_leave`: an earlier attempt may have
    run, so that asking another endpoint needs leave from the retry budget.
    """

    hedge: bool = False
    needs_leave: bool = False


class Send(Struct, frozen=True):
    """Make this attempt. The endpoint, the permit and the prediction are in `attempt.scored`."""

    attempt: Attempt


class Settle(Struct, frozen=True):
    """This attempt has ended: every `Send` is followed by exactly one.

    `retry_after_s` is when a full endpoint wants to be asked again, where it said so.
    """

    attempt: Attempt
    outcome: Outcome
    why: str = ""
    retry_after_s: float | None = None


class Cancel(Struct, frozen=True):
    """Stop this attempt at its endpoint; its answer is not needed."""

    attempt: Attempt


class Deliver(Struct, frozen=True):
    """A whole answer for the client."""

    attempt: Attempt
    head: Head
    body: bytes


class Begin(Struct, frozen=True):
    """The head of an answer that is passed on as it comes."""

    attempt: Attempt
    head: Head


class Forward(Struct, frozen=True):
    """A part of that answer's body."""

    data: bytes


class Finish(Struct, frozen=True):
    """The end of that answer; `code` is that of an error told in its last part."""

    code: str = ""


class Abort(Struct, frozen=True):
    """That answer is cut off, and the client must be able to tell; `code` is the error's."""

    code: str


class GiveUp(Struct, frozen=True):
    """No attempt gave an answer, and none is left to make.

    `stranded`: only because no other endpoint was free at that instant. A later attempt needs leave
    from the retry budget where `owing`.
    """

    error: IsochroneError
    stranded: bool = False
    owing: bool = False


Command = Choose | Send | Settle | Cancel | Deliver | Begin | Forward | Finish | Abort | GiveUp
