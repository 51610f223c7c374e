"""What the attempt machine wants done: at an endpoint, or for the client."""

from dataclasses import dataclass

from isochrone.router.errors import IsochroneError
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.law.permit import Permit
from isochrone.router.upstream.event import Head


@dataclass(frozen=True, slots=True)
class Send:
    """Make this try: the `number`th, counted from 0; `hedge`: beside one that is under way."""

    permit: Permit
    number: int
    hedge: bool = False


@dataclass(frozen=True, slots=True)
class Settle:
    """This try has ended, in this way: every `Send` is followed by exactly one.

    `retry_after_s` is when a full endpoint wants to be asked again, where it said so.
    """

    number: int
    outcome: Outcome
    why: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop this try at the endpoint; nothing of it is wanted any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """A whole answer for the client."""

    number: int
    head: Head
    body: bytes


@dataclass(frozen=True, slots=True)
class Begin:
    """The head of an answer that is passed on as it comes."""

    number: int
    head: Head


@dataclass(frozen=True, slots=True)
class Forward:
    """A part of it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of it; `code` is that of an error which the client was told in its last part."""

    code: str = ""


@dataclass(frozen=True, slots=True)
class Abort:
    """It cannot be ended, and the client must be able to tell; `code` is the error's."""

    code: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No try gave an answer, and none is left to make, for this reason.

    `stranded`: only because there was nobody else to ask at that instant; to ask who may be free
    later needs leave where `owing`.
    """

    error: IsochroneError
    stranded: bool = False
    owing: bool = False


Command = Send | Settle | Cancel | Deliver | Begin | Forward | Finish | Abort | GiveUp
