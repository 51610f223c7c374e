"""`isochrone demo`: a whole system on this machine, six scenes, and a verdict."""

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from isochrone.deploy.demo.evidence import Evidence
from isochrone.deploy.demo.load import Client, encoded
from isochrone.deploy.demo.models import IMAGE, DemoModels, prepare
from isochrone.deploy.demo.scenes import SCENES
from isochrone.deploy.demo.stage import Check, Scene, Stage
from isochrone.deploy.demo.told import (
    Accuracy,
    DemoResult,
    closing_table,
    judged,
    scene_result,
    told_checks,
)
from isochrone.deploy.local.layout import (
    CAPACITY_PER_S,
    CLOUD_MODEL,
    EDGE_MODEL,
    MIN_SERVICE_S,
    ROUTERS,
    SLOTS,
)
from isochrone.deploy.local.run import Folder, local_system, run_folder, run_to_end
from isochrone.deploy.local.system import System
from isochrone.deploy.result import add_json_argument, tell
from isochrone.router.process.clock import monotonic

HELP = "play six scenes on a whole system and check each"
CACHE = Path("~/.cache/isochrone")
_SEED = 540
_SHOWN_FROM = {EDGE_MODEL: "nearest", CLOUD_MODEL: "cloud"}
"""The scene in which each model answers every held-out image."""


def add_cache_argument(parser: argparse.ArgumentParser) -> None:
    """`--cache DIR`."""
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        default=CACHE,
        help="where the trained models are kept for the next time (%(default)s)",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to keep."""
    add_cache_argument(parser)
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="keep configuration and logs in this new folder"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Play it; 0 where every check holds."""
    start_s = monotonic()
    with run_folder(args.keep) as folder:
        models = prepare(args.cache.expanduser(), progress)
        scenes = run_to_end(_play(folder, models))
        accuracies, checks = _judged(scenes, models)
        result = _result(scenes, accuracies, checks, monotonic() - start_s)
        tell(args, result, _closing(result, checks))
        folder.kept = folder.kept or not result.ok
    if folder.kept:
        progress(f"configuration and logs are in {folder.path}")
    return int(not result.ok)


def progress(line: str) -> None:
    """A line for whoever watches."""
    print(line, file=sys.stderr, flush=True)


def indented(line: str) -> None:
    """A line within a scene."""
    progress(f"  {line}")


async def _play(folder: Folder, models: DemoModels) -> list[Scene]:
    progress("starting two routers, three edge agents, Ray Serve and the distances between them")
    packages = models.packages[EDGE_MODEL].parents[1]
    async with (
        local_system(folder, packages, indented) as system,
        _clients(system, models) as clients,
    ):
        progress(
            f"an agent has {SLOTS} slots and holds one for at least {MIN_SERVICE_S * 1000:.0f} ms:"
            f" {CAPACITY_PER_S:.0f} requests/s, so that one machine can play several"
        )
        stage = Stage(
            system=system,
            clients=clients,
            evidence=Evidence(system.layout),
            images=len(models.held_out.labels),
            tell=indented,
            rng=Random(_SEED),
        )
        return [await _scene(stage, name) for name in SCENES]


async def _scene(stage: Stage, name: str) -> Scene:
    play, shows = SCENES[name]
    progress(f"\n{name}: {shows}")
    scene = await play(stage)
    for line in told_checks(scene.checks):
        progress(line)
    for part in stage.system.dead():
        progress(part.told(f"{part.name} does not run any more"))
    return scene


@contextlib.asynccontextmanager
async def _clients(system: System, models: DemoModels) -> AsyncIterator[Mapping[str, Client]]:
    images = encoded(models.held_out.images, IMAGE.name)
    requests = dict.fromkeys((EDGE_MODEL, CLOUD_MODEL), images)
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(Client(system.layout.router_url(name), requests))
            for name in ROUTERS
        }


def _judged(scenes: Sequence[Scene], models: DemoModels) -> tuple[dict[str, Accuracy], list[Check]]:
    played = {scene.name: scene for scene in scenes}
    labels = [int(label) for label in models.held_out.labels]
    verdicts = {
        model: judged(model, played[scene].answers, models.answers[model], labels)
        for model, scene in _SHOWN_FROM.items()
    }
    return (
        {model: accuracy for model, (accuracy, _) in verdicts.items()},
        [check for _, check in verdicts.values()],
    )


def _result(
    scenes: Sequence[Scene],
    accuracy: dict[str, Accuracy],
    checks: Sequence[Check],
    seconds: float,
) -> DemoResult:
    return DemoResult(
        ok=all(scene.ok for scene in scenes) and all(check.holds for check in checks),
        seconds=round(seconds, 1),
        scenes=[scene_result(scene) for scene in scenes],
        accuracy=accuracy,
    )


def _closing(result: DemoResult, checks: Sequence[Check]) -> list[str]:
    verdict = "every scene is as it must be" if result.ok else "NOT every scene is as it must be"
    return [
        "",
        *closing_table(result.scenes),
        "",
        *told_checks(checks),
        "",
        f"{verdict}; {result.seconds:.0f} s",
    ]
