"""`isochrone simulate`: try routing rules against each other in virtual time."""

import argparse
import os
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from isochrone.deploy.result import add_json_argument, columns, output_file, tell
from isochrone.router.errors import ConfigError
from isochrone.router.process.document import did_you_mean, listed
from isochrone.router.process.settings import load_settings
from isochrone.router.simulate.arrivals import read_trace
from isochrone.router.simulate.cities import (
    UNMEASURED,
    City,
    RoundTrips,
    read_cities,
    read_round_trips,
    split_of,
)
from isochrone.router.simulate.play import Player
from isochrone.router.simulate.report import SCHEMA, Report, Run, picture, summaries
from isochrone.router.simulate.rules import OURS, RULES, rule_named
from isochrone.router.simulate.run import Task, played, tasks
from isochrone.router.simulate.scenario import Scenario
from isochrone.router.simulate.tables import prediction_table, slice_table, table
from isochrone.router.simulate.world import World, placed

HELP = "try routing rules against each other in virtual time"

_CHECKOUT = Path(__file__).parents[1] / "configs" / "scenarios"
_INSTALLED = Path(sysconfig.get_path("data")) / "share" / "isochrone" / "scenarios"
SCENARIOS = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
SEEDS = {"tune": "1-5", "report": "101-105"}
"""Knobs are chosen on one set of seeds and cities, and reported on another."""

_BASELINE = "c3"
_MAX_RUNS = 100_000
_EPILOG = """\
Time is virtual: a run takes seconds on one core, its result depends on its seed only, and no
number here was measured on a machine. All rules get the same requests at one load and seed: the
same instants, clients, work and jitter.

Load 1.0 keeps every slot busy. Latencies are counted at the router. A request that was not
served counts as slow as its deadline. "within" is the share served within the objective,
"outside" the requests sent where their law forbids, "cost" price times slot-seconds busy or kept
warm, "regret" how much longer than the best choice at that instant, "covered" the share of 90 %
intervals of the rule's own predictions that held; ± and the last column are 95 % over the seeds.

With --cities, routers and endpoints stand in cities of one of two sets, clients live in all of
that set: knobs are chosen with --split tune, and reported with --split report (cities and seeds
that were never tuned on). Without --rtt, distance tells the round trips.

examples:
  isochrone simulate --list
  isochrone simulate worldwide --load 0.4,0.6,0.8 --rtt city_pairs.csv --cities cities.csv \\
      --svg worldwide.svg --json worldwide.json
  isochrone simulate bursty --trace AzureLLMInferenceTrace_code.csv --seed 1-10
  isochrone simulate ./my-scenario.yaml --algorithm isochrone,c3 --load 0.7 --regions
"""

T = TypeVar("T", int, float)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which scenario, which rules, and where the world's data are."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "scenario",
        nargs="?",
        metavar="SCENARIO",
        help=f"one of {', '.join(shipped())}, or a YAML file",
    )
    parser.add_argument("--list", action="store_true", help="list the rules, each with its source")
    parser.add_argument(
        "--algorithm",
        metavar="A[,A...]",
        default=f"{OURS},c3,peak-ewma",
        help="rules to try, or all, or FILE.py:FACTORY of your own (default %(default)s)",
    )
    parser.add_argument("--load", metavar="L[,L...]", default="0.6", help="default %(default)s")
    parser.add_argument(
        "--seed",
        metavar="N[,N...]",
        help=f"also A-B; default {SEEDS['report']}, with --split tune {SEEDS['tune']}",
    )
    parser.add_argument(
        "--baseline", metavar="A", help="the rule that others are held against (default c3)"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="virtual time of each run")
    files = parser.add_argument_group("data")
    files.add_argument("--rtt", type=Path, metavar="CSV", help="round trips: src_city,dst,min_ms")
    files.add_argument(
        "--cities", type=Path, metavar="CSV", help="cities: city,Lat,Long,Population"
    )
    files.add_argument("--trace", type=Path, metavar="CSV", help="instants of requests: TIMESTAMP")
    files.add_argument("--split", choices=("tune", "report"), default="report", help="which cities")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--regions", action="store_true", help="print each client region as well")
    parser.add_argument(
        "--predictions", action="store_true", help="print predictions against what was observed"
    )
    add_json_argument(parser)
    parser.add_argument(
        "--svg", type=output_file, metavar="FILE", help="draw p99 and share over load"
    )


def run(args: argparse.Namespace) -> int:
    """Play every run and print the comparison; 1 where a law was broken."""
    if args.list:
        print("\n".join(_rules()))
        return 0
    if args.scenario is None:
        raise ConfigError(f"which scenario? One of {', '.join(shipped())}, or a YAML file")
    wanted = _tasks(args)
    world, facts = _world(args)
    trace = read_trace(args.trace) if args.trace else None
    runs = _played(wanted, Player(world, trace), args.jobs or os.cpu_count() or 1)
    report = _report(args, world, facts, runs)
    if args.svg is not None:
        _draw(args.svg, report, world.scenario.objective_s)
    tell(args, report, _lines(report, by_region=args.regions, predictions=args.predictions))
    return 0 if report.ok else 1


def _rules() -> list[str]:
    rows = [[name, rule.about, rule.source] for name, rule in RULES.items()]
    return columns([["NAME", "RULE", "SOURCE"], *rows])


def shipped() -> list[str]:
    """The names of the shipped scenarios."""
    return sorted(path.stem for path in SCENARIOS.glob("*.yaml"))


def scenario_file(text: str) -> Path:
    """The file of a shipped scenario's name, or the file itself.

    Raises:
        ConfigError: there is neither.
    """
    if text in shipped():
        return SCENARIOS / f"{text}.yaml"
    if Path(text).is_file():
        return Path(text)
    hint = did_you_mean(text, shipped()) or f"shipped are {listed(shipped())}"
    raise ConfigError(f"{text} is neither a shipped scenario nor a file; {hint}")


def _tasks(args: argparse.Namespace) -> list[Task]:
    names = list(RULES) if args.algorithm == "all" else _names(args.algorithm)
    loads = _numbers("--load", args.load, float)
    seeds = _numbers("--seed", args.seed or SEEDS[args.split], int)
    if any(not 0 < load <= 10 for load in loads):
        raise ConfigError("--load: each must be above 0 and at most 10; 1 is all slots busy")
    _baseline(args.baseline, names)
    if args.jobs is not None and args.jobs < 1:
        raise ConfigError("--jobs: there must be one process at least")
    wanted = tasks(names, loads, seeds)
    if len(wanted) > _MAX_RUNS:
        raise ConfigError(f"these are {len(wanted)} runs, more than {_MAX_RUNS}")
    return wanted


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        rule_named(name)
    return names


def _numbers(option: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """Numbers between commas, and for whole ones ranges `A-B` too; each once, in order."""
    try:
        found = [number for part in text.split(",") for number in _range(part.strip(), kind)]
    except ValueError as error:
        raise ConfigError(f"{option}: {text!r} is no list of numbers") from error
    return list(dict.fromkeys(found))


def _range(part: str, kind: Callable[[str], T]) -> Sequence[T]:
    first, dash, last = part.partition("-")
    if kind is not int or not dash or not first:
        return [kind(part)]
    if int(last) - int(first) >= _MAX_RUNS:
        raise ValueError("too many")
    return [kind(str(number)) for number in range(int(first), int(last) + 1)]


def _world(args: argparse.Namespace) -> tuple[World, dict[str, int]]:
    """The scenario in place, and what was found in the data."""
    scenario = load_settings(scenario_file(args.scenario), Scenario)
    if args.seconds is not None:
        scenario = _lasting(scenario, args.seconds)
    everywhere = read_cities(args.cities) if args.cities else []
    trips = UNMEASURED
    if args.rtt:
        names = [city.name for city in everywhere] or list(scenario.places)
        trips = read_round_trips(args.rtt, names)
    cities = [city for city in everywhere if split_of(city.name) == args.split]
    world = placed(scenario, cities, trips)
    return world, _facts(world, everywhere, cities, trips)


def _lasting(scenario: Scenario, seconds: float) -> Scenario:
    if not scenario.warmup_s < seconds < 1e6:
        raise ConfigError(f"--seconds must be above the scenario's warm-up, {scenario.warmup_s:g}")
    return msgspec.structs.replace(scenario, seconds=seconds)


def _facts(
    world: World, everywhere: Sequence[City], cities: Sequence[City], trips: RoundTrips
) -> dict[str, int]:
    return {
        "cities_read": len(everywhere),
        "cities_of_split": len(cities),
        "pairs_measured": len(trips),
        "pairs_unmatched": trips.unmatched_count,
        "round_trips_used": len(world.rtt_s) * len(world.rtt_s[0]),
        "round_trips_fitted": world.fitted_count,
    }


def _played(wanted: Sequence[Task], player: Player, jobs: int) -> list[Run]:
    """All runs in the order wanted, with a line of progress for each that ends."""
    done: dict[Task, Run] = {}
    for task, run in played(wanted, player, jobs):
        done[task] = run
        told = f"p99 {run.p99_ms:.0f} ms, {run.failed_share:.2%} failed"
        place = f"[{len(done)}/{len(wanted)}] {task.algorithm} at load {task.load:g}"
        print(f"{place}, seed {task.seed}: {run.requests} requests, {told}", file=sys.stderr)
    return [done[task] for task in wanted]


def _report(
    args: argparse.Namespace, world: World, facts: dict[str, int], runs: list[Run]
) -> Report:
    baseline = _baseline(args.baseline, {run.algorithm for run in runs})
    return Report(
        schema=SCHEMA,
        ok=not any(run.outside_requirement for run in runs),
        scenario=scenario_file(args.scenario).stem,
        split=args.split,
        objective_ms=world.scenario.objective_s * 1000,
        world=facts,
        baseline=baseline,
        runs=runs,
        summary=summaries(runs, baseline),
    )


def _baseline(wanted: str | None, names: Collection[str]) -> str | None:
    """The rule to hold others against: the one asked for, else C3 where it is played."""
    if wanted is None:
        return _BASELINE if _BASELINE in names else None
    if wanted not in names:
        raise ConfigError(f"--baseline: {wanted!r} is not among the rules of --algorithm")
    return wanted


def _draw(path: Path, report: Report, objective_s: float) -> None:
    title = f"{report.scenario}, simulated: {_seeds(report)}"
    try:
        path.write_text(picture(title, report.summary, objective_s, OURS), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--svg {path}: cannot be written: {error.strerror}") from error


def _seeds(report: Report) -> str:
    count = len({run.seed for run in report.runs})
    return f"{count} seeds" if count > 1 else "1 seed"


def _lines(report: Report, *, by_region: bool, predictions: bool) -> Iterator[str]:
    objective = f"within is {report.objective_ms:g} ms"
    yield f"{report.scenario}, simulated: {objective}, cities to {report.split}, {_seeds(report)}"
    facts = report.world
    if facts["pairs_measured"]:
        fitted = f"{facts['round_trips_fitted']} of {facts['round_trips_used']}"
        yield (
            f"{facts['pairs_measured']} pairs of cities measured, {facts['pairs_unmatched']} left"
            f" out; {fitted} round trips from distance"
        )
    yield ""
    yield from columns(table(report.summary))
    if by_region:
        yield ""
        yield from columns(slice_table(report.summary))
    if predictions:
        yield ""
        yield from columns(prediction_table(report.runs))
