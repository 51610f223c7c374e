"""What one decision costs, with the ledger's updates: `python tests/bench/decide.py`.

Absolute times say nothing on another machine. The yardstick is the same decision as one
plain loop over slotted records (law, filters, convex price, order) for 10 candidates, in the same
run: about 3 µs where the bounds of 8, 40 and 60 µs were set, so they are so many times that loop.
"""

import argparse
import gc
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import perf_counter

from isochrone.router.fleet.ledger import Ledger
from isochrone.router.fleet.outcome import Outcome
from isochrone.router.members.endpoint import Endpoint
from isochrone.router.members.membership import Member, Membership
from isochrone.router.policy.choose import choose
from isochrone.router.policy.policy import Policy
from isochrone.router.policy.query import Query
from isochrone.router.wire.report import CallReport, EndpointReport, HeldModel, Lease, ModelState

YARDSTICK_US = 3.0
"""What the yardstick takes for 10 candidates on the machine for which the bounds were set."""
BOUNDS_US = {10: 8.0, 100: 40.0, 10_000: 60.0}
REGIONS = tuple(f"region-{n}" for n in range(20))


class Plain:
    """A candidate of the yardstick."""

    __slots__ = (
        "full_until_s",
        "healthy",
        "net_s",
        "own",
        "region",
        "reported",
        "service_s",
        "slots",
        "unseen",
        "warm",
    )

    def __init__(self, number: int) -> None:
        self.healthy = self.warm = True
        self.full_until_s = 0.0
        self.region = REGIONS[number % len(REGIONS)]
        self.reported = number % 3
        self.own = self.unseen = number % 2
        self.slots = 2
        self.net_s = 0.001 * number
        self.service_s = 0.02


LAWFUL = frozenset(REGIONS)


def yardstick(candidates: list[Plain]) -> list[tuple[float, int]]:
    """Law, filters, convex score and order, as direct arithmetic."""
    scored = []
    for index, candidate in enumerate(candidates):
        if candidate.region not in LAWFUL or not candidate.healthy or not candidate.warm:
            continue
        if candidate.full_until_s > 1.0:
            continue
        in_flight = max(candidate.reported + candidate.unseen, candidate.own)
        load = (in_flight + candidate.unseen + 1) / candidate.slots
        wait_s = candidate.service_s * load**2 if load > 1 else 0.0
        scored.append((candidate.net_s + wait_s + candidate.service_s, index))
    scored.sort()
    return scored


def fleet(count: int) -> Ledger:
    """A ledger that has heard from so many endpoints."""
    held = HeldModel("digits", "1", ModelState.WARM, load_s=0.5)
    places = [REGIONS[n % len(REGIONS)] for n in range(count)]
    ends = [Endpoint(f"e{n}", f"http://127.0.0.1:{n + 1}", r) for n, r in enumerate(places)]
    membership = Membership([Member(e, 2, (held,)) for e in ends], REGIONS, Lease())
    ledger = Ledger(dict.fromkeys(REGIONS, 0.05), "r1")
    ledger.follow(membership, 0.0)
    for number, end in enumerate(ends):
        site = ledger.site(end.name)
        assert site is not None
        report = EndpointReport(
            wire_version=1,
            name=end.name,
            region=end.region,
            instance="i1",
            sequence=1,
            in_flight=0,
            slots=2,
            ready=True,
            draining=False,
            models_generation=1,
            models=(held,),
            seen={f"r{n}.0": 1 for n in range(8)},
        )
        ledger.probe_answered(site, report, 0.001 + 0.0001 * (number % 997), 1.0)
    ledger.sweep(1.5)
    return ledger


def decision(ledger: Ledger) -> Callable[[int], None]:
    """One request: chosen, sent, answered, closed; three others are always under way."""
    policy, rng = Policy(), Random(7)
    query = Query("r", "digits", 2.0, 32.0, body_bytes=3136)
    under_way = []

    def once(number: int) -> None:
        now_s = 2.0 + number * 0.001
        scored = choose(policy, query, ledger, rng).order[0]
        lease = ledger.sent(scored.permit.endpoint, "digits", "1", now_s, 3136)
        assert lease is not None
        under_way.append(lease)
        if len(under_way) > 3:
            done = under_way.pop(0)
            report = CallReport(
                instance="i1",
                sequence=number + 2,
                in_flight=1,
                slots=2,
                latency_s=0.02,
                wait_s=0.0,
                infer_s=0.02,
                models_generation=1,
                seq_seen=done.sequence,
            )
            ledger.answered(done, report, now_s)
            ledger.close(done, Outcome.ANSWERED, now_s)

    return once


def timed_us(work: Callable[[int], object], rounds: int, repeats: int) -> float:
    """Microseconds for one call: the best of some repeats."""
    best = float("inf")
    number = 0
    gc.collect()
    gc.disable()  # as `timeit` does
    for _ in range(repeats):
        began = perf_counter()
        for _ in range(rounds):
            work(number)
            number += 1
        best = min(best, perf_counter() - began)
    gc.enable()
    return best / rounds * 1e6


def bytes_for_each(count: int) -> float:
    """Memory of one enrolled endpoint with one model."""
    gc.collect()
    tracemalloc.start()
    ledger = fleet(count)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del ledger
    return held / count


def main() -> int:
    """Measure, print a table, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures (- is standard output)")
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    ten = [Plain(n) for n in range(10)]
    rows = []
    for count, bound_us in BOUNDS_US.items():
        yard_us = timed_us(lambda _: yardstick(ten), asked.rounds, asked.repeats)
        took_us = timed_us(decision(fleet(count)), asked.rounds, asked.repeats)
        yards, most = took_us / yard_us, bound_us / YARDSTICK_US
        rows.append(
            {"candidates": count, "us": took_us, "yardsticks": yards, "most_yardsticks": most}
        )
        print(
            f"{count:>6} candidates {took_us:7.2f} µs = {yards:5.2f} yardsticks"
            f" of {yard_us:.2f} µs (at most {most:.2f})",
            file=sys.stderr if asked.json == "-" else sys.stdout,
        )
    ok = all(row["yardsticks"] <= row["most_yardsticks"] for row in rows)
    each = bytes_for_each(2000)
    print(f"{each:.0f} bytes for each endpoint", file=sys.stderr)
    if asked.json:
        result = {
            "schema": "isochrone.bench_decide/1",
            "ok": ok,
            "rows": rows,
            "endpoint_bytes": each,
        }
        text = json.dumps(result, indent=2)
        if asked.json == "-":
            print(text)
        else:
            Path(asked.json).write_text(text + "\n", encoding="utf-8")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
