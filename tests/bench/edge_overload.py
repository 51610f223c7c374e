"""A mixed-tenant overload of one agent: three times what it can do, in an open loop.

Four kinds of calls of one model: a few urgent ones, and three tenants whose weights are 1, 2 and 4
and who all ask for more than their share. First one tenant asks in a closed loop, which tells what
the agent can do; then the urgent calls come alone; then the storm, between two times of a little
more than the agent can do: the most that it serves of this mixture, its peak. A machine's speed
changes, hence two.
"""

import os
import re
import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from tests.bench.edge_client import Done, Kind, Plan, Result
from tests.bench.edge_models import Made, make
from tests.bench.edge_servers import Server, agent, request_bytes

WEIGHTS = {"one": 1.0, "two": 2.0, "four": 4.0}
TIMES = 3.0
PEAK_TIMES = 1.25
URGENT_SHARE = 0.05
MODEL_S = 1e-2
QUEUE = 64
TIMEOUT_S = 5.0
_INFER = re.compile(rb"infer;dur=([0-9.]+)")
Run = Callable[[Plan], Done]


def kinds(made: Made) -> tuple[Kind, ...]:
    """The urgent calls, then each tenant's."""
    wait = ("x-request-timeout-seconds", str(TIMEOUT_S))
    urgent = [("x-isochrone-tenant", "urgent"), ("x-isochrone-priority", "1"), wait]
    others = [[("x-isochrone-tenant", name), wait] for name in WEIGHTS]
    share = (1 - URGENT_SHARE) / len(WEIGHTS)
    return (
        Kind(request_bytes(made, "binary", urgent), b'"out"', URGENT_SHARE),
        *(Kind(request_bytes(made, "binary", more), b'"out"', share) for more in others),
    )


def overload(run: Run, *, quick: bool) -> dict[str, Any]:
    """Play it; the figures and the bounds."""
    seconds = 8.0 if quick else 20.0
    cores = sorted(os.sched_getaffinity(0))
    made = make("transformer", MODEL_S, "overload")
    with tempfile.TemporaryDirectory() as folder:
        server = agent([made], Path(folder), cores[0], tenants=WEIGHTS, queue=QUEUE)
        try:
            server.wait_for(made)
            return _played(server, made, run, seconds, cores[-1])
        finally:
            server.close()


@dataclass(frozen=True, slots=True)
class Phase:
    """What one plan came to: in `took_s` so many good answers, for `used_s` of the server's core.

    `foreign_share` of the servers' and of the clients' core went to others.
    """

    results: list[Result]
    took_s: float
    used_s: float
    ok_count: int
    foreign_share: tuple[float, float]

    @property
    def per_s(self) -> float:
        """Good answers in a second."""
        return self.ok_count / self.took_s

    @property
    def per_used_s(self) -> float:
        """Good answers in a second of the server's own processor time."""
        return self.ok_count / self.used_s


def _phase(server: Server, plan: Plan, run: Run) -> Phase:
    assert plan.core is not None
    before = _readings(server, plan.core)
    done = run(msgspec.structs.replace(plan, server_pid=server.pid))
    wall_s, used_s, own_s, first_s, second_s = np.subtract(_readings(server, plan.core), before)
    foreign = max(0.0, first_s - used_s) / wall_s, max(0.0, second_s - own_s) / wall_s
    return Phase(done.results, done.seconds, done.used_s, done.ok_count, foreign)


def _readings(server: Server, core: int) -> tuple[float, ...]:
    """Time; that of the server, of the clients; that of the server's core, of the clients'."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own_s = children.ru_utime + children.ru_stime
    return perf_counter(), server.used_s(), own_s, _busy_s(server.core), _busy_s(core)


def _busy_s(core: int) -> float:
    """How long a core has worked, for whomever; what the host took from it included."""
    lines = Path("/proc/stat").read_text().splitlines()
    ticks = next(line.split() for line in lines if line.startswith(f"cpu{core} "))
    idle = int(ticks[4]) + int(ticks[5])
    return (sum(map(int, ticks[1:9])) - idle) / os.sysconf("SC_CLK_TCK")


def _played(server: Server, made: Made, run: Run, seconds: float, core: int) -> dict[str, Any]:
    urgent, *others = asked = kinds(made)
    one = _phase(server, Plan(server.port, (others[0],), 16, seconds / 4, 0.5, core=core), run)
    rate = max(1.0, TIMES * URGENT_SHARE * one.per_s)
    calm = _phase(server, Plan(server.port, (urgent,), 4, seconds / 2, rate=rate, core=core), run)
    full = Plan(server.port, asked, 256, seconds / 2, 1.0, PEAK_TIMES * one.per_s, core=core)
    storm = Plan(server.port, asked, 256, seconds, 1.0, TIMES * one.per_s, core=core)
    before, first = _phase(server, full, run), _phase(server, storm, run)
    before_bytes = server.resident_bytes()
    second, after = _phase(server, storm, run), _phase(server, full, run)
    grown_share = server.resident_bytes() / before_bytes - 1
    peak_per_used_s = (before.ok_count + after.ok_count) / (before.used_s + after.used_s)
    bounds = _bounds(peak_per_used_s, calm, second, grown_share)
    broken = sum(one.wrong_count + one.lost_count for one in (*first.results, *second.results))
    bounds.append((f"{broken} wrong or lost answers, none", not broken))
    foreign = second.foreign_share
    print(f"{made.bare_s * 1e3:.1f} ms a run; one tenant gets {one.per_s:.0f} a second")
    share = second.per_used_s / one.per_used_s
    print(f"goodput of the storm: {second.per_s:.0f} a second, {share:.0%} of what one tenant gets")
    print(f"others had {foreign[0]:.0%} of the server's core and {foreign[1]:.0%} of the clients'")
    print("above a few, times say little")
    pushed_s = [second for one in second.results for second in one.pushed_out_s]
    at_once_s = [second for one in second.results for second in one.refused_s] or [0.0]
    p99_ms = float(np.quantile(at_once_s, 0.99)) * 1e3
    print(f"refused on arrival: p99 {p99_ms:.2f} ms; {len(pushed_s)} gave way to the urgent later")
    served = [len(one.ok_s) for one in second.results]
    told = dict(zip(("urgent", *WEIGHTS), served, strict=True))
    return {
        "served": told,
        "foreign_share": list(foreign),
        "peak_per_s": (before.per_s + after.per_s) / 2,
        "bounds": bounds,
    }


def _longest_run_s(phase: Phase) -> float:
    """Of the runs that the agent told of with its last answers; calls may have shared them."""
    found = [_INFER.search(whole) for one in phase.results for whole in one.samples]
    return max([float(one[1]) for one in found if one is not None], default=0.0) / 1e3


def _bounds(
    peak_per_used_s: float, calm: Phase, storm: Phase, grown_share: float
) -> list[tuple[str, bool]]:
    urgent, *others = storm.results
    alone_s, run_s = float(np.quantile(calm.results[0].ok_s, 0.99)), _longest_run_s(storm)
    urgent_s, bound_s = float(np.quantile(urgent.ok_s, 0.99)), 1.5 * alone_s + run_s
    share = storm.per_used_s / peak_per_used_s
    served = np.array([len(one.ok_s) for one in others], float)
    wanted = np.array(list(WEIGHTS.values()))
    off = float(np.max(np.abs(served / served.sum() / (wanted / wanted.sum()) - 1)))
    at_once_s = [second for one in storm.results for second in one.refused_s] or [0.0]
    pushed_s = [second for one in storm.results for second in one.pushed_out_s]
    refusal_s = float(np.quantile(at_once_s + pushed_s, 0.99))
    return [
        (f"urgent p99 {urgent_s * 1e3:.1f} ms, at most {bound_s * 1e3:.1f}", urgent_s <= bound_s),
        (f"shares within {off:.1%} of the weights, at most 10 %", off <= 0.1),
        (f"goodput {share:.0%} of the peak by processor time, at least 90 %", share >= 0.9),
        (f"refusals p99 {refusal_s * 1e3:.2f} ms, below 10", refusal_s < 0.01),
        (f"memory grew by {grown_share:.1%}, at most 5 %", grown_share <= 0.05),
    ]
