"""A model's own sample says how it is, and is no reason to keep it."""

import time

import pytest

from isochrone.deploy.demo.prose import write_prose
from isochrone.edge_agent.runtime.calls.call import Calls
from isochrone.edge_agent.runtime.calls.gate import OpenGate
from isochrone.edge_agent.runtime.face.infer import Inference
from isochrone.edge_agent.runtime.face.load_report import Load
from isochrone.edge_agent.runtime.face.oip import OpenInference
from isochrone.edge_agent.runtime.loading.sample import Sampling
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.edge_agent.runtime.residence.upkeep import Upkeep
from isochrone.router.http.limits import Room
from isochrone.router.wire.http import Request
from isochrone.router.wire.report import ModelState

KEPT_S = 60.0


@pytest.fixture(params=["in_a_slot", "in_a_task"])
def package(request, write, tmp_path):
    """What is called on its slot, and what is called in a task of its own."""
    return write() if request.param == "in_a_slot" else write_prose(tmp_path)


async def test_a_sample_keeps_no_model_in_memory(package):
    now_s = 100.0
    pool = Pool([package], clock=lambda: now_s, upkeep=Upkeep(keep_alive_s=KEPT_S))
    gate = OpenGate(1)
    calls = Calls(pool, gate, time.monotonic, lambda *_: None)
    load = Load("edge-1", "eu-west", "one", gate, pool, time.monotonic)
    face = OpenInference(
        pool, Inference(calls, load, body_limit_bytes=1 << 20, room=Room(64 << 20)), lambda: True
    )
    sampling = Sampling(face.handle)
    asked = Request("POST", "/isochrone/sample", [], b"", received_s=time.monotonic())
    name = package.name
    try:
        await pool.load(name)
        for _ in range(2):
            now_s += KEPT_S / 2
            assert pool.state(name) is ModelState.WARM
            answer = await sampling.run(asked, package.manifest, lambda: pool.state(name))
            assert answer.status == 200
            pool.tend()
        assert pool.state(name) is not ModelState.WARM, "samples alone have called it"
    finally:
        await pool.close()
