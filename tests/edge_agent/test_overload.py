"""A real agent on one core under three times its load: who is served, who is refused, and when."""

import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from tests.bench.edge_client import Plan, Result
from tests.bench.edge_models import make
from tests.bench.edge_overload import WEIGHTS, kinds
from tests.bench.edge_servers import agent

SECONDS = 4.0
SERVICE_S = 0.01
"""A slot is held for so long, so that a slow machine has the same load as a fast one."""


def carried_out(plan: Plan) -> list[Result]:
    command = [sys.executable, "-m", "tests.bench.edge_client"]
    done = subprocess.run(
        command, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, check=True
    )
    return msgspec.convert(msgspec.json.decode(done.stdout)["results"], list[Result])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_under_three_times_its_load_an_agent_serves_the_urgent_and_shares_the_rest(tmp_path):
    made = make("mlp", 5e-5, "overload")
    cores = sorted(os.sched_getaffinity(0))
    more = {"tenants": WEIGHTS, "queue": 48, "min_service_s": SERVICE_S}
    server = agent([made], tmp_path, cores[0], **more)
    try:
        server.wait_for(made)
        storm = Plan(server.port, kinds(made), 64, SECONDS, rate=3 / SERVICE_S, core=cores[-1])
        results = carried_out(storm)
    finally:
        server.close()
    urgent, *others = results
    assert not any(one.wrong_count or one.lost_count for one in results)
    assert not urgent.refused_s
    assert not urgent.late_count
    refused_s = [second for one in others for second in one.refused_s]
    assert len(refused_s) > sum(len(one.ok_s) for one in others)
    assert sum(len(one.pushed_out_s) for one in others) < 0.01 * len(refused_s)
    assert np.quantile(refused_s, 0.5) < 0.5 * np.quantile(others[0].ok_s, 0.5)
    assert np.quantile(urgent.ok_s, 0.9) < np.quantile(others[2].ok_s, 0.5)
    served = [len(one.ok_s) for one in others]
    assert served == sorted(served), "in the order of their weights"
    assert served[2] > 2 * served[0]
