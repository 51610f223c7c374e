"""An edge agent against bare onnxruntime and MLServer: `python -m tests.bench.edge [--quick]`.

Three networks, each made to take about 0.1 ms and a little over 1 ms here. The servers run on one
core, the clients on another, in turns: of each figure the median of the rounds is told. Bare
onnxruntime is the same run in a loop, in this process, on the servers' core; the floor is a server
that only reads, runs and writes, which tells how far from bare any server in Python is. MLServer is
installed into an environment of its own under `build/`, and has no binary tensors over REST: it is
asked in JSON wherever others are asked in binary.

What is held against the bounds are answers in a second of the server's own processor time, so that
a machine on which others work, too, is judged fairly; where all of the core is the server's, that
is the throughput. `--overload` plays a mixed-tenant overload instead; see `edge_overload`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import msgspec
import numpy as np

from isochrone.router.wire import codec
from isochrone.router.wire.message import InferResponse
from tests.bench.edge_client import Done, Kind, Plan
from tests.bench.edge_models import KINDS, Made, make, session
from tests.bench.edge_overload import overload
from tests.bench.edge_servers import (
    FORMS,
    Server,
    Unavailable,
    agent,
    floor,
    mlserver,
    pinned,
    request_bytes,
)

SIZES_S = {"small": 1e-4, "large": 1.15e-3}
CLIENTS = (1, 16, 64)
LEAST_SHARE = {"small": 0.5, "large": 0.85}
"""Of bare onnxruntime, in binary, at 16 and 64 clients."""
TOLERANCE = 1e-3
_ENVIRONMENT = Path("build") / "mlserver"


@dataclass(slots=True)
class Sample:
    """One round of one case; `cpu_s` is what the server used for each answer."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    model: str
    server: str
    form: str
    clients: int


def run_client(plan: Plan) -> Done:
    """Carry out a plan in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.edge_client"]
    done = subprocess.run(
        command, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, check=True
    )
    return msgspec.json.decode(done.stdout, type=Done)


def measured(server: Server, made: Made, form: str, clients: int, seconds: float) -> Sample:
    """One round.

    Raises:
        AssertionError: an answer was wrong, or there was none.
    """
    request = request_bytes(made, form)
    kind = Kind(request, b'"out"')
    plan = Plan(
        server.port,
        (kind,),
        clients,
        seconds,
        warm_up_s=0.25,
        core=_client_core(),
        server_pid=server.pid,
    )
    done = run_client(plan)
    (result,) = done.results
    failed = len(result.refused_s), result.late_count, result.wrong_count, result.lost_count
    assert not any(failed), f"{server.name}, {made.name}: refused, late, wrong, lost: {failed}"
    _check(made, result.samples)
    count = len(result.ok_s)
    if not count:  # it takes longer than the round
        return Sample(0.0, inf, inf, inf)
    p50_s, p99_s = np.quantile(result.ok_s, [0.5, 0.99])
    return Sample(count / done.seconds, p50_s * 1e3, p99_s * 1e3, done.used_s / count * 1e6)


def _check(made: Made, samples: Sequence[bytes]) -> None:
    """Every sample is the right answer."""
    for whole in samples:
        response = _decoded(whole)
        (out,) = response.outputs
        given, right = out.data.astype(np.float64), made.answer.astype(np.float64)
        np.testing.assert_allclose(given, right, TOLERANCE, TOLERANCE)


def _decoded(whole: bytes) -> InferResponse:
    head, _, body = whole.partition(b"\r\n\r\n")
    lines = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
    return codec.decode_response([(name.lower(), value) for name, _, value in lines], body)


def bare(made: Made, seconds: float) -> Sample:
    """The same run in a loop."""
    opened, times = session(made.data), []
    with pinned(_server_core()):
        until_s, used_s = perf_counter() + seconds, process_time()
        while (now_s := perf_counter()) < until_s:
            opened.run(["out"], {"in": made.given})
            times.append(perf_counter() - now_s)
        used_s = process_time() - used_s
    p50_s, p99_s = np.quantile(times, [0.5, 0.99])
    return Sample(len(times) / seconds, p50_s * 1e3, p99_s * 1e3, used_s / len(times) * 1e6)


def rounds(
    models: Sequence[Made], servers: Sequence[Server], count: int, seconds: float
) -> dict[Case, list[Sample]]:
    """All cases, again and again."""
    samples: dict[Case, list[Sample]] = {}
    for number in range(count):
        for made in models:
            samples.setdefault(Case(made.name, "bare", "", 1), []).append(bare(made, seconds))
            for server, form, clients in _asked(servers):
                case = Case(made.name, server.name, form, clients)
                taken = measured(server, made, form, clients, seconds)
                samples.setdefault(case, []).append(taken)
        print(f"round {number + 1} of {count}", file=sys.stderr)
    return samples


def _asked(servers: Sequence[Server]) -> Iterator[tuple[Server, str, int]]:
    for clients in CLIENTS:
        for form in FORMS:
            for server in servers:
                if form in server.forms:
                    yield server, form, clients


def middle(samples: Sequence[Sample]) -> Sample:
    """The median of each figure."""
    fields = Sample.__dataclass_fields__
    return Sample(**{name: median(getattr(one, name) for one in samples) for name in fields})


def verdicts(middles: dict[Case, Sample]) -> list[tuple[str, bool]]:
    """Every bound, and whether it holds."""
    told = []
    for case, sample in middles.items():
        if case.server != "agent":
            continue
        size = case.model.rpartition("-")[2]
        share = middles[Case(case.model, "bare", "", 1)].cpu_us / sample.cpu_us
        if case.form == "binary" and case.clients > 1:
            least = LEAST_SHARE[size]
            title = f"{case.model}, {case.clients} clients, binary: {share:.2f} of bare"
            told.append((f"{title}, at least {least}", share >= least))
        other = middles.get(Case(case.model, "mlserver", "json", case.clients))
        if other is not None:
            times = sample.per_s / other.per_s if other.per_s else inf
            title = f"{case.model}, {case.clients} clients, {case.form}: {times:.1f} × MLServer"
            told.append((f"{title}, more than 1", times > 1))
    return told


def table(middles: dict[Case, Sample], servers: Sequence[Server], models: Sequence[Made]) -> str:
    """Everything, for people."""
    lines = [f"{'model':18}{'server':10}{'form':8}{'clients':>7}{'answers/s':>11}"]
    lines[0] += f"{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}{'of bare':>9}"
    for made in models:
        alone = middles[Case(made.name, "bare", "", 1)]
        for case, one in middles.items():
            if case.model == made.name:
                line = f"{case.model:18}{case.server:10}{case.form:8}{case.clients:7}"
                line += f"{one.per_s:11.0f}{one.p50_ms:9.2f}{one.p99_ms:9.2f}{one.cpu_us:9.0f}"
                lines.append(f"{line}{alone.cpu_us / one.cpu_us:9.2f}")
    for server in servers:
        resident = server.resident_bytes() / 2**20
        lines.append(
            f"{server.name}: {server.start_s:.2f} s from its start to the first answer,"
            f" {resident:.0f} MB resident at the end"
        )
    return "\n".join(lines)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """The whole comparison, as data."""
    with pinned(_server_core()):
        models = [make(kind, time_s, size) for kind in KINDS for size, time_s in SIZES_S.items()]
    servers: list[Server] = []
    skipped = None
    folders = (tempfile.TemporaryDirectory() for _ in range(3))
    with next(folders) as first, next(folders) as second, next(folders) as third:
        try:
            servers.append(agent(models, Path(first), _server_core()))
            servers.append(floor(models, Path(second), _server_core()))
            for server in servers:
                server.wait_for(models[0])
            try:
                servers.append(_mlserver(models, Path(third), options))
            except Unavailable as error:
                skipped = str(error)
            count, seconds = (1, 0.5) if options.quick else (3, 1.0)
            samples = rounds(models, servers, count, seconds)
            middles = {case: middle(taken) for case, taken in samples.items()}
            print(table(middles, servers, models))
            return _told(middles, servers, skipped)
        finally:
            for server in servers:
                server.close()


def _mlserver(models: Sequence[Made], folder: Path, options: argparse.Namespace) -> Server:
    if options.without_mlserver:
        raise Unavailable("not asked for")
    server = mlserver(models, folder, _server_core(), _ENVIRONMENT.absolute())
    try:
        server.wait_for(models[0])
    except Unavailable:
        server.close()
        raise
    return server


def _told(
    middles: dict[Case, Sample], servers: Sequence[Server], skipped: str | None
) -> dict[str, Any]:
    bounds = verdicts(middles)
    if skipped is not None:
        print(f"MLServer was left out: {skipped}")
    rows = [
        {f: getattr(case, f) for f in Case.__dataclass_fields__}
        | {f: _rounded(getattr(one, f)) for f in Sample.__dataclass_fields__}
        for case, one in middles.items()
    ]
    processes = {
        server.name: {"start_s": server.start_s, "resident_bytes": server.resident_bytes()}
        for server in servers
    }
    return {"rows": rows, "processes": processes, "left_out": skipped, "bounds": bounds}


def _rounded(value: float) -> float | None:
    return round(value, 3) if isfinite(value) else None


def _server_core() -> int:
    return min(os.sched_getaffinity(0))


def _client_core() -> int:
    return max(os.sched_getaffinity(0))


def main() -> int:
    """Measure, tell, judge: 0 where every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--overload", action="store_true", help="the mixed-tenant overload")
    parser.add_argument("--without-mlserver", action="store_true", help="do not install MLServer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        print("two cores are needed: one for the servers, one for the clients", file=sys.stderr)
        return 2
    told = overload(run_client, quick=options.quick) if options.overload else compare(options)
    for title, holds in told["bounds"]:
        print(f"{'holds' if holds else 'FAILS'}  {title}")
    ok = all(holds for _, holds in told["bounds"])
    if options.json is not None:
        told["bounds"] = [[title, bool(holds)] for title, holds in told["bounds"]]
        content = {"schema": "isochrone.bench-edge/1", "ok": ok, **told}
        options.json.write_text(json.dumps(content, indent=1))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
