"""How a router hears of a visit's end: the events that an HTTP connection would give it."""

from collections.abc import Sequence
from math import ceil

from isochrone.router.simulate.visit import Loss, Visit
from isochrone.router.upstream.event import Answer, Cause, End, Head, Lost
from isochrone.router.wire.report import LOAD_HEADER, encode_call_report

_CAUSE = {Loss.REFUSED: Cause.REFUSED, Loss.RESET: Cause.RESET}
_LENGTH = (b"content-length", b"0")


def events(visit: Visit) -> Sequence[Answer]:
    """What happened to the connection, in order; answers are short."""
    if visit.loss is not None:
        return (Lost(_CAUSE[visit.loss], ""),)
    fields = [_LENGTH]
    if visit.report is not None:
        fields.append((LOAD_HEADER, encode_call_report(visit.report)))
    if visit.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % max(1, ceil(visit.retry_after_s))))
    return Head(visit.status, fields), End()
