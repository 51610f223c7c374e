"""A replica's report of a call becomes the region's: what it cost, seen from the ingress. Pure."""

from dataclasses import dataclass

from router.wire.headers import SERVER_TIMING
from router.wire.http import Headers, first
from router.wire.report import LOAD_HEADER, CallReport, decode_call_report

_REPLACED = (LOAD_HEADER, SERVER_TIMING)


@dataclass(frozen=True, slots=True)
class Cost:
    """Where the seconds of one call went; what Serve and its queue took is waiting."""

    wait_s: float
    infer_s: float

    @classmethod
    def of(cls, report: CallReport | None, elapsed_s: float) -> "Cost":
        """The cost of a call that took `elapsed_s` here, by what the replica says of it."""
        infer_s = 0.0 if report is None else min(report.infer_s, elapsed_s)
        return cls(elapsed_s - infer_s, infer_s)

    @property
    def server_timing(self) -> bytes:
        """The value of a `Server-Timing` field, in milliseconds."""
        return b"wait;dur=%.3f, infer;dur=%.3f" % (self.wait_s * 1e3, self.infer_s * 1e3)


def split(headers: Headers) -> tuple[list[tuple[bytes, bytes]], CallReport | None]:
    """A replica's header fields without its report, and that report."""
    value = first(headers, LOAD_HEADER)
    report = None if value is None else decode_call_report(value)
    return [field for field in headers if field[0] not in _REPLACED], report
