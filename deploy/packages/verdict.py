"""Whether a new variant is better than the one it was made from, by the package's own rule."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from isochrone.deploy.result import columns
from isochrone.edge_agent.runtime.package.manifest import KeepIf


@dataclass(frozen=True, slots=True)
class Side:
    """What was measured of one variant: `right_share` of its answers, seconds at batch 1."""

    name: str
    bytes: int
    latency_s: float
    right_share: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant and what was made of it; `deviation` is their answers' largest difference.

    `lost_before`: the share of right answers that its source had already lost when it was made.
    `limit` is how far they may be apart; None where the rule alone decides.
    """

    before: Side
    after: Side
    deviation: float
    lost_before: float = 0.0
    limit: float | None = None

    @property
    def compression(self) -> float:
        """How many times smaller the new file is."""
        return self.before.bytes / self.after.bytes

    @property
    def speed_up(self) -> float:
        """How many times faster the new variant answers."""
        return self.before.latency_s / max(self.after.latency_s, 1e-9)

    @property
    def accuracy_loss(self) -> float:
        """The share of right answers that were lost; negative where some were won."""
        return self.lost_before + self.before.right_share - self.after.right_share


def against(comparison: Comparison, rule: KeepIf) -> list[str]:
    """Why the new variant is not to be kept; nothing where it is."""
    return list(_against(comparison, rule))


def _against(found: Comparison, rule: KeepIf) -> Iterator[str]:
    if not isfinite(found.deviation):
        yield "some of its answers are no numbers, or of another shape than its source's"
    elif found.limit is not None and found.deviation > found.limit:
        yield f"its answers deviate by {found.deviation:.2g}, tolerance is {found.limit:g}"
    if found.accuracy_loss > rule.accuracy_loss + 1e-12:
        yield (
            f"it loses {found.accuracy_loss:.2%} of right answers,"
            f" the rule allows {rule.accuracy_loss:.2%}"
        )
    if found.speed_up < rule.speed_up:
        yield (
            f"it is {_times(found.speed_up, 'faster', 'slower')},"
            f" the rule wants speed_up {rule.speed_up:g}"
        )
    if found.compression < rule.compression:
        yield (
            f"it is {_times(found.compression, 'smaller', 'larger')},"
            f" the rule wants compression {rule.compression:g}"
        )


def told(found: Comparison, right: str) -> list[str]:
    """The comparison as a table; `right` names what the share of right answers means."""
    rows = [["variant", "bytes", "batch 1, ms", right]]
    for side in (found.before, found.after):
        shown = f"{side.latency_s * 1000:.3f}", f"{side.right_share:.4f}"
        rows.append([side.name, str(side.bytes), *shown])
    ratios = (
        f"{_times(found.compression, 'smaller', 'larger')},"
        f" {_times(found.speed_up, 'faster', 'slower')}"
    )
    return [*columns(rows), f"{ratios}; answers differ by at most {found.deviation:.2g}"]


def _times(ratio: float, more: str, less: str) -> str:
    return f"{ratio:.2f} times {more}" if ratio >= 1 else f"{1 / ratio:.2f} times {less}"
