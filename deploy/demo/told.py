"""How the demo tells its story: to a person line by line, to a program in one document."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from isochrone.deploy.demo.load import Answer
from isochrone.deploy.demo.stage import Check, Scene
from isochrone.deploy.result import columns, milliseconds

_HELD = {True: "yes", False: "NO "}


class SceneResult(msgspec.Struct, frozen=True):
    """One scene, for programs."""

    name: str
    ok: bool
    requests: int
    failed: int
    refused: int
    outside_region: int
    loads: int
    served: dict[str, int]
    reasons: dict[str, int]
    p50_ms: float
    p99_ms: float


class Accuracy(msgspec.Struct, frozen=True):
    """The share of the held-out images that a model got right, as served and by the bare engine."""

    served: float
    offline: float
    count: int


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """The whole demo, for programs."""

    schema: str = "isochrone.demo/1"
    ok: bool
    seconds: float
    scenes: list[SceneResult]
    accuracy: dict[str, Accuracy]


def scene_result(scene: Scene) -> SceneResult:
    """A scene in numbers."""
    return SceneResult(
        name=scene.name,
        ok=scene.ok,
        requests=len(scene.answers) + len(scene.refusals),
        failed=len(scene.failed),
        refused=len(scene.refusals),
        outside_region=scene.outside_region,
        loads=scene.loads,
        served=dict(scene.counts().most_common()),
        reasons=dict(scene.reasons().most_common()),
        p50_ms=round(scene.latency_s(0.5) * 1000, 2),
        p99_ms=round(scene.latency_s(0.99) * 1000, 2),
    )


def judged(
    model: str, answers: Sequence[Answer], offline: Sequence[int], labels: Sequence[int]
) -> tuple[Accuracy, Check]:
    """What a model's served answers are worth beside those of the bare engine and the truth."""
    served = {answer.call.image: answer.label for answer in answers if answer.ok}
    same = sum(served.get(image) == label for image, label in enumerate(offline))
    count = len(labels)
    accuracy = Accuracy(
        served=sum(served.get(image) == label for image, label in enumerate(labels)) / count,
        offline=sum(map(int.__eq__, offline, labels)) / count,
        count=count,
    )
    text = (
        f"{model}: {accuracy.served:.1%} of {count} held-out images right; the bare engine in"
        f" another process says the same for {same}"
    )
    return accuracy, Check(text, same == count)


def told_checks(checks: Sequence[Check]) -> Iterator[str]:
    """Checks, a line each."""
    return (f"  {_HELD[check.holds]}  {check.text}" for check in checks)


def closing_table(scenes: Sequence[SceneResult]) -> list[str]:
    """Every scene in one line."""
    heads = ["SCENE", "REQUESTS", "FAILED", "REFUSED", "P50", "P99", "ANSWERED BY", "BECAUSE"]
    return columns([heads, *map(_row, scenes)])


def _row(scene: SceneResult) -> list[str]:
    return [
        scene.name,
        str(scene.requests),
        str(scene.failed),
        str(scene.refused),
        milliseconds(scene.p50_ms / 1000),
        milliseconds(scene.p99_ms / 1000),
        _listed(scene.served),
        _listed(scene.reasons),
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nobody"
