"""A replica's report of a call becomes the region's: what it cost, seen from the ingress. Pure."""

from dataclasses import dataclass

from isochrone.router.wire.headers import SERVER_TIMING
from isochrone.router.wire.http import Headers, first
from isochrone.router.wire.report import LOAD_HEADER, CallReport, decode_call_report

UP = b"x-isochrone-up"
"""In a replica's answer to its ingress: for how many seconds it has been ready."""
_REPLACED = (LOAD_HEADER, SERVER_TIMING, UP)


@dataclass(frozen=True, slots=True)
class Cost:
    """Where the seconds of one call went; what Serve and its queue took is waiting.

    `load_s` is the part of the wait before the replica that answered was ready.
    """

    wait_s: float
    infer_s: float
    load_s: float = 0.0

    @classmethod
    def of(cls, report: CallReport | None, elapsed_s: float, up_s: float = float("inf")) -> "Cost":
        """The cost of a call that took `elapsed_s` here, by what the replica says of it.

        It has been ready for `up_s`.
        """
        infer_s = 0.0 if report is None else min(report.infer_s, elapsed_s)
        wait_s = elapsed_s - infer_s
        return cls(wait_s, infer_s, min(wait_s, max(0.0, elapsed_s - up_s)))

    @property
    def server_timing(self) -> bytes:
        """The value of a `Server-Timing` field, in milliseconds."""
        return b"wait;dur=%.3f, infer;dur=%.3f" % (self.wait_s * 1e3, self.infer_s * 1e3)


def up_s(headers: Headers, default_s: float) -> float:
    """For how many seconds the replica that answered has been ready, if it tells."""
    value = first(headers, UP)
    return default_s if value is None else float(value)


def split(headers: Headers) -> tuple[list[tuple[bytes, bytes]], CallReport | None]:
    """A replica's header fields without its report, and that report."""
    value = first(headers, LOAD_HEADER)
    report = None if value is None else decode_call_report(value)
    return [field for field in headers if field[0] not in _REPLACED], report
