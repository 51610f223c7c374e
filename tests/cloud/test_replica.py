"""One replica, without Ray: what it says of its own health."""

import asyncio
import json

import pytest

from isochrone.cloud.catalogue import find_package
from isochrone.cloud.config import CloudConfig, ModelConfig
from isochrone.cloud.replica import Replica
from isochrone.router.errors import Unavailable
from isochrone.router.wire.http import Request

COUNTS = 200_000


def ask(count: int, timeout_s: str) -> Request:
    tensor = {"name": "x", "shape": [1], "datatype": "INT64", "data": [count]}
    body = json.dumps({"inputs": [tensor]}).encode()
    timeout = (b"x-request-timeout-seconds", timeout_s.encode())
    return Request("POST", "/v2/models/spin/infer", [timeout], body)


async def test_a_run_that_does_not_end_makes_its_replica_ill_whoever_waits_for_it(store):
    model = ModelConfig(name="spin", longest_run_s=0.1)
    config = CloudConfig(name="here", region="eu", packages=store, models=(model,))
    replica = Replica.__new__(Replica)
    await replica.__init__(  # type: ignore[misc]  # as Serve does
        config, model, find_package(store, "spin", None)
    )
    replica.check_health()
    answer = await replica.answer(ask(COUNTS, "0.2"))
    assert answer.status == 504
    with pytest.raises(Unavailable, match="a run goes on"):
        replica.check_health()
    async with asyncio.timeout(60):
        assert (await replica.answer(ask(1, "50"))).status == 200, "once that has ended"
    replica.check_health()
